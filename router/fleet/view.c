#include <string.h>

#include "router/fleet/fleet_internal.h"

void rt_view_publish(struct rt_fleet *f, const struct rt_peer *p, bool changed)
{
    struct rt_view *v = &f->views[p->slot];
    struct rt_worker w;

    memset(&w, 0, sizeof(w));
    w.slot = p->slot;
    w.state = p->state;
    w.generation = p->generation;
    w.info = p->info;
    w.load = p->load;
    w.last_beat_us = p->heard_us;
    ps_seq_write(&v->ver, v->words, &w, sizeof(w));
    ps_seq_write(&v->kv_ver, v->kv_words, &p->kv, sizeof(p->kv));
    if (p->slot >= atomic_load(&f->n_slots))
        atomic_store(&f->n_slots, p->slot + 1);
    for (uint32_t i = 0; changed && i < f->n_loops; i++)
        f->loops[i].fleet_changed = true;
}

bool rt_view_tell(struct rt_fleet *f, uint32_t loop, const struct rt_event *e)
{
    struct rt_loop_side *s = &f->loops[loop];

    if (ps_ring_push(s->events, e) != PS_RING_OK)
        return false;
    s->rung = true;
    return true;
}

void rt_view_flush(struct rt_fleet *f)
{
    for (uint32_t i = 0; i < f->n_loops; i++) {
        struct rt_loop_side *s = &f->loops[i];
        uint32_t n = 0;

        while (n < s->n_done) {
            struct rt_event e = {.kind = (enum rt_event_kind)RT_EV_CANCEL_DONE,
                                 .req = s->done[n].req,
                                 .attempt = s->done[n].attempt};

            if (!rt_view_tell(f, i, &e))
                break;
            n++;
        }
        if (n > 0) {
            s->n_done -= n;
            memmove(s->done, s->done + n, s->n_done * sizeof(s->done[0]));
        }
        if (s->fleet_changed) {
            struct rt_event e = {.kind = RT_EV_FLEET};

            s->fleet_changed = !rt_view_tell(f, i, &e);
        }
        if (s->rung && s->wake != NULL)
            ps_wake_ring(s->wake);
        s->rung = false;
    }
}

uint32_t rt_fleet_n_slots(const struct rt_fleet *f)
{
    return atomic_load(&f->n_slots);
}

bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out)
{
    const struct rt_view *v;

    if (slot >= RT_MAX_WORKERS)
        return false;
    v = &f->views[slot];
    if (!ps_seq_read(&v->ver, v->words, out, sizeof(*out)))
        return false;
    out->resv_tok = atomic_load(&v->resv_tok);
    out->resv_req = atomic_load(&v->resv_req);
    return true;
}

bool rt_fleet_kv(const struct rt_fleet *f, uint32_t slot, struct pb_kv_load *out)
{
    const struct rt_view *v;

    if (slot >= RT_MAX_WORKERS)
        return false;
    v = &f->views[slot];
    return ps_seq_read(&v->kv_ver, v->kv_words, out, sizeof(*out));
}

int64_t rt_fleet_reserve(struct rt_fleet *f, uint32_t slot, int64_t n_tok)
{
    PS_ASSERT(slot < RT_MAX_WORKERS);
    atomic_fetch_add(&f->views[slot].resv_req, 1);
    return atomic_fetch_add(&f->views[slot].resv_tok, n_tok);
}

void rt_fleet_unreserve(struct rt_fleet *f, uint32_t slot, int64_t n_tok)
{
    PS_ASSERT(slot < RT_MAX_WORKERS);
    atomic_fetch_sub(&f->views[slot].resv_req, 1);
    atomic_fetch_sub(&f->views[slot].resv_tok, n_tok);
}
