#include "worker/sched/seq.h"

#include "common/log.h"

#include <string.h>

/* Most answers are short; a long one doubles from here. */
enum { ROOM_FOR_ANSWER = 256 };

static const char *const names[WK_SEQ_N_STATES] = {"wait",   "fetch",  "run", "drain",
                                                   "parked", "zombie", "done"};

#define TO(s) (1u << (s))
static const uint8_t allowed[WK_SEQ_N_STATES] = {
    [WK_SEQ_WAIT] = TO(WK_SEQ_FETCH) | TO(WK_SEQ_DONE),
    [WK_SEQ_FETCH] = TO(WK_SEQ_RUN) | TO(WK_SEQ_WAIT) | TO(WK_SEQ_PARKED) | TO(WK_SEQ_DONE),
    [WK_SEQ_RUN] = TO(WK_SEQ_DRAIN) | TO(WK_SEQ_PARKED) | TO(WK_SEQ_ZOMBIE) | TO(WK_SEQ_DONE),
    [WK_SEQ_DRAIN] = TO(WK_SEQ_PARKED) | TO(WK_SEQ_ZOMBIE) | TO(WK_SEQ_DONE),
    [WK_SEQ_PARKED] = TO(WK_SEQ_FETCH) | TO(WK_SEQ_DONE),
    [WK_SEQ_ZOMBIE] = TO(WK_SEQ_DONE),
    [WK_SEQ_DONE] = 0,
};

void wk_seq_goto(struct wk_seq *q, enum wk_seq_state to)
{
    PS_ASSERT(to < WK_SEQ_N_STATES && (allowed[q->state] & TO(to)) != 0);
    ps_debug("sequence moves", "ticket=%llu from=%s to=%s n_ids=%u n_kv=%u pages=%u",
             (unsigned long long)q->adm.ticket, names[q->state], names[to], q->n_ids, q->n_kv_done,
             q->n_pages);
    q->state = to;
}

struct wk_seq *wk_seq_create(struct pb_submit *move_s, uint32_t handle, uint64_t ticket)
{
    struct wk_seq *q = ps_calloc(1, sizeof(*q));
    uint32_t n = move_s->n_prompt + move_s->n_done;

    PS_ASSERT(move_s->n_prompt > 0);
    q->submit = move_s;
    q->handle = handle;
    q->state = WK_SEQ_WAIT;
    q->slot = WK_SEQ_NO_SLOT;
    q->tail_node = q->snap_node = WK_KV_NO_NODE;
    q->state_item = q->snap_item = WK_KV_NO_ITEM;
    q->n_ids = n;
    q->cap_ids = n + ROOM_FOR_ANSWER;
    q->ids = ps_alloc(q->cap_ids * sizeof(*q->ids));
    memcpy(q->ids, move_s->ids, n * sizeof(*q->ids));
    if (move_s->samp.n_prompt_top >= 0)
        q->scores = ps_calloc(move_s->n_prompt, sizeof(*q->scores));
    q->adm.priority = move_s->priority;
    q->adm.ticket = ticket;
    wk_seq_sync(q);
    return q;
}

void wk_seq_destroy(struct wk_seq *q)
{
    if (q == NULL)
        return;
    PS_ASSERT(q->n_pages == 0 && q->n_fly_steps == 0 && q->slot == WK_SEQ_NO_SLOT);
    PS_ASSERT(!q->adm.admitted && !q->adm.waiting && q->tail_node == WK_KV_NO_NODE &&
              q->probe == NULL);
    PS_ASSERT(q->state_item == WK_KV_NO_ITEM && q->snap_node == WK_KV_NO_NODE);
    pb_submit_destroy(q->submit);
    ps_free(q->ids);
    ps_free(q->pages);
    ps_free(q->nodes);
    ps_free(q->hashes);
    ps_free(q->scores);
    ps_free(q);
}

void wk_seq_push(struct wk_seq *q, uint32_t token)
{
    if (q->n_ids == q->cap_ids) {
        PS_ASSERT(q->cap_ids <= UINT32_MAX / 2);
        q->cap_ids *= 2;
        q->ids = ps_realloc(q->ids, q->cap_ids * sizeof(*q->ids));
    }
    q->ids[q->n_ids++] = token;
}

void wk_seq_sync(struct wk_seq *q)
{
    uint32_t left = q->n_ids > q->n_kv ? q->n_ids - q->n_kv : 0;

    PS_ASSERT(q->n_kv_done <= q->n_kv && q->n_kv <= q->n_ids + q->n_fly_tok);
    q->adm.len = q->n_ids + q->n_fly_tok;
    q->adm.held = q->n_pages;
    q->adm.n_left =
        left > 1 ? left : 0; /* a single token costs no chunk: it runs as a decode row */
}

uint32_t wk_seq_n_out(const struct wk_seq *q)
{
    return q->n_ids - q->submit->n_prompt;
}

bool wk_seq_needs_scores(const struct wk_seq *q)
{
    return q->scores != NULL && q->n_scored + 1 < q->submit->n_prompt;
}
