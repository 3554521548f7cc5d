#include "worker/sched/batch.h"

static uint32_t n_pages_of(const struct wk_batch *b, uint32_t n_tokens)
{
    return (uint32_t)ps_div_up_u64(n_tokens, b->page_tokens);
}

static uint32_t flags_of(const struct wk_batch *b, const struct wk_seq *q, uint32_t n_q)
{
    uint32_t flags = 0;

    if (q->n_kv >= q->n_ids)
        flags |= WK_ROW_TOK_FROM_SLOT;
    if (q->n_kv < q->n_attached * b->page_tokens) {
        PS_ASSERT(n_q == 1); /* the last token of a prompt that is cached to its end */
        flags |= WK_ROW_NO_KV_WRITE;
    }
    if (q->n_kv + n_q >= q->n_ids) {
        flags |= WK_ROW_LAST_CHUNK;
        if (q->submit->samp.n_top >= 0 && !q->prefill_only)
            flags |= WK_ROW_LOGPROBS;
    }
    if (wk_seq_needs_scores(q) && q->n_kv + 1 < q->submit->n_prompt)
        flags |= WK_ROW_PROMPT_SCORES;
    return flags;
}

static void add_copy(struct wk_batch *b, struct wk_seq *q)
{
    struct wk_copy c = {.src = q->tail_src, .dst = q->pages[q->n_attached], .n_tok = q->n_tail};

    PS_ASSERT(q->n_attached * b->page_tokens + q->n_tail == q->n_kv);
    wk_plan_add_copy(b->builder, &c);
    q->copy_planned = true;
}

static void add_row(struct wk_batch *b, struct wk_seq *q, uint32_t n_q, struct wk_flight *f)
{
    static const uint32_t unknown = 0; /* the executor takes it from the slot */
    const struct pb_submit *s = q->submit;
    uint32_t flags = flags_of(b, q, n_q), end = q->n_kv + n_q, n_next = 0;
    const uint32_t *next = NULL, *toks = flags & WK_ROW_TOK_FROM_SLOT ? &unknown : q->ids + q->n_kv;
    struct wk_row row = {
        .slot = q->slot, .n_q = (uint16_t)n_q, .flags = flags, .pos_lo = q->n_kv, .pos_hi = end};
    bool copied = q->tail_src != WK_KV_NO_PAGE && !q->copy_planned;

    PS_ASSERT(q->state == WK_SEQ_RUN && n_q > 0 && n_q <= UINT16_MAX);
    PS_ASSERT(q->n_pages >= n_pages_of(b, end));
    if (copied)
        add_copy(b, q);
    if (flags & WK_ROW_PROMPT_SCORES) {
        next = q->ids + q->n_kv + 1;
        n_next = flags & WK_ROW_LAST_CHUNK ? n_q - 1 : n_q;
    }
    row.samp = wk_sample_add(b->builder, s, &b->eos, q->ids, q->n_ids, end, next, n_next);
    wk_plan_add_row(b->builder, &row, toks, q->pages, n_pages_of(b, end));
    f->rows[f->n].q = q;
    f->rows[f->n].pos_lo = q->n_kv;
    f->rows[f->n].pos_hi = end;
    f->rows[f->n].flags = flags;
    f->rows[f->n++].copied = copied;
    if (n_q > 1)
        f->n_prefill += n_q;
    q->n_kv = end;
    q->n_fly_steps++;
    if ((flags & WK_ROW_LAST_CHUNK) && !q->prefill_only)
        q->n_fly_tok++;
    wk_seq_sync(q);
    PS_ASSERT(q->adm.len <= q->adm.hard);
}

/* Tokens that could be computed now: 1 is a decode row, more is a prompt. */
static uint32_t computable(const struct wk_seq *q)
{
    if (!q->prefill_only && q->adm.len >= q->adm.hard)
        return 0; /* its last token is in flight */
    if (q->n_fly_tok > 0 && wk_sample_needs_history(&q->submit->samp))
        return 0; /* the next token depends on the one in flight */
    return q->adm.len - q->n_kv;
}

const struct wk_plan *wk_batch_build(struct wk_batch *b, const struct wk_admit *a, uint64_t ticket,
                                     struct wk_flight *out)
{
    uint32_t budget = b->chunk;

    out->ticket = ticket;
    out->n = out->n_prefill = 0;
    wk_plan_begin(b->builder, ticket);
    for (uint32_t i = 0; i < a->n_rows; i++) {
        struct wk_seq *q = wk_seq_of(a->rows[i]);

        if (computable(q) == 1 && wk_hold_grow(b->tree, q, n_pages_of(b, q->n_kv + 1)) == WK_KV_OK)
            add_row(b, q, 1, out);
    }
    for (uint32_t i = 0; i < a->n_rows && budget > 0; i++) {
        struct wk_seq *q = wk_seq_of(a->rows[i]);
        uint32_t left = computable(q), n_q = ps_min_u32(left, budget);

        /* A row that just decoded has 1 left again, hence > 1 picks prompts only. */
        if (left > 1) {
            budget -= n_q;
            add_row(b, q, n_q, out);
        }
    }
    return out->n > 0 ? wk_plan_end(b->builder) : NULL;
}
