#include <string.h>

#include "router/fleet/fleet_internal.h"

/* ---- cancels that wait for an answer ---- */

static bool cancel_find(const struct rt_cancels *c, uint64_t req, uint32_t attempt,
                        uint64_t *out_at)
{
    return ps_map_get(&c->index, pb_digest_id(req, attempt), out_at) &&
           c->list[*out_at].req == req && c->list[*out_at].attempt == attempt;
}

static void send_cancel(struct rt_fleet *f, struct rt_peer *p, const struct rt_cancel *c)
{
    rt_link_send_attempt(f, p, PB_CANCEL, c->req, c->attempt, c->dispatch_seq, 0);
}

/* Sent at once, and again with beats until the worker answers; the list survives the worker's death. */
void rt_cancel_add(struct rt_fleet *f, struct rt_peer *p, uint64_t req, uint32_t attempt,
                   uint64_t dispatch_seq)
{
    struct rt_cancels *c = &p->cancels;
    uint64_t at;

    if (cancel_find(c, req, attempt, &at) || c->n >= RT_CANCELS_MAX)
        return;
    if (c->n == c->cap) {
        c->cap = c->cap > 0 ? 2 * c->cap : 32;
        c->list = ps_realloc(c->list, c->cap * sizeof(c->list[0]));
    }
    c->list[c->n] = (struct rt_cancel){req, dispatch_seq, attempt};
    ps_map_put(&c->index, pb_digest_id(req, attempt), c->n);
    c->n++;
    send_cancel(f, p, &c->list[c->n - 1]);
}

void rt_cancel_del(struct rt_peer *p, uint64_t req, uint32_t attempt)
{
    struct rt_cancels *c = &p->cancels;
    uint64_t at;

    if (!cancel_find(c, req, attempt, &at))
        return;
    ps_map_del(&c->index, pb_digest_id(req, attempt));
    c->n--;
    if (at < c->n) {
        c->list[at] = c->list[c->n];
        ps_map_put(&c->index, pb_digest_id(c->list[at].req, c->list[at].attempt), at);
    }
}

void rt_cancel_clear(struct rt_peer *p)
{
    ps_map_clear(&p->cancels.index);
    p->cancels.n = p->cancels.cursor = 0;
}

void rt_cancel_send_some(struct rt_fleet *f, struct rt_peer *p)
{
    struct rt_cancels *c = &p->cancels;
    uint32_t n = ps_min_u32(c->n, RT_CANCELS_A_BEAT);

    for (uint32_t i = 0; i < n; i++) {
        if (c->cursor >= c->n)
            c->cursor = 0;
        send_cancel(f, p, &c->list[c->cursor++]);
    }
}

/* ---- what is open there ---- */

/* Accepted before the list or beat was made, and applied by then: it can be judged by it. */
static bool can_judge(const struct rt_att *a, const struct rt_peer *p, uint64_t applied,
                      uint32_t frame_seq)
{
    return a->accepted && a->dispatch_seq <= applied &&
           !(a->accept_epoch == p->epoch && a->accept_seq >= frame_seq);
}

static void on_listed(struct rt_fleet *f, struct rt_peer *p, const struct pb_open_row *row,
                      uint32_t frame_seq)
{
    struct rt_att *a = rt_att_current(f, p, row->req, row->attempt);

    if (a == NULL) {
        if (row->ended)
            rt_link_send_attempt(f, p, PB_FINACK, row->req, row->attempt, 0, 0);
        else
            rt_cancel_add(f, p, row->req, row->attempt, row->dispatch_seq);
        return;
    }
    a->list_stamp = p->list_stamp;
    rt_att_accept(f, a, frame_seq);
    if (row->n_sent > a->n_have)
        rt_att_ask_again(f, a);
}

void rt_repair_on_list(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m)
{
    struct pb_open_row row;
    struct rt_att *a, *next;

    p->need_list = false;
    p->n_mismatch = 0;
    p->list_stamp++;
    while (pb_open_next(&m->open_list, &row))
        on_listed(f, p, &row, m->head.seq);
    for (a = p->first; a != NULL; a = next) {
        next = a->next;
        if (a->list_stamp != p->list_stamp && can_judge(a, p, m->open_list.applied, m->head.seq))
            rt_att_lost(f, a, false, true);
    }
}

/*
 * One link is FIFO, so both sides agree at a beat but for what was lost. While cancels wait, the counts
 * of tokens are not known to agree and only the names are compared.
 */
static bool digest_equal(const struct rt_peer *p, const struct pb_beat *b, uint32_t frame_seq)
{
    uint64_t id = 0, n_digest = 0;
    uint32_t n = 0;

    for (const struct rt_att *a = p->first; a != NULL; a = a->next) {
        if (a->end != RT_END_NONE || !can_judge(a, p, b->applied, frame_seq))
            continue;
        n++;
        id ^= pb_digest_id(a->req, a->attempt);
        n_digest ^= pb_digest_n(a->req, a->attempt, a->n_have);
    }
    for (uint32_t i = 0; i < p->cancels.n; i++) {
        n++;
        id ^= pb_digest_id(p->cancels.list[i].req, p->cancels.list[i].attempt);
    }
    return n == b->n_open && id == b->digest_id && (p->cancels.n > 0 || n_digest == b->digest_n);
}

void rt_repair_on_digest(struct rt_fleet *f, struct rt_peer *p, const struct pb_msg *m)
{
    struct pb_msg q = {.head = {0}};

    if (digest_equal(p, &m->beat, m->head.seq)) {
        p->n_mismatch = 0;
        if (!p->need_list)
            return;
    } else {
        p->n_mismatch++;
        ps_counter_add(f->count.mismatches, 1);
    }
    if ((p->n_mismatch < 2 && !p->need_list) || f->now_us - p->query_us < RT_QUERY_MIN_US)
        return;
    p->query_us = f->now_us;
    ps_counter_add(f->count.queries, 1);
    (void)rt_link_send_msg(f, p, &q, PB_OPENQUERY);
}
