#include "worker/sched/follow.h"

#include "worker/sched/snap.h"

void wk_follow_reset(const struct wk_admit *a)
{
    for (uint32_t i = 0; i < a->n_rows; i++)
        a->rows[i]->pull = UINT32_MAX;
}

/* It will publish this page of its, and has not done so yet. */
static bool will_publish(const struct wk_seq *leader, uint32_t page, uint32_t page_tokens)
{
    uint64_t end = (uint64_t)(page + 1) * page_tokens;

    return leader->state == WK_SEQ_RUN && leader->n_kv_done < end && end <= leader->n_ids;
}

static void lend_place(struct wk_seq *leader, const struct wk_seq *q)
{
    leader->adm.pull = ps_min_u32(leader->adm.pull, q->n_ids - q->follow.n_kv);
}

bool wk_follow_goes_on(struct wk_seq *q, struct wk_seq *leader, uint32_t page_tokens)
{
    const struct wk_follow *f = &q->follow;

    if (!f->on)
        return false;
    if (leader == NULL || leader->adm.ticket != f->ticket ||
        !will_publish(leader, f->page, page_tokens)) {
        q->follow.on = false;
        return false;
    }
    PS_ASSERT(leader->hashes[f->page] == q->hashes[f->page]);
    lend_place(leader, q);
    return true;
}

/* The leader's page that would let q begin further than behind n_hit pages. */
static uint64_t page_to_wait_for(const struct wk_seq *l, uint32_t n_hit, uint32_t page_tokens,
                                 bool has_state)
{
    uint32_t from = ps_max_u32(n_hit * page_tokens, l->n_kv_done);

    return has_state ? wk_snap_next(l, page_tokens, from) / page_tokens - 1 : n_hit;
}

bool wk_follow_begin(const struct wk_admit *a, struct wk_seq *q, uint32_t n_hit, uint32_t n_kv,
                     uint32_t page_tokens, bool has_state)
{
    uint32_t n_wanted = has_state ? (q->n_ids - 1) / page_tokens : q->n_hashes;

    if (q->adm.n_suspends > 0 || n_hit >= q->n_hashes || wk_seq_needs_scores(q))
        return false;
    for (uint32_t i = 0; i < a->n_rows && a->rows[i]->priority <= q->adm.priority; i++) {
        struct wk_seq *l = wk_seq_of(a->rows[i]);
        uint64_t at = page_to_wait_for(l, n_hit, page_tokens, has_state);
        uint32_t page = (uint32_t)at;

        if (at >= ps_min_u32(n_wanted, l->n_hashes) || l->hashes[page] != q->hashes[page] ||
            l->submit->chain_seed != q->submit->chain_seed || !will_publish(l, page, page_tokens))
            continue;
        if (!q->follow.ever)
            q->follow.n_alone = n_kv;
        q->follow.on = q->follow.ever = true;
        q->follow.handle = l->handle;
        q->follow.ticket = l->adm.ticket;
        q->follow.page = page;
        q->follow.n_kv = n_kv;
        lend_place(l, q);
        return true;
    }
    return false;
}

uint32_t wk_follow_end(struct wk_seq *q, uint32_t n_kv)
{
    uint32_t n = q->follow.ever && n_kv > q->follow.n_alone ? n_kv - q->follow.n_alone : 0;

    q->follow.on = q->follow.ever = false;
    return n;
}
