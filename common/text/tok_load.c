#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json/json.h"
#include "common/map.h"
#include "common/text/tok_int.h"

enum {
    FILE_BYTES_MAX = 128 << 20, /* the largest published tokenizer.json has 33 MB */
    JSON_VALUES_MAX = 8 << 20,  /* it has 2 M values: vocabulary, and merges as pairs */
    JSON_DEPTH_MAX = 32,
    ADDED_BYTES_MAX = 8 << 20,
    CONFIG_TEXT_MAX = 1024, /* a bos_token or the like */
};

/* One entry of added_tokens. */
struct added {
    const char *content;
    size_t len;
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

static int bad(struct ps_buf *err, const char *sentence)
{
    ps_buf_add_str(err, sentence);
    return PS_TOK_E_BAD;
}

/* Absent and null are the same to every stage. */
static const struct ps_json *stage(const struct ps_json *v, const char *key)
{
    const struct ps_json *m = ps_json_get(v, key);

    return m == NULL || ps_json_type(m) == PS_JSON_NULL ? NULL : m;
}

static bool flag(const struct ps_json *v, const char *key, bool otherwise)
{
    const struct ps_json *m = ps_json_member(v, key, PS_JSON_BOOL);

    return m != NULL ? ps_json_bool(m) : otherwise;
}

static int load_vocab(struct ps_tok *t, const struct ps_json *model, struct ps_buf *err)
{
    const struct ps_json *vocab = ps_json_member(model, "vocab", PS_JSON_OBJ), *v;
    const char *key;
    void *it = NULL;

    if (vocab == NULL || ps_json_n(vocab) == 0)
        return bad(err, "model: there is no vocab");
    while ((v = ps_json_next(vocab, &it, &key)) != NULL) {
        int64_t id = ps_json_type(v) == PS_JSON_INT ? ps_json_int(v) : -1;

        if (id < 0 || id >= PS_VOCAB_ID_MAX) {
            ps_buf_addf(err, "model: vocab: an id is not a number from 0 to %d",
                        PS_VOCAB_ID_MAX - 1);
            return PS_TOK_E_BAD;
        }
        if (!ps_vocab_add_model(&t->vocab, key, strlen(key), (uint32_t)id)) {
            ps_buf_addf(err, "model: vocab: id %u is used twice", (unsigned)id);
            return PS_TOK_E_BAD;
        }
    }
    return PS_TOK_OK;
}

/* The two halves of a merge: "left right" with one space, or a pair. */
static bool merge_halves(const struct ps_json *m, const char **l, size_t *l_len, const char **r,
                         size_t *r_len)
{
    if (ps_json_type(m) == PS_JSON_STR) {
        size_t len;
        const char *s = ps_json_str(m, &len);
        const char *space = memchr(s, ' ', len);

        if (space == NULL || memchr(space + 1, ' ', len - (size_t)(space + 1 - s)) != NULL)
            return false;
        *l = s;
        *l_len = (size_t)(space - s);
        *r = space + 1;
        *r_len = len - *l_len - 1;
        return true;
    }
    if (ps_json_type(m) != PS_JSON_ARR || ps_json_n(m) != 2 ||
        ps_json_type(ps_json_at(m, 0)) != PS_JSON_STR ||
        ps_json_type(ps_json_at(m, 1)) != PS_JSON_STR)
        return false;
    *l = ps_json_str(ps_json_at(m, 0), l_len);
    *r = ps_json_str(ps_json_at(m, 1), r_len);
    return true;
}

static int load_merges(struct ps_tok *t, const struct ps_json *model, struct ps_buf *err)
{
    const struct ps_json *list = ps_json_member(model, "merges", PS_JSON_ARR);
    struct ps_buf both = PS_BUF_INIT;
    uint32_t rank = 0;
    int r = PS_TOK_OK;

    if (list == NULL)
        return bad(err, "model: there are no merges");
    ps_bpe_init(&t->bpe, &t->vocab, (uint32_t)ps_json_n(list));
    for (size_t i = 0; i < ps_json_n(list) && r == PS_TOK_OK; i++) {
        const struct ps_json *m = ps_json_at(list, i);
        const char *left, *right;
        size_t l_len, r_len;
        uint32_t l, rt, id;

        if (ps_json_type(m) == PS_JSON_STR && strncmp(ps_json_str(m, &l_len), "#version", 8) == 0)
            continue;
        if (!merge_halves(m, &left, &l_len, &right, &r_len)) {
            ps_buf_addf(err, "model: merges: entry %zu is not a pair", i);
            r = PS_TOK_E_BAD;
            break;
        }
        ps_buf_clear(&both);
        ps_buf_add(&both, left, l_len);
        ps_buf_add(&both, right, r_len);
        l = ps_vocab_find_text(&t->vocab, left, l_len);
        rt = ps_vocab_find_text(&t->vocab, right, r_len);
        id = ps_vocab_find_text(&t->vocab, both.len > 0 ? both.data : "", both.len);
        if (l == PS_VOCAB_NONE || rt == PS_VOCAB_NONE || id == PS_VOCAB_NONE) {
            ps_buf_addf(err, "model: merges: entry %zu names a token that is not in vocab", i);
            r = PS_TOK_E_BAD;
            break;
        }
        ps_bpe_add(&t->bpe, l, rt, rank++, id);
    }
    ps_buf_fini(&both);
    return r;
}

/* Bytes that occur in UTF-8 all have a token: then unk_token and byte_fallback have no effect. */
static bool has_all_bytes(const struct ps_bpe *b)
{
    for (uint32_t i = 0; i < 256; i++)
        if (b->byte_id[i] == PS_VOCAB_NONE && i != 0xC0 && i != 0xC1 && i < 0xF5)
            return false;
    return true;
}

static bool is_null_or_empty(const struct ps_json *model, const char *key)
{
    const struct ps_json *v = stage(model, key);
    size_t len;

    if (v == NULL)
        return true;
    if (ps_json_type(v) == PS_JSON_STR)
        return ps_json_str(v, &len)[0] == '\0';
    return ps_json_type(v) != PS_JSON_BOOL && ps_json_type(v) <= PS_JSON_REAL &&
           !(ps_json_num(v) > 0 || ps_json_num(v) < 0);
}

static int load_model(struct ps_tok *t, const struct ps_json *root, struct ps_buf *err)
{
    static const char *const unused[] = {"dropout", "continuing_subword_prefix",
                                         "end_of_word_suffix"};
    const struct ps_json *model = ps_json_member(root, "model", PS_JSON_OBJ), *type, *unk;
    const char *name;
    size_t len;
    int r;

    if (model == NULL)
        return bad(err, "model: there is none");
    type = stage(model, "type");
    if (type != NULL &&
        (ps_json_type(type) != PS_JSON_STR || strcmp(ps_json_str(type, &len), "BPE") != 0))
        return bad(err, "model: only BPE is supported");
    for (size_t i = 0; i < PS_ARRAY_LEN(unused); i++)
        if (!is_null_or_empty(model, unused[i])) {
            ps_buf_addf(err, "model: %s is not supported", unused[i]);
            return PS_TOK_E_BAD;
        }
    r = load_vocab(t, model, err);
    if (r == PS_TOK_OK)
        r = load_merges(t, model, err);
    if (r != PS_TOK_OK)
        return r;
    ps_bpe_seal(&t->bpe);
    t->bpe.ignore_merges = flag(model, "ignore_merges", false);
    t->bpe.fuse_unk = flag(model, "fuse_unk", false);
    if (has_all_bytes(&t->bpe))
        return PS_TOK_OK;
    if (flag(model, "byte_fallback", false))
        return bad(err, "model: byte_fallback is not supported");
    unk = ps_json_member(model, "unk_token", PS_JSON_STR);
    if (unk == NULL)
        return PS_TOK_OK;
    name = ps_json_str(unk, &len);
    t->bpe.unk_id = ps_vocab_find_text(&t->vocab, name, len);
    if (t->bpe.unk_id == PS_VOCAB_NONE)
        return bad(err, "model: unk_token is not in vocab");
    return PS_TOK_OK;
}

static int parse_added(const struct ps_json *v, struct added *a, struct ps_buf *err)
{
    const struct ps_json *content = ps_json_member(v, "content", PS_JSON_STR);

    if (content == NULL)
        return bad(err, "added_tokens: an entry has no content");
    a->content = ps_json_str(content, &a->len);
    if (a->len > PS_ADDED_LEN_MAX || strlen(a->content) != a->len)
        return bad(err, "added_tokens: a content is longer than 1024 bytes or holds a NUL");
    a->special = flag(v, "special", false);
    a->single_word = flag(v, "single_word", false);
    a->lstrip = flag(v, "lstrip", false);
    a->rstrip = flag(v, "rstrip", false);
    a->normalized = flag(v, "normalized", !a->special);
    return PS_TOK_OK;
}

/*
 * Ids are given as the tokenizers library gives them: a content that the vocabulary has keeps its
 * id, a new one gets the next free id after vocabulary and added tokens. The "id" of the file is a
 * note about that and not read.
 */
static bool give_id(struct ps_tok *t, struct added *a, int64_t *max_id)
{
    uint32_t n_model = t->vocab.n_model;

    a->id = ps_vocab_find_text(&t->vocab, a->content, a->len);
    if (a->id == PS_VOCAB_NONE)
        a->id = *max_id >= (int64_t)n_model ? (uint32_t)(*max_id + 1) : n_model;
    if (!ps_vocab_add_added(&t->vocab, a->content, a->len, a->id))
        return false;
    if ((int64_t)a->id > *max_id)
        *max_id = a->id;
    return true;
}

/* Adds one content to the set it is matched in; flags are those of the last token with this id. */
static bool add_pattern(struct ps_tok *t, const struct added *a, const struct added *last,
                        struct ps_norm_scratch *scratch)
{
    struct ps_added_tok tok = {a->id, last->single_word, last->lstrip, last->rstrip};
    const char *s = a->content;
    size_t len = a->len;

    if (a->normalized && !ps_norm_run(t->norm, scratch, s, len, &s, &len))
        return false;
    if (len > PS_ADDED_LEN_MAX)
        return false;
    if (len > 0)
        ps_added_add(a->normalized ? &t->added_norm : &t->added_raw, s, len, tok);
    return true;
}

/*
 * A token matched in its normalised form decodes to that form. It is special only if that form is
 * the content of a special token: so does the tokenizers library (0.23).
 */
static bool set_decoded(struct ps_tok *t, const struct added *a, struct ps_norm_scratch *scratch)
{
    const char *s = a->content;
    size_t len = a->len;

    if (!a->normalized)
        return true;
    if (!ps_norm_run(t->norm, scratch, s, len, &s, &len))
        return false;
    if (len != a->len || memcmp(s, a->content, len) != 0)
        ps_vocab_set_decoded(&t->vocab, a->id, s, len);
    return true;
}

/* Special tokens first, then the others, each in file order: the first of equal contents counts. */
static bool add_patterns(struct ps_tok *t, struct added *v, size_t n)
{
    struct ps_norm_scratch scratch = {PS_BUF_INIT, PS_BUF_INIT};
    struct ps_map last;
    bool good = true;

    ps_map_init(&last, 0);
    for (size_t i = 0; i < n; i++)
        if (v[i].len > 0)
            ps_map_put(&last, v[i].id, i);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n && good; i++) {
            uint64_t at = i;

            if (v[i].len == 0)
                continue;
            /* A content that is special anywhere counts as its first special entry describes it. */
            if (pass == 0 ? !v[i].special : ps_vocab_is_special(&t->vocab, v[i].content, v[i].len))
                continue;
            (void)ps_map_get(&last, v[i].id, &at);
            good = add_pattern(t, &v[i], &v[at], &scratch);
        }
    for (size_t i = 0; i < n && good; i++) {
        uint64_t at = i;

        if (v[i].len > 0 && ps_map_get(&last, v[i].id, &at) && at == i)
            good = set_decoded(t, &v[i], &scratch);
    }
    ps_map_fini(&last);
    ps_norm_scratch_fini(&scratch);
    return good;
}

static int load_added(struct ps_tok *t, const struct ps_json *root, struct ps_buf *err)
{
    const struct ps_json *list = stage(root, "added_tokens");
    int64_t max_id = -1;
    struct added *v;
    size_t n, sum = 0;
    int r = PS_TOK_OK;

    if (list == NULL)
        return PS_TOK_OK;
    if (ps_json_type(list) != PS_JSON_ARR)
        return bad(err, "added_tokens: not a list");
    n = ps_json_n(list);
    v = ps_calloc(n + 1, sizeof(*v));
    for (size_t i = 0; i < n && r == PS_TOK_OK; i++) {
        r = parse_added(ps_json_at(list, i), &v[i], err);
        sum += v[i].len;
        if (r == PS_TOK_OK && sum > ADDED_BYTES_MAX)
            r = bad(err, "added_tokens: more than 8 MiB of text");
        if (r == PS_TOK_OK && v[i].len > 0 && !give_id(t, &v[i], &max_id))
            r = bad(err, "added_tokens: too many ids");
    }
    for (size_t i = 0; i < n && r == PS_TOK_OK; i++)
        if (v[i].special)
            ps_vocab_set_special(&t->vocab, v[i].content, v[i].len);
    if (r == PS_TOK_OK && !add_patterns(t, v, n))
        r = bad(err, "added_tokens: a normalised content is too long");
    ps_free(v);
    return r;
}

static int check_decoder(const struct ps_json *root, struct ps_buf *err)
{
    const struct ps_json *v = stage(root, "decoder"), *type;
    size_t len;

    type = ps_json_member(v, "type", PS_JSON_STR);
    if (type == NULL)
        return bad(err, "decoder: there is none; ByteLevel is needed");
    if (strcmp(ps_json_str(type, &len), "ByteLevel") == 0)
        return PS_TOK_OK;
    ps_buf_addf(err, "decoder: %.40s is not supported", ps_json_str(type, &len));
    return PS_TOK_E_BAD;
}

static int load_post(struct ps_tok *t, const struct ps_json *root, struct ps_buf *err)
{
    if (!ps_post_parse(&t->post, stage(root, "post_processor"), err))
        return PS_TOK_E_BAD;
    for (uint32_t i = 0; i < t->post.n_prefix; i++)
        if (t->post.prefix[i] >= t->vocab.n_id)
            return bad(err, "post_processor: an id is not in the vocabulary");
    for (uint32_t i = 0; i < t->post.n_suffix; i++)
        if (t->post.suffix[i] >= t->vocab.n_id)
            return bad(err, "post_processor: an id is not in the vocabulary");
    return PS_TOK_OK;
}

/* bos_token and the like: a string, or an object with content. */
static char *config_text(const struct ps_json *root, const char *key)
{
    const struct ps_json *v = ps_json_member(root, key, PS_JSON_STR);
    size_t len = 0;
    const char *s;

    if (v == NULL)
        v = ps_json_member(ps_json_member(root, key, PS_JSON_OBJ), "content", PS_JSON_STR);
    s = v == NULL ? "" : ps_json_str(v, &len);
    return ps_strndup(s, len <= CONFIG_TEXT_MAX ? len : 0);
}

static int load_config(struct ps_tok *t, const char *json, size_t len, struct ps_buf *err)
{
    const struct ps_json_limits lim = {JSON_DEPTH_MAX, JSON_VALUES_MAX};
    const struct ps_json *root = NULL;
    struct ps_json_doc *doc = NULL;
    int r = PS_TOK_OK;
    uint32_t id;
    size_t off;

    if (json != NULL) {
        if (ps_json_parse(&doc, json, len, &lim, &off) != PS_JSON_OK ||
            ps_json_type(ps_json_root(doc)) != PS_JSON_OBJ) {
            ps_json_free(doc);
            return bad(err, "tokenizer_config.json is not a JSON object");
        }
        root = ps_json_root(doc);
    }
    t->bos = config_text(root, "bos_token");
    t->eos = config_text(root, "eos_token");
    t->pad = config_text(root, "pad_token");
    t->unk = config_text(root, "unk_token");
    /* Files whose post-processor is silent state it here; one that adds the token already is right. */
    if (flag(root, "add_bos_token", false) && ps_tok_find(t, t->bos, strlen(t->bos), &id) &&
        (t->post.n_prefix == 0 || t->post.prefix[0] != id) && !ps_post_wrap(&t->post, id, true))
        r = bad(err, "post_processor: too many ids");
    if (flag(root, "add_eos_token", false) && ps_tok_find(t, t->eos, strlen(t->eos), &id) &&
        (t->post.n_suffix == 0 || t->post.suffix[t->post.n_suffix - 1] != id) &&
        !ps_post_wrap(&t->post, id, false))
        r = bad(err, "post_processor: too many ids");
    ps_json_free(doc);
    return r;
}

static int load_stages(struct ps_tok *t, const struct ps_json *root, struct ps_buf *err)
{
    int r;

    t->norm = ps_norm_create(ps_json_get(root, "normalizer"), err);
    if (t->norm == NULL)
        return PS_TOK_E_BAD;
    t->pretok = ps_pretok_create(ps_json_get(root, "pre_tokenizer"), err);
    if (t->pretok == NULL)
        return PS_TOK_E_BAD;
    r = check_decoder(root, err);
    if (r == PS_TOK_OK)
        r = load_model(t, root, err);
    if (r == PS_TOK_OK)
        r = load_added(t, root, err);
    if (r == PS_TOK_OK)
        r = load_post(t, root, err);
    return r;
}

int ps_tok_parse(struct ps_tok **out, const char *json, size_t len, const char *config,
                 size_t config_len, struct ps_buf *err)
{
    const struct ps_json_limits lim = {JSON_DEPTH_MAX, JSON_VALUES_MAX};
    struct ps_json_doc *doc = NULL;
    struct ps_tok *t;
    size_t off = 0;
    int r;

    if (len > FILE_BYTES_MAX || config_len > FILE_BYTES_MAX)
        return bad(err, "tokenizer.json or tokenizer_config.json is larger than 128 MiB");
    r = ps_json_parse(&doc, json, len, &lim, &off);
    if (r != PS_JSON_OK) {
        ps_buf_addf(err, "tokenizer.json is not usable JSON at byte %zu", off);
        return PS_TOK_E_BAD;
    }
    t = ps_calloc(1, sizeof(*t));
    ps_vocab_init(&t->vocab);
    ps_added_init(&t->added_raw);
    ps_added_init(&t->added_norm);
    ps_sha256(json, len, t->digest);
    if (ps_json_type(ps_json_root(doc)) == PS_JSON_OBJ)
        r = load_stages(t, ps_json_root(doc), err);
    else
        r = bad(err, "tokenizer.json is not an object");
    ps_json_free(doc);
    if (r == PS_TOK_OK)
        r = load_config(t, config, config_len, err);
    if (r == PS_TOK_OK)
        *out = t;
    else
        ps_tok_destroy(t);
    return r;
}

/* false: err has the sentence, unless the file is absent and may be. */
static bool read_file(const char *dir, const char *name, bool optional, struct ps_buf *out,
                      struct ps_buf *err)
{
    struct ps_buf path = PS_BUF_INIT;
    PS_AUTO(ps_close_fd) int fd = -1;
    bool good = false;
    struct stat st;

    ps_buf_addf(&path, "%s/%s", dir, name);
    fd = open(path.data, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (!optional || errno != ENOENT)
            ps_buf_addf(err, "%s: %s", path.data, strerror(errno));
        goto out;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
        ps_buf_addf(err, "%s: not a file of at most 128 MiB", path.data);
        goto out;
    }
    ps_buf_reserve(out, (size_t)st.st_size + 1);
    while (out->len < (size_t)st.st_size) {
        ssize_t k = read(fd, out->data + out->len, (size_t)st.st_size - out->len);

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            ps_buf_addf(err, "%s: cannot be read", path.data);
            goto out;
        }
        out->len += (size_t)k;
    }
    out->data[out->len] = '\0';
    good = true;
out:
    ps_buf_fini(&path);
    return good;
}

int ps_tok_load(struct ps_tok **out, const char *dir, struct ps_buf *err)
{
    struct ps_buf json = PS_BUF_INIT, config = PS_BUF_INIT;
    size_t len = err->len;
    bool has_config;
    int r = PS_TOK_E_BAD;

    if (!read_file(dir, "tokenizer.json", false, &json, err))
        goto out;
    has_config = read_file(dir, "tokenizer_config.json", true, &config, err);
    if (err->len == len)
        r = ps_tok_parse(out, json.data, json.len, has_config ? config.data : NULL, config.len,
                         err);
out:
    ps_buf_fini(&json);
    ps_buf_fini(&config);
    return r;
}

void ps_tok_destroy(struct ps_tok *t)
{
    if (t == NULL)
        return;
    ps_bpe_fini(&t->bpe);
    ps_vocab_fini(&t->vocab);
    ps_added_fini(&t->added_raw);
    ps_added_fini(&t->added_norm);
    ps_norm_destroy(t->norm);
    ps_pretok_destroy(t->pretok);
    ps_free(t->bos);
    ps_free(t->eos);
    ps_free(t->pad);
    ps_free(t->unk);
    ps_free(t);
}
