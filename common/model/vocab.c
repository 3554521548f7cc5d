#include "common/model/vocab.h"

#include "common/json/json.h"
#include "common/model/file.h"

enum { MAX_TOKENIZER_BYTES = 256 << 20, MAX_ID = 1 << 24 };

static const struct ps_json_limits json_limits = {.max_depth = 64, .max_values = 16 << 20};

static void raise_to(const struct ps_json *id, uint32_t *n)
{
    if (id != NULL && ps_json_type(id) == PS_JSON_INT && ps_json_int(id) >= 0 &&
        ps_json_int(id) < MAX_ID && ps_json_int(id) >= (int64_t)*n)
        *n = (uint32_t)ps_json_int(id) + 1;
}

static const struct ps_json *member(const struct ps_json *obj, const char *key,
                                    enum ps_json_type type)
{
    const struct ps_json *v = ps_json_type(obj) == PS_JSON_OBJ ? ps_json_get(obj, key) : NULL;

    return v != NULL && ps_json_type(v) == type ? v : NULL;
}

static uint32_t count(const struct ps_json *root)
{
    const struct ps_json *model = member(root, "model", PS_JSON_OBJ);
    const struct ps_json *vocab = model != NULL ? member(model, "vocab", PS_JSON_OBJ) : NULL;
    const struct ps_json *added = member(root, "added_tokens", PS_JSON_ARR), *v;
    void *it = NULL;
    const char *key;
    uint32_t n = 0;
    size_t i;

    while (vocab != NULL && (v = ps_json_next(vocab, &it, &key)) != NULL)
        raise_to(v, &n);
    for (i = 0; added != NULL && i < ps_json_n(added); i++) {
        v = ps_json_at(added, i);
        if (ps_json_type(v) == PS_JSON_OBJ)
            raise_to(ps_json_get(v, "id"), &n);
    }
    return n;
}

int ps_vocab_n_ids(const char *dir, uint32_t *out_n, struct ps_buf *err)
{
    struct ps_buf text = PS_BUF_INIT;
    struct ps_json_doc *doc = NULL;
    uint32_t n = UINT32_MAX;
    size_t off = 0;
    int r;

    PS_ASSERT(dir != NULL && out_n != NULL);
    r = ps_file_read(dir, "tokenizer.json", MAX_TOKENIZER_BYTES, &text);
    if (r == PS_FILE_OK) {
        if (ps_json_parse(&doc, text.data != NULL ? text.data : "", text.len, &json_limits, &off) !=
            PS_JSON_OK)
            ps_buf_addf(err, "tokenizer.json: not valid JSON (byte %zu)", off);
        else if ((n = count(ps_json_root(doc))) == 0)
            ps_buf_addf(err, "tokenizer.json: has no vocabulary");
        r = doc == NULL || n == 0 ? PS_VOCAB_E_BAD : PS_VOCAB_OK;
    } else if (r == PS_FILE_E_NONE) {
        r = PS_VOCAB_OK;
    } else {
        ps_buf_addf(err, "tokenizer.json: cannot be read");
        r = PS_VOCAB_E_BAD;
    }
    ps_json_free(doc);
    ps_buf_fini(&text);
    if (r == PS_VOCAB_OK)
        *out_n = n;
    return r;
}
