#include "worker/sched/batch.h"

#include "worker/sched/snap.h"

static uint32_t n_pages_of(const struct wk_batch *b, uint32_t n_tokens)
{
    return (uint32_t)ps_div_up_u64(n_tokens, b->page_tokens);
}

static uint32_t flags_of(const struct wk_batch *b, const struct wk_seq *q, uint32_t n_q)
{
    uint32_t flags = q->is_new_in_slot ? WK_ROW_FIRST : 0;

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

/* What the cache has of the page, or the state, that the row begins in. */
static bool add_first_copy(struct wk_batch *b, struct wk_seq *q)
{
    struct wk_copy c;

    if (!wk_hold_first_copy(b->store, q, &c))
        return false;
    PS_ASSERT(c.group > 0 ? c.n_tok == q->n_attached * b->page_tokens
                          : q->n_attached * b->page_tokens + c.n_tok == q->n_kv);
    wk_plan_add_copy(b->builder, &c);
    q->copy_planned = true;
    return true;
}

/* A row of a model with a state ends at pos: its state is kept, if it is of use and there is room. */
static uint32_t keep_state(struct wk_batch *b, const struct wk_admit *a, const struct wk_seq *q,
                           uint32_t pos)
{
    struct wk_copy c = {.group = WK_KV_SNAP_GROUP, .src = q->state_item, .n_tok = pos};

    if (q->state_item == WK_KV_NO_ITEM || wk_snap_next(q, b->page_tokens, pos - 1) != pos ||
        q->epoch != wk_kv_tree_epoch(wk_store_tree(b->store)))
        return WK_KV_NO_ITEM;
    c.dst = wk_hold_lend(b->store, a);
    b->n_missed += c.dst == WK_KV_NO_ITEM;
    if (c.dst == WK_KV_NO_ITEM)
        return WK_KV_NO_ITEM;
    c.when = WK_COPY_AFTER;
    wk_plan_add_copy(b->builder, &c);
    return c.dst;
}

static void add_row(struct wk_batch *b, const struct wk_admit *a, struct wk_seq *q, uint32_t n_q,
                    struct wk_flight *f)
{
    static const uint32_t unknown = 0; /* the executor takes it from the slot */
    const struct pb_submit *s = q->submit;
    uint32_t flags = flags_of(b, q, n_q), end = q->n_kv + n_q, n_next = 0;
    const uint32_t *next = NULL, *toks = flags & WK_ROW_TOK_FROM_SLOT ? &unknown : q->ids + q->n_kv;
    struct wk_row row = {.slot = q->slot,
                         .n_q = (uint16_t)n_q,
                         .flags = flags,
                         .pos_lo = q->n_kv,
                         .pos_hi = end,
                         .state = q->state_item};

    PS_ASSERT(q->state == WK_SEQ_RUN && n_q > 0 && n_q <= UINT16_MAX);
    PS_ASSERT(q->n_pages >= n_pages_of(b, end));
    f->rows[f->n].copied = add_first_copy(b, q);
    f->rows[f->n].kept = keep_state(b, a, q, end);
    if (flags & WK_ROW_PROMPT_SCORES) {
        next = q->ids + q->n_kv + 1;
        n_next = flags & WK_ROW_LAST_CHUNK ? n_q - 1 : n_q;
    }
    row.samp = wk_sample_add(b->builder, s, &b->eos, q->ids, q->n_ids, end, next, n_next);
    wk_plan_add_row(b->builder, &row, toks, q->pages, n_pages_of(b, end));
    f->rows[f->n].q = q;
    f->rows[f->n].pos_lo = q->n_kv;
    f->rows[f->n].pos_hi = end;
    f->rows[f->n++].flags = flags;
    q->is_new_in_slot = false;
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
    if (q->state != WK_SEQ_RUN)
        return 0; /* its pages are still on their way */
    if (!q->prefill_only && q->adm.len >= q->adm.hard)
        return 0; /* its last token is in flight */
    if (q->n_fly_tok > 0 && wk_sample_needs_history(&q->submit->samp))
        return 0; /* the next token depends on the one in flight */
    return q->adm.len - q->n_kv;
}

/* Prompts end a step where their state is kept. */
static void set_stops(const struct wk_batch *b, const struct wk_admit *a)
{
    for (uint32_t i = 0; i < a->n_rows; i++) {
        const struct wk_seq *q = wk_seq_of(a->rows[i]);
        uint64_t stop = 0;

        if (q->state_item != WK_KV_NO_ITEM)
            stop = wk_snap_next(q, b->page_tokens, q->n_kv) - q->n_kv;
        a->rows[i]->n_stop = (uint32_t)ps_min_u64(stop, UINT32_MAX);
    }
}

const struct wk_plan *wk_batch_build(struct wk_batch *b, const struct wk_admit *a, uint64_t ticket,
                                     struct wk_flight *out)
{
    struct wk_budget_room room;

    out->ticket = ticket;
    out->n = 0;
    out->load = (struct wk_step_load){0};
    wk_plan_begin(b->builder, ticket);
    for (uint32_t i = 0; i < a->n_rows; i++) {
        struct wk_seq *q = wk_seq_of(a->rows[i]);

        if (computable(q) == 1 &&
            wk_hold_grow(b->store, q, n_pages_of(b, q->n_kv + 1)) == WK_KV_OK) {
            add_row(b, a, q, 1, out);
            out->load.n_decode++;
            out->load.n_kv_read += q->n_kv;
        }
    }
    wk_budget_open(b->budget, out->load.n_decode, out->load.n_kv_read, &room);
    set_stops(b, a);
    out->load.n_prefill = wk_prefill_share(a, b->budget->chunk, &room, b->grants);
    for (uint32_t i = 0; i < a->n_rows; i++) {
        struct wk_seq *q = wk_seq_of(a->rows[i]);
        uint64_t n_q = b->grants[i];

        if (n_q > 0) {
            PS_ASSERT(computable(q) == q->adm.n_left && n_q <= q->adm.n_left);
            out->load.n_pairs += n_q * q->n_kv + n_q * n_q / 2;
            add_row(b, a, q, (uint32_t)n_q, out);
        }
    }
    if (out->n > 0)
        wk_budget_close(b->budget, out->load.n_decode, out->load.n_prefill, &room);
    return out->n > 0 ? wk_plan_end(b->builder) : NULL;
}
