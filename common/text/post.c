#include "common/text/post.h"

#include <string.h>

enum { NEST_MAX = 4 };

static bool fail(struct ps_buf *err, const char *what)
{
    ps_buf_addf(err, "post_processor: %s", what);
    return false;
}

bool ps_post_wrap(struct ps_post *p, uint32_t id, bool front)
{
    if (p->n_prefix == PS_POST_IDS_MAX || p->n_suffix == PS_POST_IDS_MAX)
        return false;
    if (front) {
        memmove(p->prefix + 1, p->prefix, p->n_prefix * sizeof(p->prefix[0]));
        p->prefix[0] = id;
        p->n_prefix++;
    } else {
        p->suffix[p->n_suffix++] = id;
    }
    return true;
}

/* The ids of one named special token, appended to ids. */
static bool add_named(const struct ps_json *table, const char *name, uint32_t *ids, uint32_t *n)
{
    const struct ps_json *list =
        ps_json_member(ps_json_member(table, name, PS_JSON_OBJ), "ids", PS_JSON_ARR);

    if (list == NULL)
        return false;
    for (size_t i = 0; i < ps_json_n(list); i++) {
        const struct ps_json *v = ps_json_at(list, i);

        if (ps_json_type(v) != PS_JSON_INT || ps_json_int(v) < 0 || ps_json_int(v) >= UINT32_MAX ||
            *n == PS_POST_IDS_MAX)
            return false;
        ids[(*n)++] = (uint32_t)ps_json_int(v);
    }
    return true;
}

static bool parse_template(struct ps_post *p, const struct ps_json *v, struct ps_buf *err)
{
    const struct ps_json *single = ps_json_member(v, "single", PS_JSON_ARR);
    const struct ps_json *table = ps_json_member(v, "special_tokens", PS_JSON_OBJ);
    uint32_t before[PS_POST_IDS_MAX], after[PS_POST_IDS_MAX], n_before = 0, n_after = 0;
    bool seen = false;
    size_t len;

    if (single == NULL)
        return fail(err, "TemplateProcessing: no list \"single\"");
    for (size_t i = 0; i < ps_json_n(single); i++) {
        const struct ps_json *item = ps_json_at(single, i);
        const struct ps_json *tok = ps_json_member(item, "SpecialToken", PS_JSON_OBJ);
        const struct ps_json *seq = ps_json_member(item, "Sequence", PS_JSON_OBJ);
        const struct ps_json *id = ps_json_member(tok != NULL ? tok : seq, "id", PS_JSON_STR);

        if (id == NULL)
            return fail(err,
                        "TemplateProcessing: an item is neither a SpecialToken nor a Sequence");
        if (tok == NULL) {
            if (seen || strcmp(ps_json_str(id, &len), "A") != 0)
                return fail(err, "TemplateProcessing: \"single\" must hold sequence A once");
            seen = true;
        } else if (!add_named(table, ps_json_str(id, &len), seen ? after : before,
                              seen ? &n_after : &n_before)) {
            return fail(err, "TemplateProcessing: a special token has no usable ids");
        }
    }
    if (!seen)
        return fail(err, "TemplateProcessing: \"single\" must hold sequence A once");
    for (uint32_t i = n_before; i > 0; i--)
        if (!ps_post_wrap(p, before[i - 1], true))
            return fail(err, "too many ids");
    for (uint32_t i = 0; i < n_after; i++)
        if (!ps_post_wrap(p, after[i], false))
            return fail(err, "too many ids");
    return true;
}

static bool parse(struct ps_post *p, const struct ps_json *v, uint32_t depth, struct ps_buf *err)
{
    const struct ps_json *type = ps_json_member(v, "type", PS_JSON_STR), *list;
    const char *name;
    size_t len;

    if (type == NULL || depth > NEST_MAX)
        return fail(err, type == NULL ? "it has no type" : "nested too deep");
    name = ps_json_str(type, &len);
    if (strcmp(name, "ByteLevel") == 0)
        return true;
    if (strcmp(name, "TemplateProcessing") == 0)
        return parse_template(p, v, err);
    if (strcmp(name, "Sequence") == 0) {
        list = ps_json_member(v, "processors", PS_JSON_ARR);
        if (list == NULL)
            return fail(err, "Sequence: no list of processors");
        for (size_t i = 0; i < ps_json_n(list); i++)
            if (!parse(p, ps_json_at(list, i), depth + 1, err))
                return false;
        return true;
    }
    ps_buf_addf(err, "post_processor: %.40s is not supported", name);
    return false;
}

bool ps_post_parse(struct ps_post *p, const struct ps_json *v, struct ps_buf *err)
{
    memset(p, 0, sizeof(*p));
    if (v == NULL || ps_json_type(v) == PS_JSON_NULL)
        return true;
    return parse(p, v, 0, err);
}
