#include "worker/sched/snap.h"

static uint64_t first_behind(uint64_t best, uint32_t at, uint32_t page_tokens, uint32_t pos)
{
    at -= at % page_tokens;
    return at > pos ? ps_min_u64(best, at) : best;
}

uint64_t wk_snap_next(const struct wk_seq *q, uint32_t page_tokens, uint32_t pos)
{
    uint64_t every = (uint64_t)WK_SNAP_EVERY_PAGES * page_tokens, best = (pos / every + 1) * every;

    PS_ASSERT(q->submit->n_prompt > 0);
    for (uint32_t i = 0; i < q->submit->n_cuts; i++)
        best = first_behind(best, q->submit->cuts[i], page_tokens, pos);
    best = first_behind(best, q->submit->n_prompt - 1, page_tokens, pos);
    return first_behind(best, q->n_known, page_tokens, pos);
}
