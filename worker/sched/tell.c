#include "worker/sched/state.h"

/* Tiers change faster than anybody looks; an idle worker tells every tick, so that its last word is
 * the truth. */
enum { KV_PERIOD_US = 50 * 1000 };

_Static_assert((int)PB_KV_T0 == (int)WK_KV_T0 && (int)PB_KV_PEER == (int)WK_KV_PEER &&
                   (int)PB_KV_N_TIERS == (int)WK_KV_N_TIERS,
               "tiers have the same numbers on the wire");
_Static_assert((int)PB_MAX_KV_GROUPS >= (int)WK_KV_N_GROUPS_MAX, "a beat has room for every group");

static void add_tier(const struct wk_sched *s, const struct wk_store_stats *st, enum wk_kv_tier t,
                     struct pb_kv_load *out)
{
    const struct wk_kv_tree *tree = wk_store_tree(s->store);
    struct pb_kv_tier *p = &out->tier[out->n_tier++];

    *p = (struct pb_kv_tier){
        .id = (enum pb_kv_tier_id)t,
        .is_open = st->is_open[t],
        .queued_moves = st->n_queued[t],
        .fetched_tokens = st->fetched_tokens[t],
        .cleaned_pages = st->cleaned_pages[t],
        .read_bytes = st->read_bytes[t],
        .useful_bytes = st->useful_bytes[t],
        .write_bytes = st->write_bytes[t],
        .read_bytes_per_s = (uint64_t)st->read_bytes_per_s[t],
        .write_bytes_per_s = (uint64_t)st->write_bytes_per_s[t],
        .n_bad = st->n_bad[t],
        .n_fault = st->n_fault[t],
        .n_full = st->n_full[t],
    };
    if (t > WK_KV_T2) /* nobody here counts what others keep */
        return;
    p->pages = wk_kv_tree_n_total(tree, t, WK_KV_ROWS_GROUP);
    p->free_pages = wk_kv_tree_n_free(tree, t, WK_KV_ROWS_GROUP);
    p->idle_pages = wk_kv_tree_n_idle(tree, t, WK_KV_ROWS_GROUP);
    p->evicted_pages = wk_kv_tree_n_evicted(tree, t);
    p->lost_pages = wk_kv_tree_n_lost(tree, t);
}

void wk_tell_kv(struct wk_sched *s)
{
    uint64_t now = ps_now_us(s->conf.clock);
    struct wk_store_stats st;
    struct pb_kv_load kv;

    if (s->conf.port.set_kv == NULL || (s->n_live > 0 && now - s->kv_told_us < KV_PERIOD_US))
        return;
    s->kv_told_us = now;
    wk_store_stats(s->store, &st);
    kv = (struct pb_kv_load){
        .n_fetch = st.n_fetch,
        .n_fetch_late = st.n_fetch_late,
        .n_fetch_failed = st.n_fetch_failed,
        .fetch_wait_us = st.fetch_wait_us,
        .n_probe = st.n_probe,
        .n_probe_late = st.n_probe_late,
        .probe_found_tokens = st.probe_found_tokens,
    };
    for (uint32_t t = 0; t < WK_KV_N_TIERS; t++) {
        if (st.is_there[t])
            add_tier(s, &st, (enum wk_kv_tier)t, &kv);
    }
    s->conf.port.set_kv(s->conf.port.ud, &kv);
}
