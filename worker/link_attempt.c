#include <string.h>

#include "common/log.h"
#include "worker/link_internal.h"

/* ---- memory and lists ---- */

static struct wk_att *att_create(struct wk_link *l, struct wk_route *r, const struct pb_submit *s)
{
    struct wk_att *a = ps_calloc(1, sizeof(*a));

    a->route = r;
    a->req = s->req;
    a->attempt = s->attempt;
    a->dispatch_seq = s->dispatch_seq;
    a->base = s->n_done;
    a->handle = WK_NO_HANDLE;
    a->next = r->first;
    if (r->first != NULL)
        r->first->prev = a;
    r->first = a;
    r->n_att++;
    ps_map_put(&r->by_req, a->req, (uint64_t)(uintptr_t)a);
    l->n_atts_all++;
    atomic_fetch_add(&l->n_atts, 1);
    return a;
}

static void leave_route(struct wk_link *l, struct wk_att *a)
{
    struct wk_route *r = a->route;
    bool was_there;

    if (r == NULL)
        return;
    if (a->prev != NULL)
        a->prev->next = a->next;
    else
        r->first = a->next;
    if (a->next != NULL)
        a->next->prev = a->prev;
    was_there = ps_map_del(&r->by_req, a->req);
    PS_ASSERT(was_there && r->n_att > 0);
    r->n_att--;
    a->route = NULL;
    a->next = a->prev = NULL;
    atomic_fetch_sub(&l->n_atts, 1);
}

static void drop_tokens(struct wk_att *a)
{
    for (uint32_t i = 0; a->logprobs != NULL && i < a->n; i++)
        ps_free(a->logprobs[i]);
    ps_free(a->logprobs);
    ps_free(a->ids);
    a->logprobs = NULL;
    a->ids = NULL;
    a->n = a->cap = a->n_sent = 0;
}

void wk_att_free(struct wk_link *l, struct wk_att *a)
{
    PS_ASSERT(a->state != WK_ATT_OPEN && !a->in_todo && a->handle == WK_NO_HANDLE);
    leave_route(l, a);
    drop_tokens(a);
    pb_submit_destroy(a->submit);
    ps_free(a->prompt_scores);
    ps_free(a);
    PS_ASSERT(l->n_atts_all > 0);
    l->n_atts_all--;
}

static struct wk_att *find(const struct wk_route *r, uint64_t req)
{
    return ps_map_get_ptr(&r->by_req, req);
}

static void todo(struct wk_link *l, struct wk_att *a)
{
    if (a->in_todo)
        return;
    a->in_todo = true;
    a->todo_next = NULL;
    *l->todo_last = a;
    l->todo_last = &a->todo_next;
}

/* ---- endings of our own ---- */

static void want_cancel(struct wk_link *l, struct wk_att *a)
{
    if (a->state == WK_ATT_ENDED || a->cancel_wanted)
        return;
    a->cancel_wanted = true;
    todo(l, a);
}

void wk_att_abandon(struct wk_link *l, struct wk_att *a)
{
    leave_route(l, a);
    drop_tokens(a);
    if (a->state == WK_ATT_ENDED && !a->in_todo)
        wk_att_free(l, a);
    else
        want_cancel(l, a);
}

void wk_route_abandon(struct wk_link *l, struct wk_route *r)
{
    while (r->first != NULL)
        wk_att_abandon(l, r->first);
    PS_ASSERT(r->n_att == 0);
}

void wk_route_cancel(struct wk_link *l, struct wk_route *r)
{
    for (struct wk_att *a = r->first; a != NULL; a = a->next)
        want_cancel(l, a);
}

static void end_att(struct wk_link *l, struct wk_att *a)
{
    a->state = WK_ATT_ENDED;
    a->end_sent = false;
    a->end_next_us = l->now_us;
    a->expire_us = l->now_us + WK_END_KEEP_US;
    l->flush_due = true;
}

static void end_rejected(struct wk_link *l, struct wk_att *a, enum pb_reject why)
{
    a->rejected = true;
    a->reject = why;
    end_att(l, a);
}

/* ---- what a router says ---- */

static void answer_attempt(struct wk_link *l, struct wk_dial *d, enum pb_kind kind, uint64_t req,
                           uint32_t attempt)
{
    struct pb_msg m = {.head = {0}};

    m.attempt = (struct pb_attempt){.req = req, .attempt = attempt};
    (void)wk_dial_send_msg(l, d, &m, kind);
}

/* For something that is not here any more: told once, kept nowhere. */
static void answer_refused(struct wk_link *l, struct wk_dial *d, const struct pb_submit *s)
{
    struct pb_msg m = {.head = {0}};

    m.refusal = (struct pb_refusal){.req = s->req, .attempt = s->attempt, .reason = PB_REJ_FULL};
    (void)wk_dial_send_msg(l, d, &m, PB_REJECT);
}

/* A copy of a Submit that was applied: the answer may have been lost, the attempt is never opened again. */
static void answer_again(struct wk_link *l, struct wk_dial *d, const struct pb_submit *s)
{
    struct wk_att *a = find(d->route, s->req);

    if (a == NULL) {
        answer_refused(l, d, s);
    } else if (a->attempt == s->attempt) {
        if (a->state == WK_ATT_ENDED)
            a->end_next_us = ps_min_u64(a->end_next_us, l->now_us + WK_SCAN_US);
        if (!a->rejected)
            answer_attempt(l, d, PB_ACCEPT, s->req, s->attempt);
    }
}

/* 0, or why this attempt cannot be opened. */
static enum pb_reject why_not(const struct wk_link *l, const struct pb_submit *s)
{
    char err[128];

    if (s->space_id != l->info.space_id || s->arith_id != l->info.arith_id) {
        ps_warn("submit for another model", "req=%016llx", (unsigned long long)s->req);
        return PB_REJ_BAD;
    }
    if (pb_submit_check(s, &l->limits, err, sizeof(err)) != PB_SUBMIT_OK) {
        ps_warn("submit refused", "req=%016llx why=\"%s\"", (unsigned long long)s->req, err);
        return PB_REJ_BAD;
    }
    return l->n_free_handles == 0 ? PB_REJ_FULL : 0;
}

void wk_att_on_submit(struct wk_link *l, struct wk_dial *d, struct pb_submit *move_s)
{
    struct pb_submit *s = move_s;
    struct wk_route *r = d->route;
    struct wk_att *a;
    enum pb_reject why;

    if (s->dispatch_seq == 0 || pb_window_has(&r->window, s->dispatch_seq)) {
        if (s->dispatch_seq != 0)
            answer_again(l, d, s);
        pb_submit_destroy(s);
        return;
    }
    pb_window_mark(&r->window, s->dispatch_seq);
    a = find(r, s->req);
    if (a != NULL && a->attempt >= s->attempt) { /* a lower attempt is nobody's any more */
        pb_submit_destroy(s);
        return;
    }
    if (a != NULL)
        wk_att_abandon(l, a);
    if (l->n_atts_all >= l->n_atts_max) {
        answer_refused(l, d, s);
        pb_submit_destroy(s);
        return;
    }
    why = why_not(l, s);
    a = att_create(l, r, s);
    if (why != 0) {
        end_rejected(l, a, why);
        pb_submit_destroy(s);
        return;
    }
    a->submit = s;
    a->handle = l->free_handles[--l->n_free_handles];
    PS_ASSERT(l->handles[a->handle] == NULL);
    l->handles[a->handle] = a;
    todo(l, a);
    answer_attempt(l, d, PB_ACCEPT, a->req, a->attempt);
}

/* A Cancel that overtakes its Submit must win, so it counts as the Submit's dispatch number. */
void wk_att_on_cancel(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c)
{
    struct wk_att *a = find(d->route, c->req);
    struct pb_msg m = {.head = {0}};

    if (c->dispatch_seq != 0)
        pb_window_mark(&d->route->window, c->dispatch_seq);
    if (a != NULL && a->attempt == c->attempt) {
        if (a->state == WK_ATT_ENDED)
            a->end_next_us = l->now_us;
        want_cancel(l, a);
        return;
    }
    if (a != NULL && a->attempt < c->attempt)
        wk_att_abandon(l, a);
    ps_buf_clear(&l->buf);
    m.head = wk_dial_head(l, d, PB_FINISHED);
    m.finished =
        (struct pb_finished){.req = c->req, .attempt = c->attempt, .reason = PB_FIN_CANCELLED};
    pb_finished_encode(&l->buf, &m.head, &m.finished, NULL);
    (void)wk_dial_send(l, d);
}

/* Go back to `from`; what was sent after it goes again, then the end. */
void wk_att_on_resend(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c)
{
    struct wk_att *a = find(d->route, c->req);

    if (a == NULL || a->attempt != c->attempt || c->from < a->base || c->from - a->base > a->n)
        return;
    a->n_sent = ps_min_u32(a->n_sent, c->from - a->base);
    if (a->state == WK_ATT_ENDED)
        a->end_next_us = l->now_us;
    l->flush_due = true;
}

void wk_att_on_finack(struct wk_link *l, struct wk_dial *d, const struct pb_attempt *c)
{
    struct wk_att *a = find(d->route, c->req);

    if (a != NULL && a->attempt == c->attempt && a->state == WK_ATT_ENDED)
        wk_att_abandon(l, a);
}

/* ---- to the scheduler ---- */

static void release_handle(struct wk_link *l, struct wk_att *a)
{
    PS_ASSERT(a->handle != WK_NO_HANDLE && l->handles[a->handle] == a);
    l->handles[a->handle] = NULL;
    l->free_handles[l->n_free_handles++] = a->handle;
    a->handle = WK_NO_HANDLE;
}

/* False: the ring is full. An attempt that was cancelled before it was opened is never shown. */
static bool push_one(struct wk_link *l, struct wk_att *a)
{
    struct wk_in in = {.handle = a->handle};

    if (a->state == WK_ATT_NEW && a->cancel_wanted) {
        release_handle(l, a);
        pb_submit_destroy(a->submit);
        a->submit = NULL;
        a->finish = PB_FIN_CANCELLED;
        end_att(l, a);
        return true;
    }
    if (a->state == WK_ATT_NEW) {
        in.kind = WK_IN_OPEN;
        in.submit = a->submit;
        if (ps_ring_push(l->in_ring, &in) != PS_RING_OK)
            return false;
        a->submit = NULL;
        a->state = WK_ATT_OPEN;
    }
    if (a->state == WK_ATT_OPEN && a->cancel_wanted && !a->cancel_pushed) {
        in.kind = WK_IN_CANCEL;
        in.submit = NULL;
        if (ps_ring_push(l->in_ring, &in) != PS_RING_OK)
            return false;
        a->cancel_pushed = true;
    }
    return true;
}

/*
 * After everything was read: a stall's worth of Submits is followed by their Cancels, and only what is
 * still wanted is opened.
 */
void wk_att_push_todo(struct wk_link *l)
{
    bool any = l->todo_first != NULL || l->n_admin_todo > 0;
    uint32_t n_admin = 0;

    while (l->todo_first != NULL) {
        struct wk_att *a = l->todo_first;

        if (!push_one(l, a))
            break;
        l->todo_first = a->todo_next;
        if (l->todo_first == NULL)
            l->todo_last = &l->todo_first;
        a->in_todo = false;
        if (a->route == NULL && a->state == WK_ATT_ENDED)
            wk_att_free(l, a);
    }
    while (n_admin < l->n_admin_todo) {
        struct wk_in in = {.kind = l->admin_todo[n_admin]};

        if (ps_ring_push(l->in_ring, &in) != PS_RING_OK)
            break;
        n_admin++;
    }
    l->n_admin_todo -= n_admin;
    memmove(l->admin_todo, l->admin_todo + n_admin, l->n_admin_todo * sizeof(l->admin_todo[0]));
    if (any)
        ps_wake_ring(l->sched_wake);
}
