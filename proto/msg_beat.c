#include <string.h>

#include "proto/cluster.pb-c.h"
#include "proto/msg_internal.h"

/* ---- decode ---- */

static bool take_group(const Penstock__KvGroup *p, struct pb_kv_group *g)
{
    *g = (struct pb_kv_group){
        .n_total = p->n_total,
        .n_free = p->n_free,
        .n_evictable = p->n_evictable,
        .n_pinned = p->n_pinned,
        .n_growth = p->n_growth,
        .n_suspended = p->n_suspended,
    };
    return g->n_free <= g->n_total && g->n_evictable <= g->n_total && g->n_pinned <= g->n_total;
}

static bool take_load(const Penstock__Load *p, struct pb_load *l)
{
    *l = (struct pb_load){
        .n_running = p->n_running,
        .n_waiting = p->n_waiting,
        .n_suspended = p->n_suspended,
        .n_prefill_pending = p->n_prefill_pending,
        .prompt_tokens = p->prompt_tokens,
        .generated_tokens = p->generated_tokens,
        .cached_tokens = p->cached_tokens,
        .followed_tokens = p->followed_tokens,
        .resume_tokens = p->resume_tokens,
        .n_preempted = p->n_preempted,
        .n_finished = p->n_finished,
        .rss_bytes = p->rss_bytes,
        .step_us_mean = p->step_us_mean,
        .prefill_tok_per_s = p->prefill_tok_per_s,
        .busy_ms = p->busy_ms,
    };
    if (p->n_group > PB_MAX_KV_GROUPS)
        return false;
    for (; l->n_group < p->n_group; l->n_group++) {
        if (!take_group(p->group[l->n_group], &l->group[l->n_group]))
            return false;
    }
    return true;
}

static bool take_tier(const Penstock__KvTier *p, struct pb_kv_tier *t)
{
    *t = (struct pb_kv_tier){
        .id = (enum pb_kv_tier_id)p->tier,
        .is_open = p->is_open,
        .pages = p->pages,
        .free_pages = p->free_pages,
        .idle_pages = p->idle_pages,
        .queued_moves = p->queued_moves,
        .fetched_tokens = p->fetched_tokens,
        .cleaned_pages = p->cleaned_pages,
        .evicted_pages = p->evicted_pages,
        .lost_pages = p->lost_pages,
        .read_bytes = p->read_bytes,
        .useful_bytes = p->useful_bytes,
        .write_bytes = p->write_bytes,
        .read_bytes_per_s = p->read_bytes_per_s,
        .write_bytes_per_s = p->write_bytes_per_s,
        .n_bad = p->n_bad,
        .n_fault = p->n_fault,
        .n_full = p->n_full,
    };
    return p->tier < PB_KV_N_TIERS && t->free_pages <= t->pages && t->idle_pages <= t->pages;
}

static bool take_kv(const Penstock__KvLoad *p, struct pb_kv_load *k)
{
    *k = (struct pb_kv_load){
        .n_fetch = p->n_fetch,
        .n_fetch_late = p->n_fetch_late,
        .n_fetch_failed = p->n_fetch_failed,
        .fetch_wait_us = p->fetch_wait_us,
        .n_probe = p->n_probe,
        .n_probe_late = p->n_probe_late,
        .probe_found_tokens = p->probe_found_tokens,
    };
    if (p->n_tier > PB_KV_N_TIERS)
        return false;
    for (uint32_t i = 0; i < p->n_tier; i++) {
        if (!take_tier(p->tier[i], &k->tier[i]) || (i > 0 && k->tier[i].id <= k->tier[i - 1].id))
            return false;
    }
    k->n_tier = (uint32_t)p->n_tier;
    return true;
}

int pb_beat_decode(const struct pb_raw *pb, ProtobufCAllocator *a, struct pb_beat *out)
{
    Penstock__Beat *p = penstock__beat__unpack(a, pb->left, pb->p);
    bool ok;

    if (p == NULL)
        return PB_MSG_E_BAD;
    *out = (struct pb_beat){
        .interval_ms = p->interval_ms,
        .applied = p->applied,
        .n_open = p->n_open,
        .digest_id = p->digest_id,
        .digest_n = p->digest_n,
        .tick = p->tick,
        .draining = p->draining,
        .drained = p->drained,
    };
    ok = (p->load == NULL || take_load(p->load, &out->load)) &&
         (p->kv == NULL || take_kv(p->kv, &out->kv));
    penstock__beat__free_unpacked(p, a);
    return ok ? PB_MSG_OK : PB_MSG_E_BAD;
}

/* ---- encode ---- */

struct box { /* the generated structs point at each other */
    Penstock__Load load;
    Penstock__KvGroup group[PB_MAX_KV_GROUPS], *groups[PB_MAX_KV_GROUPS];
    Penstock__KvLoad kv;
    Penstock__KvTier tier[PB_KV_N_TIERS], *tiers[PB_KV_N_TIERS];
};

static void put_group(Penstock__KvGroup *p, const struct pb_kv_group *g)
{
    penstock__kv_group__init(p);
    p->n_total = g->n_total;
    p->n_free = g->n_free;
    p->n_evictable = g->n_evictable;
    p->n_pinned = g->n_pinned;
    p->n_growth = g->n_growth;
    p->n_suspended = g->n_suspended;
}

static void put_load(struct box *b, const struct pb_load *l)
{
    Penstock__Load *p = &b->load;

    PS_ASSERT(l->n_group <= PB_MAX_KV_GROUPS);
    penstock__load__init(p);
    p->n_running = l->n_running;
    p->n_waiting = l->n_waiting;
    p->n_suspended = l->n_suspended;
    p->n_prefill_pending = l->n_prefill_pending;
    p->prompt_tokens = l->prompt_tokens;
    p->generated_tokens = l->generated_tokens;
    p->cached_tokens = l->cached_tokens;
    p->followed_tokens = l->followed_tokens;
    p->resume_tokens = l->resume_tokens;
    p->n_preempted = l->n_preempted;
    p->n_finished = l->n_finished;
    p->rss_bytes = l->rss_bytes;
    p->step_us_mean = l->step_us_mean;
    p->prefill_tok_per_s = l->prefill_tok_per_s;
    p->busy_ms = l->busy_ms;
    for (uint32_t i = 0; i < l->n_group; i++) {
        put_group(&b->group[i], &l->group[i]);
        b->groups[i] = &b->group[i];
    }
    p->group = b->groups;
    p->n_group = l->n_group;
}

static void put_tier(Penstock__KvTier *p, const struct pb_kv_tier *t)
{
    penstock__kv_tier__init(p);
    p->tier = (uint32_t)t->id;
    p->is_open = t->is_open;
    p->pages = t->pages;
    p->free_pages = t->free_pages;
    p->idle_pages = t->idle_pages;
    p->queued_moves = t->queued_moves;
    p->fetched_tokens = t->fetched_tokens;
    p->cleaned_pages = t->cleaned_pages;
    p->evicted_pages = t->evicted_pages;
    p->lost_pages = t->lost_pages;
    p->read_bytes = t->read_bytes;
    p->useful_bytes = t->useful_bytes;
    p->write_bytes = t->write_bytes;
    p->read_bytes_per_s = t->read_bytes_per_s;
    p->write_bytes_per_s = t->write_bytes_per_s;
    p->n_bad = t->n_bad;
    p->n_fault = t->n_fault;
    p->n_full = t->n_full;
}

static void put_kv(struct box *b, const struct pb_kv_load *k)
{
    Penstock__KvLoad *p = &b->kv;

    PS_ASSERT(k->n_tier <= PB_KV_N_TIERS);
    penstock__kv_load__init(p);
    p->n_fetch = k->n_fetch;
    p->n_fetch_late = k->n_fetch_late;
    p->n_fetch_failed = k->n_fetch_failed;
    p->fetch_wait_us = k->fetch_wait_us;
    p->n_probe = k->n_probe;
    p->n_probe_late = k->n_probe_late;
    p->probe_found_tokens = k->probe_found_tokens;
    for (uint32_t i = 0; i < k->n_tier; i++) {
        put_tier(&b->tier[i], &k->tier[i]);
        b->tiers[i] = &b->tier[i];
    }
    p->tier = b->tiers;
    p->n_tier = k->n_tier;
}

void pb_beat_encode(struct ps_buf *out, const struct pb_head *h, const struct pb_beat *b)
{
    Penstock__Beat p = PENSTOCK__BEAT__INIT;
    struct box box;

    put_load(&box, &b->load);
    put_kv(&box, &b->kv);
    p.interval_ms = b->interval_ms;
    p.applied = b->applied;
    p.n_open = b->n_open;
    p.digest_id = b->digest_id;
    p.digest_n = b->digest_n;
    p.tick = b->tick;
    p.draining = b->draining;
    p.drained = b->drained;
    p.load = &box.load;
    p.kv = &box.kv;
    pb_pack_add(out, h, &p.base);
}
