#include "worker/link.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "common/mq/zap.h"
#include "worker/link_internal.h"

enum {
    SOCKETS_MAX = 1024,
    BYE_LINGER_MS = 100,
    IDLE_WAIT_MS = 100,
    OUT_BURST = 16,
    ATTEMPTS_MAX = 1 << 17, /* a list of four times as many fits one frame */
};

/* ---- what arrives ---- */

static void on_admin(struct wk_link *l, struct wk_dial *d, const struct pb_admin *a)
{
    static const enum wk_in_kind kinds[] = {[PB_ADMIN_DRAIN] = WK_IN_DRAIN,
                                            [PB_ADMIN_UNDRAIN] = WK_IN_UNDRAIN,
                                            [PB_ADMIN_FLUSH] = WK_IN_FLUSH};
    struct pb_msg m = {.head = {0}};

    if (a->id > d->route->admin_id) {
        if (l->n_admin_todo == PS_ARRAY_LEN(l->admin_todo))
            return; /* not done, so not answered: it comes again */
        d->route->admin_id = a->id;
        l->admin_todo[l->n_admin_todo++] = kinds[a->op];
        if (a->op != PB_ADMIN_FLUSH) {
            atomic_store(&l->draining, a->op == PB_ADMIN_DRAIN);
            l->drained = false;
        }
    }
    m.admin.id = a->id;
    (void)wk_dial_send_msg(l, d, &m, PB_ADMIN_REPLY);
}

static void on_current(struct wk_link *l, struct wk_dial *d, struct pb_msg *m)
{
    switch (m->head.kind) {
    case PB_BEAT:
        d->interval_ms = ps_min_u32(ps_max_u32(m->beat.interval_ms, 10), 5000);
        break;
    case PB_BYE:
        wk_route_abandon(l, d->route);
        wk_dial_close(l, d, WK_BACKOFF_MIN_US, 0);
        break;
    case PB_SUBMIT:
        wk_att_on_submit(l, d, m->submit);
        m->submit = NULL;
        break;
    case PB_CANCEL:
        wk_att_on_cancel(l, d, &m->attempt);
        break;
    case PB_RESEND:
        wk_att_on_resend(l, d, &m->attempt);
        break;
    case PB_FINACK:
        wk_att_on_finack(l, d, &m->attempt);
        break;
    case PB_OPENQUERY:
        wk_out_open_list(l, d);
        break;
    case PB_ADMIN:
        on_admin(l, d, &m->admin);
        break;
    default: /* of a kind that only routers take */
        break;
    }
}

/* ps_inject_fn of the way in; the direct path too. */
static void on_frame(void *ud, uint64_t nonce, const uint8_t *id, size_t id_len,
                     const uint8_t *data, size_t len)
{
    struct wk_link *l = ud;
    struct wk_dial *d = wk_dial_by_nonce(l, nonce);
    struct pb_head h;
    struct pb_msg m;
    bool is_link;

    (void)id;
    (void)id_len;
    if (d == NULL)
        return;
    if (pb_msg_peek(data, len, &h) != PB_MSG_OK || h.winc != l->info.incarnation)
        return;
    is_link = h.kind == PB_WELCOME || h.kind == PB_WHO;
    if (!is_link && (d->state != WK_DIAL_JOINED || h.epoch != d->epoch || h.rinc != d->route->rinc))
        return;
    if (pb_msg_decode(data, len, &m) != PB_MSG_OK)
        return;
    if (!is_link)
        d->heard_us = l->now_us;
    if (h.kind == PB_WELCOME)
        wk_dial_on_welcome(l, d, &m);
    else if (h.kind == PB_WHO)
        wk_dial_on_who(l, d, m.echo_epoch);
    else
        on_current(l, d, &m);
    pb_msg_fini(&m);
}

static void drain_dial(struct wk_link *l, struct wk_dial *d)
{
    struct ps_mq_msg msg;

    for (uint32_t i = 0; i < WK_RECV_MAX && d->sock != NULL; i++) {
        int r = ps_mq_recv(d->sock, &msg);

        if (r == PS_MQ_E_BAD)
            continue;
        if (r != PS_MQ_OK)
            return;
        if (l->inject_in != NULL)
            ps_inject_pass(l->inject_in, l->now_us, d->nonce, NULL, 0, msg.data, msg.len, on_frame,
                           l);
        else
            on_frame(l, d->nonce, NULL, 0, msg.data, msg.len);
    }
}

/* ---- the thread ---- */

static struct wk_dial *find_endpoint(struct wk_link *l, const char *endpoint)
{
    for (uint32_t i = 0; i < l->n_dials; i++) {
        if (strcmp(l->dials[i]->endpoint, endpoint) == 0)
            return l->dials[i];
    }
    return NULL;
}

static void take_addresses(struct wk_link *l)
{
    char **list;
    uint32_t n;
    bool complete;

    if (!wk_resolve_take(l->resolve, &list, &n, &complete))
        return;
    for (uint32_t i = 0; complete && i < l->n_dials; i++)
        l->dials[i]->listed = false;
    for (uint32_t i = 0; i < n; i++) {
        struct wk_dial *d = find_endpoint(l, list[i]);

        if (d != NULL)
            d->listed = true;
        else if (l->n_dials < WK_DIALS_MAX)
            wk_dial_create(l, list[i]);
        ps_free(list[i]);
    }
    ps_free(list);
}

/* An address that is not named any more is kept as long as its link lives or its attempts wait. */
static void drop_unlisted(struct wk_link *l)
{
    for (uint32_t i = l->n_dials; i-- > 0;) {
        struct wk_dial *d = l->dials[i];

        if (!d->listed && d->state == WK_DIAL_IDLE && l->now_us - d->heard_us > WK_SILENCE_US)
            wk_dial_destroy(l, d);
    }
}

static uint32_t wait_ms(const struct wk_link *l)
{
    uint64_t until = l->now_us + 1000ULL * IDLE_WAIT_MS;

    if (l->n_atts_all > 0 || l->inject_out != NULL || l->todo_first != NULL)
        until = l->now_us + WK_SCAN_US;
    for (uint32_t i = 0; i < l->n_dials; i++) {
        const struct wk_dial *d = l->dials[i];

        if (d->state == WK_DIAL_JOINED)
            until = ps_min_u64(until, d->beat_next_us);
        else if (d->state == WK_DIAL_IDLE)
            until = ps_min_u64(until, ps_max_u64(d->retry_us, l->now_us));
        else
            until = ps_min_u64(until, l->now_us + WK_SCAN_US);
    }
    return until <= l->now_us ? 0 : (uint32_t)ps_div_up_u64(until - l->now_us, 1000);
}

static void sleep_turn(struct wk_link *l, uint32_t ms)
{
    ps_mq_set_clear(l->set);
    ps_mq_set_add_fd(l->set, l->wake.fd);
    for (uint32_t i = 0; i < l->n_dials; i++) {
        if (l->dials[i]->sock != NULL)
            ps_mq_set_add(l->set, l->dials[i]->sock, l->dials[i]->state == WK_DIAL_DIAL);
    }
    ps_wake_arm(&l->wake);
    ps_mq_wait(l->set, ps_ring_n(l->out_ring) > 0 ? 0 : ms);
    ps_wake_clear(&l->wake);
}

/* One turn. The order matters: all that arrived is read before anyone's silence is judged. */
static void turn(struct wk_link *l, uint64_t expected_us)
{
    uint64_t late_us;

    l->now_us = ps_now_us(l->clock);
    late_us = l->now_us > expected_us ? l->now_us - expected_us : 0;
    for (uint32_t i = 0; i < l->n_dials; i++)
        drain_dial(l, l->dials[i]);
    if (l->inject_in != NULL)
        ps_inject_due(l->inject_in, l->now_us, on_frame, l);
    if (l->inject_out != NULL)
        ps_inject_due(l->inject_out, l->now_us, wk_dial_deliver, l);
    if (late_us > WK_STALL_US)
        wk_dial_extend(l, late_us);
    wk_out_take(l);
    take_addresses(l);
    wk_att_push_todo(l);
    if (l->now_us >= l->scan_next_us) {
        l->scan_next_us = l->now_us + WK_SCAN_US;
        if (l->flush_due)
            wk_out_flush(l);
        for (uint32_t i = 0; i < l->n_dials; i++)
            wk_out_scan(l, l->dials[i]);
        drop_unlisted(l);
    }
    for (uint32_t i = 0; i < l->n_dials; i++)
        wk_dial_timers(l, l->dials[i]);
}

static void *link_main(void *ud)
{
    struct wk_link *l = ud;
    uint64_t expected_us = ps_now_us(l->clock);

    while (!atomic_load(&l->stop)) {
        uint32_t ms;

        turn(l, expected_us);
        ms = wait_ms(l);
        expected_us = l->now_us + 1000ULL * ms;
        sleep_turn(l, ms);
    }
    for (uint32_t i = 0; i < l->n_dials; i++) {
        struct wk_dial *d = l->dials[i];

        wk_dial_send_bye(l, d);
        if (d->state != WK_DIAL_IDLE)
            wk_dial_close(l, d, 0, BYE_LINGER_MS);
    }
    return NULL;
}

/* ---- life ---- */

static uint32_t pow2_at_least(uint32_t n)
{
    uint32_t p = 1;

    while (p < n)
        p *= 2;
    return p;
}

static int set_up(struct wk_link *l, const struct wk_link_conf *conf)
{
    char err[200];
    int r;

    if (ps_inject_create(&l->inject_out, conf->inject, 2 * l->info.uid) != PS_INJECT_OK ||
        ps_inject_create(&l->inject_in, conf->inject, 2 * l->info.uid + 1) != PS_INJECT_OK)
        return PS_FAULT(-EINVAL);
    if (conf->curve_secret_file[0] != '\0' &&
        ps_curve_load(&l->keys, conf->curve_secret_file, conf->curve_server_key_file, err,
                      sizeof(err)) != PS_ZAP_OK) {
        ps_error("no keys for the link", "why=\"%s\"", err);
        return PS_FAULT(-EINVAL);
    }
    if (l->keys.on && l->keys.server[0] == '\0') {
        ps_error("keys without the router's public key", "file=%s", conf->curve_secret_file);
        return PS_FAULT(-EINVAL);
    }
    r = ps_mq_raise_nofile(SOCKETS_MAX);
    if (r == 0)
        r = ps_mq_create(&l->mq, SOCKETS_MAX);
    if (r == 0)
        r = ps_mq_set_create(&l->set);
    if (r == 0)
        r = wk_resolve_create(&l->resolve, conf->routers, conf->n_routers, &l->wake);
    if (r == WK_RESOLVE_E_BAD) {
        ps_error("a router address is not tcp://host:port", "%s", "");
        return PS_FAULT(-EINVAL);
    }
    return r;
}

int wk_link_create(struct wk_link **out, const struct wk_link_conf *conf,
                   const struct ps_clock *clock, struct ps_wake *sched_wake)
{
    struct wk_link *l = ps_calloc(1, sizeof(*l));
    uint32_t n = conf->n_attempts_max;
    int r;

    PS_ASSERT(n > 0 && n <= ATTEMPTS_MAX && conf->info.uid != 0 && conf->info.incarnation != 0);
    l->info = conf->info;
    l->limits = (struct pb_limits){.n_vocab = conf->info.n_vocab, .context = conf->info.context};
    l->clock = clock;
    l->sched_wake = sched_wake;
    l->n_handles = l->n_free_handles = n;
    l->n_atts_max = 4 * n + 1024; /* with those that wait for FinAck */
    l->handles = ps_calloc(n, sizeof(struct wk_att *));
    l->free_handles = ps_alloc(n * sizeof(uint32_t));
    for (uint32_t i = 0; i < n; i++)
        l->free_handles[i] = n - 1 - i;
    l->in_ring = ps_ring_create(pow2_at_least(2 * n + 64), sizeof(struct wk_in));
    l->out_ring = ps_ring_create(pow2_at_least(OUT_BURST * n + 1024), sizeof(struct wk_out));
    l->todo_last = &l->todo_first;
    l->now_us = ps_now_us(clock);
    ps_rng_seed(&l->rng, conf->info.uid ^ conf->info.incarnation);
    pb_tokens_builder_init(&l->tokens);
    ps_buf_init(&l->buf);
    r = ps_wake_init(&l->wake);
    if (r == 0)
        r = set_up(l, conf);
    if (r != 0) {
        wk_link_destroy(l);
        return r;
    }
    *out = l;
    return 0;
}

int wk_link_start(struct wk_link *l)
{
    int e = pthread_create(&l->thread, NULL, link_main, l);

    l->started = e == 0;
    return e == 0 ? 0 : PS_FAULT(-e);
}

void wk_link_stop(struct wk_link *l)
{
    atomic_store(&l->stop, true);
    ps_wake_ring(&l->wake);
    if (l->started)
        pthread_join(l->thread, NULL);
    l->started = false;
}

/* The scheduler is gone: what lies in the rings is nobody's. */
static void empty_rings(struct wk_link *l)
{
    struct wk_in in;
    struct wk_out o;

    while (ps_ring_pop(l->in_ring, &in) == PS_RING_OK)
        pb_submit_destroy(in.submit);
    while (ps_ring_pop(l->out_ring, &o) == PS_RING_OK) {
        ps_free(o.logprob);
        ps_free(o.prompt_scores);
    }
}

static void free_attempts(struct wk_link *l)
{
    while (l->n_dials > 0)
        wk_dial_destroy(l, l->dials[0]);
    while (l->todo_first != NULL) {
        struct wk_att *a = l->todo_first;

        l->todo_first = a->todo_next;
        a->in_todo = false;
        if (a->handle == WK_NO_HANDLE)
            wk_att_free(l, a);
    }
    for (uint32_t i = 0; i < l->n_handles; i++) {
        struct wk_att *a = l->handles[i];

        if (a == NULL)
            continue;
        a->handle = WK_NO_HANDLE;
        a->state = WK_ATT_ENDED;
        wk_att_free(l, a);
    }
}

void wk_link_destroy(struct wk_link *l)
{
    if (l == NULL)
        return;
    wk_link_stop(l);
    wk_resolve_destroy(l->resolve);
    free_attempts(l);
    PS_ASSERT(l->n_atts_all == 0);
    empty_rings(l);
    ps_inject_destroy(l->inject_out);
    ps_inject_destroy(l->inject_in);
    ps_mq_set_destroy(l->set);
    ps_mq_destroy(l->mq);
    if (l->wake.fd > 0)
        ps_wake_fini(&l->wake);
    ps_ring_destroy(l->in_ring);
    ps_ring_destroy(l->out_ring);
    ps_buf_fini(&l->buf);
    pb_tokens_builder_fini(&l->tokens);
    ps_free(l->commits);
    ps_free(l->handles);
    ps_free(l->free_handles);
    ps_free(l);
}

/* ---- the scheduler's side ---- */

static bool port_pop(void *ud, struct wk_in *out)
{
    struct wk_link *l = ud;

    return ps_ring_pop(l->in_ring, out) == PS_RING_OK;
}

static bool port_push(void *ud, const struct wk_out *o)
{
    struct wk_link *l = ud;

    if (ps_ring_push(l->out_ring, o) != PS_RING_OK) {
        ps_wake_ring(&l->wake);
        return false;
    }
    if (o->kind != WK_OUT_TOKEN) /* tokens go out together at the end of their step */
        ps_wake_ring(&l->wake);
    return true;
}

static void port_set_load(void *ud, const struct pb_load *load, uint64_t tick)
{
    struct wk_link *l = ud;
    struct wk_published p;

    memset(&p, 0, sizeof(p));
    p.load = *load;
    p.tick = tick;
    ps_seq_write(&l->published_ver, l->published, &p, sizeof(p));
}

static void port_set_kv(void *ud, const struct pb_kv_load *kv)
{
    struct wk_link *l = ud;

    ps_seq_write(&l->kv_ver, l->kv, kv, sizeof(*kv));
}

struct wk_port wk_link_port(struct wk_link *l)
{
    return (struct wk_port){.ud = l,
                            .pop = port_pop,
                            .push = port_push,
                            .set_load = port_set_load,
                            .set_kv = port_set_kv};
}

void wk_link_set_draining(struct wk_link *l, bool on)
{
    atomic_store(&l->draining, on);
}

bool wk_link_idle(struct wk_link *l)
{
    return atomic_load(&l->n_atts) == 0 && ps_ring_n(l->out_ring) == 0;
}

uint32_t wk_link_n_joined(struct wk_link *l)
{
    return atomic_load(&l->n_joined);
}
