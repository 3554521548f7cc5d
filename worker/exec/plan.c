#include "common/buf.h"
#include "worker/exec/exec.h"

#include <string.h>

/* Parts lie one after the other; 64 bytes apart, so that a rank may map any of them. */
enum { PART_ALIGN = 64 };

_Static_assert(sizeof(struct wk_row) == 32, "plans are copied to ranks");
_Static_assert(sizeof(struct wk_copy) == 20, "plans are copied to ranks");

struct table { /* a row's pages, where the caller has them: long contexts are copied once */
    const uint32_t *pages;
    uint32_t n;
};

struct wk_plan_builder {
    struct ps_buf rows, toks, samps, copies, pool;
    struct ps_buf tables; /* [n_row] struct table */
    struct ps_buf block;  /* the finished plan */
    uint32_t n_pages_max;
    uint64_t ticket;
};

struct wk_plan_builder *wk_plan_builder_create(void)
{
    return ps_calloc(1, sizeof(struct wk_plan_builder));
}

void wk_plan_builder_destroy(struct wk_plan_builder *b)
{
    if (b == NULL)
        return;
    ps_buf_fini(&b->rows);
    ps_buf_fini(&b->toks);
    ps_buf_fini(&b->samps);
    ps_buf_fini(&b->copies);
    ps_buf_fini(&b->pool);
    ps_buf_fini(&b->tables);
    ps_buf_fini(&b->block);
    ps_free(b);
}

void wk_plan_begin(struct wk_plan_builder *b, uint64_t ticket)
{
    ps_buf_clear(&b->rows);
    ps_buf_clear(&b->toks);
    ps_buf_clear(&b->samps);
    ps_buf_clear(&b->copies);
    ps_buf_clear(&b->pool);
    ps_buf_clear(&b->tables);
    b->n_pages_max = 0;
    b->ticket = ticket;
}

uint32_t wk_plan_add_row(struct wk_plan_builder *b, const struct wk_row *row, const uint32_t *toks,
                         const uint32_t *pages, uint32_t n_pages)
{
    const struct table t = {pages, n_pages};
    struct wk_row r = *row;

    PS_ASSERT(r.n_q > 0 && n_pages > 0 && r.pos_lo + r.n_q <= r.pos_hi);
    r.tok_off = (uint32_t)(b->toks.len / sizeof(*toks));
    ps_buf_add(&b->rows, &r, sizeof(r));
    ps_buf_add(&b->toks, toks, r.n_q * sizeof(*toks));
    ps_buf_add(&b->tables, &t, sizeof(t));
    b->n_pages_max = ps_max_u32(b->n_pages_max, n_pages);
    return (uint32_t)(b->rows.len / sizeof(r)) - 1;
}

uint32_t wk_plan_add_samp(struct wk_plan_builder *b, const struct wk_samp *s)
{
    ps_buf_add(&b->samps, s, sizeof(*s));
    return (uint32_t)(b->samps.len / sizeof(*s)) - 1;
}

uint32_t wk_plan_add_pool(struct wk_plan_builder *b, const void *words, uint32_t n_words)
{
    uint32_t off = (uint32_t)(b->pool.len / 4);

    ps_buf_add(&b->pool, words, (size_t)n_words * 4);
    return off;
}

void wk_plan_add_copy(struct wk_plan_builder *b, const struct wk_copy *c)
{
    PS_ASSERT(c->src != c->dst && c->n_tok > 0);
    PS_ASSERT(c->group > 0 || c->when == WK_COPY_BEFORE);
    ps_buf_add(&b->copies, c, sizeof(*c));
}

static uint32_t part_begin(struct ps_buf *block)
{
    static const char zeros[PART_ALIGN];
    size_t over = block->len % PART_ALIGN;

    if (over > 0)
        ps_buf_add(block, zeros, PART_ALIGN - over);
    PS_ASSERT(block->len <= UINT32_MAX);
    return (uint32_t)block->len;
}

static uint32_t part_add(struct ps_buf *block, const struct ps_buf *part)
{
    uint32_t off = part_begin(block);

    if (part->len > 0)
        ps_buf_add(block, part->data, part->len);
    return off;
}

/* Rows of equal stride; what a row does not use is page 0, which nothing reads. */
static uint32_t table_add(struct wk_plan_builder *b, uint32_t n_row)
{
    uint32_t off = part_begin(&b->block);
    const struct table *t = (const struct table *)(const void *)b->tables.data;
    uint32_t *to =
        (uint32_t *)(void *)ps_buf_grow(&b->block, (size_t)n_row * b->n_pages_max * sizeof(*to));

    for (uint32_t i = 0; i < n_row; i++, to += b->n_pages_max) {
        memcpy(to, t[i].pages, t[i].n * sizeof(*to));
        memset(to + t[i].n, 0, (b->n_pages_max - t[i].n) * sizeof(*to));
    }
    return off;
}

const struct wk_plan *wk_plan_end(struct wk_plan_builder *b)
{
    struct wk_plan p = {
        .ticket = b->ticket,
        .n_row = (uint32_t)(b->rows.len / sizeof(struct wk_row)),
        .n_tok = (uint32_t)(b->toks.len / 4),
        .n_tok_max = (uint32_t)(b->toks.len / 4),
        .n_loop = 1,
        .table_stride = b->n_pages_max,
        .n_samp = (uint32_t)(b->samps.len / sizeof(struct wk_samp)),
        .n_copy = (uint32_t)(b->copies.len / sizeof(struct wk_copy)),
        .n_pool = (uint32_t)(b->pool.len / 4),
    };

    PS_ASSERT(p.n_row > 0);
    ps_buf_clear(&b->block);
    ps_buf_add(&b->block, &p, sizeof(p));
    p.rows_off = part_add(&b->block, &b->rows);
    p.toks_off = part_add(&b->block, &b->toks);
    p.table_off = table_add(b, p.n_row);
    p.samp_off = part_add(&b->block, &b->samps);
    p.copy_off = part_add(&b->block, &b->copies);
    p.pool_off = part_add(&b->block, &b->pool);
    p.bytes = (uint32_t)b->block.len;
    PS_ASSERT(b->block.len <= UINT32_MAX);
    memcpy(b->block.data, &p, sizeof(p));
    return (const struct wk_plan *)(const void *)b->block.data;
}
