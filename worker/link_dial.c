#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/link_internal.h"

static const char *const state_names[] = {"idle", "dial", "hello", "joined"};

static void dial_goto(struct wk_link *l, struct wk_dial *d, enum wk_dial_state to)
{
    static const uint8_t allowed[] = {
        [WK_DIAL_IDLE] = 1u << WK_DIAL_DIAL,
        [WK_DIAL_DIAL] = (1u << WK_DIAL_HELLO) | (1u << WK_DIAL_IDLE),
        [WK_DIAL_HELLO] = (1u << WK_DIAL_JOINED) | (1u << WK_DIAL_IDLE),
        [WK_DIAL_JOINED] = 1u << WK_DIAL_IDLE,
    };

    PS_ASSERT((allowed[d->state] >> to) & 1);
    if (to == WK_DIAL_JOINED)
        atomic_fetch_add(&l->n_joined, 1);
    if (d->state == WK_DIAL_JOINED)
        atomic_fetch_sub(&l->n_joined, 1);
    ps_debug("link moved", "router=%s from=%s to=%s nonce=%u epoch=%u", d->endpoint,
             state_names[d->state], state_names[to], d->nonce, d->epoch);
    d->state = to;
}

struct wk_dial *wk_dial_create(struct wk_link *l, const char *endpoint)
{
    struct wk_dial *d = ps_calloc(1, sizeof(*d));

    PS_ASSERT(l->n_dials < WK_DIALS_MAX);
    d->endpoint = ps_strdup(endpoint);
    d->listed = true;
    d->backoff_us = WK_BACKOFF_MIN_US;
    d->interval_ms = WK_BEAT_MS;
    d->route = ps_calloc(1, sizeof(*d->route));
    ps_map_init(&d->route->by_req, ps_rng_u64(&l->rng));
    l->dials[l->n_dials++] = d;
    return d;
}

void wk_dial_destroy(struct wk_link *l, struct wk_dial *d)
{
    for (uint32_t i = 0; i < l->n_dials; i++) {
        if (l->dials[i] == d)
            l->dials[i] = l->dials[--l->n_dials];
    }
    if (d->state != WK_DIAL_IDLE)
        wk_dial_close(l, d, 0, 0);
    wk_route_abandon(l, d->route);
    ps_map_fini(&d->route->by_req);
    ps_free(d->route);
    ps_free(d->endpoint);
    ps_free(d);
}

/* What is queued for the socket in the application goes with it: a frame must not outlive its link. */
void wk_dial_close(struct wk_link *l, struct wk_dial *d, uint64_t retry_in_us, int linger_ms)
{
    if (l->inject_out != NULL)
        ps_inject_purge(l->inject_out, d->nonce);
    if (l->inject_in != NULL)
        ps_inject_purge(l->inject_in, d->nonce);
    ps_mq_close(d->sock, linger_ms);
    d->sock = NULL;
    d->epoch = 0;
    d->retry_us = l->now_us + retry_in_us;
    if (d->state != WK_DIAL_IDLE)
        dial_goto(l, d, WK_DIAL_IDLE);
}

/* Jittered, doubled up to 2 s; a Welcome sets it back. */
static void close_and_back_off(struct wk_link *l, struct wk_dial *d)
{
    uint64_t wait_us = ps_rng_below(&l->rng, d->backoff_us);

    d->backoff_us = ps_min_u64(2 * d->backoff_us, WK_BACKOFF_MAX_US);
    wk_dial_close(l, d, wait_us, 0);
}

/* The other dial that holds what this router gave us: at most one does, joined or not. */
static struct wk_dial *find_rinc(struct wk_link *l, uint64_t rinc, const struct wk_dial *not_me)
{
    for (uint32_t i = 0; i < l->n_dials; i++) {
        struct wk_dial *d = l->dials[i];

        if (d != not_me && d->route->rinc == rinc)
            return d;
    }
    return NULL;
}

struct wk_dial *wk_dial_by_nonce(struct wk_link *l, uint64_t nonce)
{
    for (uint32_t i = 0; i < l->n_dials; i++) {
        if (l->dials[i]->nonce == nonce && l->dials[i]->sock != NULL)
            return l->dials[i];
    }
    return NULL;
}

struct pb_head wk_dial_head(const struct wk_link *l, const struct wk_dial *d, enum pb_kind kind)
{
    return (struct pb_head){.kind = (uint8_t)kind,
                            .epoch = d->epoch,
                            .seq = d->seq_out,
                            .rinc = d->state == WK_DIAL_JOINED ? d->route->rinc : 0,
                            .winc = l->info.incarnation};
}

void wk_dial_deliver(void *ud, uint64_t tag, const uint8_t *id, size_t id_len, const uint8_t *data,
                     size_t len)
{
    struct wk_link *l = ud;
    struct wk_dial *d = wk_dial_by_nonce(l, tag);

    (void)id;
    (void)id_len;
    if (d != NULL)
        l->send_result = ps_mq_send(d->sock, NULL, 0, data, len);
}

int wk_dial_send(struct wk_link *l, struct wk_dial *d)
{
    const uint8_t *data = (const uint8_t *)l->buf.data;

    if (d->sock == NULL)
        return PS_MQ_E_FULL;
    PS_ASSERT(l->buf.len <= PB_SEND_MAX);
    l->send_result = PS_MQ_OK;
    if (l->inject_out != NULL)
        ps_inject_pass(l->inject_out, l->now_us, d->nonce, NULL, 0, data, l->buf.len,
                       wk_dial_deliver, l);
    else
        wk_dial_deliver(l, d->nonce, NULL, 0, data, l->buf.len);
    if (l->send_result == PS_MQ_OK)
        d->seq_out++;
    return l->send_result;
}

int wk_dial_send_msg(struct wk_link *l, struct wk_dial *d, struct pb_msg *m, enum pb_kind kind)
{
    m->head = wk_dial_head(l, d, kind);
    ps_buf_clear(&l->buf);
    pb_msg_encode(&l->buf, m);
    return wk_dial_send(l, d);
}

void wk_dial_send_bye(struct wk_link *l, struct wk_dial *d)
{
    struct pb_msg m = {.head = {0}};

    if (d->state == WK_DIAL_JOINED)
        (void)wk_dial_send_msg(l, d, &m, PB_BYE);
}

static void open_socket(struct wk_link *l, struct wk_dial *d)
{
    uint8_t id[WK_ID_BYTES];
    struct wk_dial *other = d->shadow_rinc != 0 ? find_rinc(l, d->shadow_rinc, d) : NULL;
    int r;

    if (other != NULL && other->state == WK_DIAL_JOINED) {
        d->retry_us = l->now_us + WK_BACKOFF_MAX_US;
        return;
    }
    d->shadow_rinc = 0;
    d->nonce = ++l->nonce;
    d->epoch = 0;
    d->seq_out = 1;
    for (uint32_t i = 0; i < 8; i++) {
        id[i] = (uint8_t)(l->info.uid >> (8 * i));
        id[8 + i] = (uint8_t)(l->info.incarnation >> (8 * i));
    }
    for (uint32_t i = 0; i < 4; i++)
        id[16 + i] = (uint8_t)(d->nonce >> (8 * i));
    r = ps_mq_dealer_open(&d->sock, l->mq, &l->keys, d->endpoint, id, sizeof(id));
    if (r != PS_MQ_OK) {
        ps_warn("cannot open a socket to a router", "router=%s case=%d", d->endpoint, r);
        d->retry_us = l->now_us + WK_BACKOFF_MAX_US;
        return;
    }
    d->opened_us = d->hello_next_us = l->now_us;
    d->first_hello_us = 0;
    dial_goto(l, d, WK_DIAL_DIAL);
}

/* Says Hello as soon as the connection is there, and again until Welcome. */
static void say_hello(struct wk_link *l, struct wk_dial *d)
{
    struct pb_msg m = {.head = {0}};

    m.hello.nonce = d->nonce;
    m.hello.info = l->info;
    if (wk_dial_send_msg(l, d, &m, PB_HELLO) != PS_MQ_OK) {
        d->hello_next_us = l->now_us + WK_HELLO_FULL_US;
        return;
    }
    d->hello_next_us = l->now_us + WK_HELLO_REPEAT_US;
    if (d->state == WK_DIAL_DIAL) {
        d->first_hello_us = l->now_us;
        dial_goto(l, d, WK_DIAL_HELLO);
    }
}

void wk_dial_timers(struct wk_link *l, struct wk_dial *d)
{
    uint64_t silence_us = ps_max_u64(WK_SILENCE_US, 1000ULL * WK_SILENCE_BEATS * d->interval_ms);

    if (d->sock != NULL && ps_mq_lost(d->sock))
        close_and_back_off(l, d);
    switch (d->state) {
    case WK_DIAL_IDLE:
        if (d->listed && l->now_us >= d->retry_us)
            open_socket(l, d);
        break;
    case WK_DIAL_DIAL: /* tried each turn: the connection is attached only when the socket is touched */
        say_hello(l, d);
        if (d->state == WK_DIAL_DIAL && l->now_us - d->opened_us > WK_DIAL_GIVE_UP_US)
            close_and_back_off(l, d);
        break;
    case WK_DIAL_HELLO:
        if (l->now_us - d->first_hello_us > WK_HELLO_GIVE_UP_US)
            close_and_back_off(l, d);
        else if (l->now_us >= d->hello_next_us)
            say_hello(l, d);
        break;
    case WK_DIAL_JOINED:
        if (d->want_open_list)
            wk_out_open_list(l, d);
        if (l->now_us >= d->beat_next_us)
            wk_out_beat(l, d);
        break;
    }
    if (d->route->n_att > 0 && l->now_us - d->heard_us > silence_us)
        wk_route_cancel(l, d->route);
}

void wk_dial_extend(struct wk_link *l, uint64_t gap_us)
{
    for (uint32_t i = 0; i < l->n_dials; i++) {
        struct wk_dial *d = l->dials[i];

        d->heard_us = ps_min_u64(d->heard_us + gap_us, l->now_us);
        d->opened_us = ps_min_u64(d->opened_us + gap_us, l->now_us);
        if (d->first_hello_us > 0)
            d->first_hello_us = ps_min_u64(d->first_hello_us + gap_us, l->now_us);
    }
}

/*
 * Two addresses of one router: the link with the higher epoch is the one that the router knows. It takes
 * what the router gave us, the other waits in its shadow. False: d is that other.
 */
static bool take_over(struct wk_link *l, struct wk_dial *d, const struct pb_head *h)
{
    struct wk_dial *other = find_rinc(l, h->rinc, d);
    struct wk_route *r = d->route;

    if (other == NULL)
        return true;
    if (other->state == WK_DIAL_JOINED && other->epoch > h->epoch) {
        d->shadow_rinc = h->rinc;
        wk_dial_close(l, d, WK_BACKOFF_MAX_US, 0);
        return false;
    }
    d->route = other->route;
    other->route = r;
    if (other->state == WK_DIAL_JOINED) {
        other->shadow_rinc = h->rinc;
        wk_dial_close(l, other, WK_BACKOFF_MAX_US, 0);
    }
    return true;
}

/*
 * A socket has one connection in its life, so a Welcome that echoes its nonce comes from the process
 * at its other end, also when that router's clock makes its incarnation smaller than the last one's.
 */
void wk_dial_on_welcome(struct wk_link *l, struct wk_dial *d, const struct pb_msg *m)
{
    if (d->state != WK_DIAL_HELLO || m->welcome.nonce != d->nonce || m->head.epoch == 0 ||
        m->head.rinc == 0)
        return;
    if (!take_over(l, d, &m->head))
        return;
    if (m->head.rinc != d->route->rinc) {
        wk_route_abandon(l, d->route); /* the router that wanted them is gone */
        pb_window_clear(&d->route->window);
        d->route->admin_id = 0;
        d->route->rinc = m->head.rinc;
    }
    d->epoch = m->head.epoch;
    d->seq_out = 1;
    d->interval_ms = ps_min_u32(ps_max_u32(m->welcome.interval_ms, 10), 5000);
    d->backoff_us = WK_BACKOFF_MIN_US;
    d->heard_us = d->beat_next_us = l->now_us;
    d->want_open_list = true;
    l->flush_due = true;
    dial_goto(l, d, WK_DIAL_JOINED);
    ps_info("joined router", "router=%s epoch=%u open=%u", d->endpoint, d->epoch, d->route->n_att);
    wk_out_open_list(l, d);
}

/* The router does not know our epoch: say Hello again on a fresh socket, unless that happened already. */
void wk_dial_on_who(struct wk_link *l, struct wk_dial *d, uint32_t echo_epoch)
{
    if (d->state == WK_DIAL_JOINED && d->epoch == echo_epoch)
        wk_dial_close(l, d, 0, 0);
}
