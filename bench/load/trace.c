#include "bench/load/trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json/json.h"

enum { LINE_MAX_BYTES = 1 << 20 };

struct reading {
    struct bn_trace t;
    size_t cap_items, cap_hashes;
    uint32_t shrink;
};

static bool get_int(const struct ps_json *v, const char *key, int64_t max, int64_t *out)
{
    const struct ps_json *m = ps_json_member(v, key, PS_JSON_INT);

    if (m == NULL || ps_json_int(m) < 0 || ps_json_int(m) > max)
        return false;
    *out = ps_json_int(m);
    return true;
}

static void add_item(struct reading *r, const struct bn_trace_item *it)
{
    if (r->t.n_items == r->cap_items) {
        r->cap_items = r->cap_items > 0 ? r->cap_items * 2 : 1024;
        r->t.items = ps_realloc(r->t.items, r->cap_items * sizeof(r->t.items[0]));
    }
    r->t.items[r->t.n_items++] = *it;
}

static bool add_hash(struct reading *r, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_INT || ps_json_int(v) < 0)
        return false;
    if (r->t.n_hashes == r->cap_hashes) {
        r->cap_hashes = r->cap_hashes > 0 ? r->cap_hashes * 2 : 4096;
        r->t.hashes = ps_realloc(r->t.hashes, r->cap_hashes * sizeof(r->t.hashes[0]));
    }
    r->t.hashes[r->t.n_hashes++] = (uint64_t)ps_json_int(v);
    return true;
}

static bool read_request(struct reading *r, const struct ps_json *v)
{
    const struct ps_json *h = ps_json_member(v, "hash_ids", PS_JSON_ARR);
    struct bn_trace_item it = {.hash = r->t.n_hashes};
    int64_t at_ms, n_in, n_out;

    if (h == NULL || !get_int(v, "timestamp", INT64_MAX / 1000, &at_ms) ||
        !get_int(v, "input_length", BN_TRACE_INPUT_MAX, &n_in) ||
        !get_int(v, "output_length", BN_TRACE_INPUT_MAX, &n_out))
        return false;
    if (n_in == 0 || ps_div_up_u64((uint64_t)n_in, BN_TRACE_BLOCK) != ps_json_n(h))
        return false;
    it.at_us = (uint64_t)at_ms * 1000;
    it.n_input = ps_max_u32(1, (uint32_t)n_in / r->shrink);
    it.n_output = ps_max_u32(1, (uint32_t)n_out / r->shrink);
    it.n_hashes = (uint32_t)ps_div_up_u64(it.n_input, r->t.block);
    PS_ASSERT(it.n_hashes <= ps_json_n(h));
    for (uint32_t i = 0; i < it.n_hashes; i++) {
        if (!add_hash(r, ps_json_at(h, i)))
            return false;
    }
    if (r->t.n_items > 0 && it.at_us < r->t.items[r->t.n_items - 1].at_us)
        return false;
    add_item(r, &it);
    return true;
}

static bool read_line(struct reading *r, const char *s, size_t n)
{
    const struct ps_json_limits lim = {.max_depth = 8, .max_values = 1000};
    struct ps_json_doc *d;
    size_t off;
    bool ok;

    if (r->t.n_items == BN_TRACE_REQUESTS_MAX || ps_json_parse(&d, s, n, &lim, &off) != PS_JSON_OK)
        return false;
    ok = read_request(r, ps_json_root(d));
    ps_json_free(d);
    return ok;
}

int bn_trace_read(struct bn_trace *out, const char *path, uint32_t shrink, struct ps_buf *err)
{
    struct reading r = {.shrink = shrink, .t.block = BN_TRACE_BLOCK / shrink};
    char *line;
    size_t n_line = 0, len;
    int res = BN_TRACE_OK;
    FILE *f;

    PS_ASSERT(shrink >= 1 && BN_TRACE_BLOCK % shrink == 0);
    f = fopen(path, "re");
    if (f == NULL) {
        ps_buf_addf(err, "%s: %s", path, strerror(errno));
        return BN_TRACE_E_FILE;
    }
    line = ps_alloc(LINE_MAX_BYTES);
    while (res == BN_TRACE_OK && fgets(line, LINE_MAX_BYTES, f) != NULL) {
        n_line++;
        len = strlen(line);
        if (len > 1 && !read_line(&r, line, len)) {
            ps_buf_addf(err, "%s:%zu: no request of a trace in order of time", path, n_line);
            res = BN_TRACE_E_BAD;
        }
    }
    if (res == BN_TRACE_OK && (ferror(f) || r.t.n_items == 0)) {
        ps_buf_addf(err, "%s: %s", path, ferror(f) ? "cannot be read" : "holds no request");
        res = ferror(f) ? BN_TRACE_E_FILE : BN_TRACE_E_BAD;
    }
    ps_free(line);
    (void)fclose(f);
    if (res == BN_TRACE_OK)
        *out = r.t;
    else
        bn_trace_fini(&r.t);
    return res;
}

void bn_trace_fini(struct bn_trace *t)
{
    ps_free(t->items);
    ps_free(t->hashes);
    t->items = NULL;
    t->hashes = NULL;
    t->n_items = t->n_hashes = 0;
}
