#include "common/text/tokenizer.h"

#include <string.h>

#include "common/text/segcache.h"
#include "common/text/tok_int.h"
#include "common/text/utf8.h"

enum {
    /* Ids are counted in 32 bits, offsets too, and a normaliser may make a text 16 times longer. */
    TEXT_BYTES_MAX = 64 << 20,
    /* Shorter stretches are tokenised faster than they are looked up. */
    SEGMENT_MIN = 32,
    /* Per thread; holds about 400 conversations of 8 KiB (text and ids). */
    SEGMENT_RING_BYTES = 8 << 20,
};

struct ps_tok_ctx {
    const struct ps_tok *t;
    struct ps_norm_scratch norm;
    struct ps_pretok_ctx *pretok;
    struct ps_bpe_ctx *bpe;
    struct ps_segcache *segments; /* made on first use */
    uint32_t n_max;               /* of the call at work: ids->n must not pass it */
};

struct ps_tok_ctx *ps_tok_ctx_create(const struct ps_tok *t)
{
    struct ps_tok_ctx *c = ps_calloc(1, sizeof(*c));

    c->t = t;
    c->pretok = ps_pretok_ctx_create(t->pretok);
    c->bpe = ps_bpe_ctx_create(&t->bpe);
    return c;
}

void ps_tok_ctx_destroy(struct ps_tok_ctx *c)
{
    if (c == NULL)
        return;
    ps_norm_scratch_fini(&c->norm);
    ps_pretok_ctx_destroy(c->pretok);
    ps_bpe_ctx_destroy(c->bpe);
    ps_segcache_destroy(c->segments);
    ps_free(c);
}

/* Text without added tokens, normalised already. */
static int encode_plain(struct ps_tok_ctx *c, const char *s, size_t len, bool use_cache,
                        struct ps_tok_ids *ids)
{
    const struct ps_span *spans;
    const char *base, *end;
    uint32_t n;

    if (!ps_pretok_start(c->pretok, s, len))
        return PS_TOK_E_LIMIT;
    while ((n = ps_pretok_next(c->pretok, &spans, &base, &end)) > 0) {
        for (uint32_t i = 0; i < n; i++)
            ps_bpe_encode(c->bpe, base + spans[i].from, spans[i].to - spans[i].from, end, use_cache,
                          ids);
        if (ids->n > c->n_max)
            return PS_TOK_E_LIMIT;
    }
    return PS_TOK_OK;
}

/* Normalises, cuts at the tokens that are matched after that, and encodes what lies between. */
static int encode_raw(struct ps_tok_ctx *c, const char *s, size_t len, uint32_t flags,
                      struct ps_tok_ids *ids)
{
    bool use_cache = (flags & PS_TOK_NO_CACHE) == 0, is_tok;
    struct ps_split it;
    size_t from, to;
    uint32_t id;
    int r;

    PS_ASSERT(ps_utf8_valid(s, len)); /* everything below relies on it */
    if (!ps_norm_run(c->t->norm, &c->norm, s, len, &s, &len))
        return PS_TOK_E_LIMIT;
    if (c->t->added_norm.n == 0 || (flags & PS_TOK_NO_CONTROL) != 0)
        return encode_plain(c, s, len, use_cache, ids);
    ps_split_init(&it, &c->t->added_norm, s, len);
    while (ps_split_next(&it, &is_tok, &id, &from, &to)) {
        if (is_tok) {
            ps_tok_ids_add(ids, id);
            continue;
        }
        r = encode_plain(c, s + from, to - from, use_cache, ids);
        if (r != PS_TOK_OK)
            return r;
    }
    return PS_TOK_OK;
}

/* A stretch between added tokens: from the cache, or encoded and remembered. */
static int encode_segment(struct ps_tok_ctx *c, const char *s, size_t len, uint32_t flags,
                          struct ps_tok_ids *ids)
{
    uint32_t kind = flags & PS_TOK_NO_CONTROL, from = ids->n;
    int r;

    if (len < SEGMENT_MIN || (flags & PS_TOK_NO_CACHE) != 0)
        return encode_raw(c, s, len, flags, ids);
    if (c->segments == NULL)
        c->segments = ps_segcache_create(SEGMENT_RING_BYTES);
    if (ps_segcache_get(c->segments, s, len, kind, ids))
        return PS_TOK_OK;
    r = encode_raw(c, s, len, flags, ids);
    if (r == PS_TOK_OK)
        ps_segcache_put(c->segments, s, len, kind, ids->ids + from, ids->n - from);
    return r;
}

static int encode_all(struct ps_tok_ctx *c, const char *text, size_t len, uint32_t flags,
                      struct ps_tok_ids *ids)
{
    struct ps_split it;
    size_t from, to;
    uint32_t id;
    bool is_tok;
    int r;

    if (c->t->added_raw.n == 0 || (flags & PS_TOK_NO_CONTROL) != 0)
        return len == 0 ? PS_TOK_OK : encode_segment(c, text, len, flags, ids);
    ps_split_init(&it, &c->t->added_raw, text, len);
    while (ps_split_next(&it, &is_tok, &id, &from, &to)) {
        r = PS_TOK_OK;
        if (is_tok)
            ps_tok_ids_add(ids, id);
        else
            r = encode_segment(c, text + from, to - from, flags, ids);
        if (r != PS_TOK_OK || ids->n > c->n_max)
            return r != PS_TOK_OK ? r : PS_TOK_E_LIMIT;
    }
    return PS_TOK_OK;
}

int ps_tok_encode(struct ps_tok_ctx *c, const char *text, size_t len, uint32_t flags,
                  uint32_t max_tokens, struct ps_tok_ids *ids)
{
    const struct ps_post *post = &c->t->post;
    bool special = (flags & PS_TOK_SPECIAL) != 0;
    uint32_t from = ids->n;
    int r;

    if (len > TEXT_BYTES_MAX)
        return PS_TOK_E_LIMIT;
    c->n_max = max_tokens == 0 || max_tokens > UINT32_MAX - from ? UINT32_MAX : from + max_tokens;
    for (uint32_t i = 0; special && i < post->n_prefix; i++)
        ps_tok_ids_add(ids, post->prefix[i]);
    r = encode_all(c, text, len, flags, ids);
    for (uint32_t i = 0; special && i < post->n_suffix; i++)
        ps_tok_ids_add(ids, post->suffix[i]);
    if (r == PS_TOK_OK && ids->n > c->n_max)
        r = PS_TOK_E_LIMIT;
    if (r != PS_TOK_OK)
        ids->n = from;
    return r;
}

void ps_tok_ids_fini(struct ps_tok_ids *ids)
{
    ps_free(ids->ids);
    memset(ids, 0, sizeof(*ids));
}

uint32_t ps_tok_n_vocab(const struct ps_tok *t)
{
    return t->vocab.n_id;
}

const char *ps_tok_bytes(const struct ps_tok *t, uint32_t id, uint32_t *out_len)
{
    const struct ps_vocab_ent *e = ps_vocab_at(&t->vocab, id);

    *out_len = e == NULL ? 0 : e->raw_len;
    return e == NULL ? "" : ps_vocab_raw(&t->vocab, e);
}

bool ps_tok_is_special(const struct ps_tok *t, uint32_t id)
{
    const struct ps_vocab_ent *e = ps_vocab_at(&t->vocab, id);

    return e != NULL && e->special;
}

bool ps_tok_find(const struct ps_tok *t, const char *content, size_t len, uint32_t *out_id)
{
    uint32_t id = ps_vocab_find_text(&t->vocab, content, len);

    if (id == PS_VOCAB_NONE)
        return false;
    *out_id = id;
    return true;
}

const char *ps_tok_bos(const struct ps_tok *t)
{
    return t->bos;
}

const char *ps_tok_eos(const struct ps_tok *t)
{
    return t->eos;
}

const char *ps_tok_pad(const struct ps_tok *t)
{
    return t->pad;
}

const char *ps_tok_unk(const struct ps_tok *t)
{
    return t->unk;
}

bool ps_tok_eos_id(const struct ps_tok *t, uint32_t *out_id)
{
    return t->eos[0] != '\0' && ps_tok_find(t, t->eos, strlen(t->eos), out_id);
}

void ps_tok_digest(const struct ps_tok *t, uint8_t out[32])
{
    memcpy(out, t->digest, sizeof(t->digest));
}
