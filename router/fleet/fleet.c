#include "router/fleet/fleet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "router/fleet/fleet_internal.h"

enum { SOCKETS_MAX = 64, FILES_MIN = 2 * RT_MAX_WORKERS + 1024 };

static void get_counters(struct rt_fleet *f)
{
    f->count.stale = ps_counter_get("penstock_router_wire_stale_frames_total",
                                    "Frames of an incarnation or epoch that is not current", NULL);
    f->count.bad = ps_counter_get("penstock_router_wire_bad_frames_total",
                                  "Frames that could not be read or were not allowed", NULL);
    f->count.resends = ps_counter_get("penstock_router_wire_resends_total",
                                      "Times that tokens were asked for again", NULL);
    f->count.lost = ps_counter_get("penstock_router_attempts_lost_total",
                                   "Attempts lost with their worker or found missing there", NULL);
    f->count.mismatches = ps_counter_get("penstock_router_wire_digest_mismatches_total",
                                         "Beats whose digest of open attempts differed", NULL);
    f->count.queries = ps_counter_get("penstock_router_wire_open_queries_total",
                                      "Lists of open attempts asked for", NULL);
}

static int open_keys(struct rt_fleet *f, const struct rt_fleet_conf *conf, char *err,
                     size_t err_size)
{
    if (conf->curve_secret_file[0] == '\0') {
        if (!ps_mq_host_is_loopback(conf->bind_host) && !conf->insecure_public_bind) {
            snprintf(err, err_size, "a bind to %.60s without keys must be asked for explicitly",
                     conf->bind_host);
            return -EACCES;
        }
        return 0;
    }
    if (conf->curve_allow_file[0] == '\0') {
        snprintf(err, err_size, "keys without an allow file would let any key in");
        return -EINVAL;
    }
    if (ps_curve_load(&f->keys, conf->curve_secret_file, "", err, err_size) != PS_ZAP_OK ||
        ps_zap_start(&f->zap, f->mq, conf->curve_allow_file, err, err_size) != PS_ZAP_OK)
        return -EINVAL;
    return 0;
}

static int open_wire(struct rt_fleet *f, const struct rt_fleet_conf *conf, char *err,
                     size_t err_size)
{
    int r = ps_mq_raise_nofile(FILES_MIN);

    if (r != 0) {
        snprintf(err, err_size, "the limit of open files is below %d", FILES_MIN);
        return r;
    }
    r = ps_mq_create(&f->mq, SOCKETS_MAX);
    if (r == 0)
        r = ps_mq_set_create(&f->set);
    if (r == 0)
        r = open_keys(f, conf, err, err_size);
    if (r != 0)
        return r;
    if (ps_mq_router_open(&f->sock, f->mq, &f->keys, conf->bind_host, conf->tok_port, &f->port, err,
                          err_size) != PS_MQ_OK)
        return -EADDRINUSE;
    if (f->keys.on &&
        ps_zap_self_test(f->mq, &f->keys, conf->bind_host, f->port, err, err_size) != PS_ZAP_OK)
        return -EACCES;
    if (ps_inject_create(&f->inject_out, conf->inject, 11) != PS_INJECT_OK ||
        ps_inject_create(&f->inject_in, conf->inject, 12) != PS_INJECT_OK) {
        snprintf(err, err_size, "bad injection text");
        return -EINVAL;
    }
    return 0;
}

int rt_fleet_create(struct rt_fleet **out, const struct rt_fleet_conf *conf,
                    const struct ps_clock *clock, struct ps_buf *err)
{
    struct rt_fleet *f = ps_calloc(1, sizeof(*f));
    char text[200] = "";
    int r;

    PS_ASSERT(conf->n_loops > 0 && conf->n_loops <= RT_MAX_LOOPS);
    f->n_loops = conf->n_loops;
    f->n_events = conf->n_events;
    f->checks_tokenizer = conf->tokenizer_digest != NULL;
    if (f->checks_tokenizer)
        memcpy(f->tokenizer_digest, conf->tokenizer_digest, sizeof(f->tokenizer_digest));
    f->clock = clock;
    f->rinc = ps_wall_us(clock) * 1000; /* start time in ns: incarnations are ordered */
    f->now_us = ps_now_us(clock);
    f->wake.fd = -1;
    ps_map_init(&f->by_uid, f->rinc);
    ps_buf_init(&f->buf);
    f->views = ps_alloc_aligned(128, RT_MAX_WORKERS * sizeof(struct rt_view));
    memset(f->views, 0, RT_MAX_WORKERS * sizeof(struct rt_view));
    for (uint32_t i = 0; i < f->n_loops; i++) {
        f->loops[i].cmds = ps_ring_create(conf->n_events, sizeof(struct rt_cmd));
        f->loops[i].events = ps_ring_create(conf->n_events, sizeof(struct rt_event));
        ps_map_init(&f->loops[i].cancelled, f->rinc);
    }
    get_counters(f);
    r = ps_wake_init(&f->wake);
    if (r == 0)
        r = open_wire(f, conf, text, sizeof(text));
    if (r != 0) {
        ps_buf_add_str(err, text[0] != '\0' ? text : strerror(-r));
        rt_fleet_destroy(f);
        return r;
    }
    *out = f;
    return 0;
}

int rt_fleet_start(struct rt_fleet *f)
{
    int e = pthread_create(&f->thread, NULL, rt_link_main, f);

    f->started = e == 0;
    return e == 0 ? 0 : PS_FAULT(-e);
}

uint16_t rt_fleet_port(const struct rt_fleet *f)
{
    return f->port;
}

void rt_fleet_stop(struct rt_fleet *f)
{
    atomic_store(&f->stop, true);
    ps_wake_ring(&f->wake);
    if (f->started)
        pthread_join(f->thread, NULL);
    f->started = false;
}

static void drop_event(struct rt_event *e)
{
    ps_free(e->tokens);
    ps_free(e->prompt_scores);
}

static void loop_fini(struct rt_fleet *f, struct rt_loop_side *s)
{
    struct rt_event e;
    struct rt_cmd c;

    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (s->by_slot[i] != NULL)
            rt_att_free(f, s->by_slot[i]);
    }
    while (ps_ring_pop(s->events, &e) == PS_RING_OK)
        drop_event(&e);
    while (ps_ring_pop(s->cmds, &c) == PS_RING_OK)
        pb_submit_destroy(c.submit);
    ps_ring_destroy(s->events);
    ps_ring_destroy(s->cmds);
    ps_map_fini(&s->cancelled);
    ps_free(s->by_slot);
    ps_free(s->done);
}

void rt_fleet_destroy(struct rt_fleet *f)
{
    if (f == NULL)
        return;
    rt_fleet_stop(f);
    for (uint32_t i = 0; i < f->n_loops; i++)
        loop_fini(f, &f->loops[i]);
    for (uint32_t i = 0; i < RT_MAX_WORKERS; i++)
        rt_peer_destroy(f, f->peers[i]);
    ps_mq_close(f->sock, 0);
    ps_zap_stop(f->zap);
    ps_mq_set_destroy(f->set);
    ps_mq_destroy(f->mq);
    ps_inject_destroy(f->inject_out);
    ps_inject_destroy(f->inject_in);
    ps_map_fini(&f->by_uid);
    ps_buf_fini(&f->buf);
    ps_wake_fini(&f->wake);
    ps_free(f->views);
    ps_free(f);
}

/* ---- the loops' side ---- */

void rt_fleet_attach(struct rt_fleet *f, uint32_t loop, struct ps_wake *wake)
{
    PS_ASSERT(loop < f->n_loops && !f->started);
    f->loops[loop].wake = wake;
}

static int push(struct rt_fleet *f, uint32_t loop, const struct rt_cmd *c)
{
    PS_ASSERT(loop < f->n_loops);
    if (ps_ring_push(f->loops[loop].cmds, c) != PS_RING_OK)
        return RT_FLEET_E_FULL;
    ps_wake_ring(&f->wake);
    return RT_FLEET_OK;
}

int rt_fleet_submit(struct rt_fleet *f, uint32_t loop, uint32_t worker, struct pb_submit *move_s,
                    int64_t resv_tok)
{
    struct rt_cmd c = {
        .kind = RT_CMD_SUBMIT, .worker = worker, .submit = move_s, .resv_tok = resv_tok};

    PS_ASSERT(worker < RT_MAX_WORKERS && RT_REQ_LOOP(move_s->req) == loop);
    return push(f, loop, &c);
}

int rt_fleet_cancel(struct rt_fleet *f, uint32_t loop, uint64_t req, uint32_t attempt)
{
    struct rt_cmd c = {.kind = RT_CMD_CANCEL, .req = req, .attempt = attempt};
    int r = push(f, loop, &c);

    if (r == RT_FLEET_OK)
        ps_map_put(&f->loops[loop].cancelled, req, attempt);
    return r;
}

/* Events of a cancelled attempt that were in the ring already are dropped here (F1). */
bool rt_fleet_poll(struct rt_fleet *f, uint32_t loop, struct rt_event *out)
{
    struct rt_loop_side *s = &f->loops[loop];
    struct rt_event e;

    while (ps_ring_pop(s->events, &e) == PS_RING_OK) {
        uint64_t attempt;
        bool cancelled = e.kind != RT_EV_FLEET && ps_map_get(&s->cancelled, e.req, &attempt);

        if ((uint32_t)e.kind == RT_EV_CANCEL_DONE) {
            if (cancelled && attempt == e.attempt)
                ps_map_del(&s->cancelled, e.req);
            continue;
        }
        if (cancelled && e.attempt <= attempt) {
            drop_event(&e);
            continue;
        }
        *out = e;
        return true;
    }
    return false;
}

int rt_fleet_drain(struct rt_fleet *f, uint32_t loop, uint32_t worker, bool on)
{
    struct rt_cmd c = {
        .kind = RT_CMD_ADMIN, .worker = worker, .op = on ? PB_ADMIN_DRAIN : PB_ADMIN_UNDRAIN};

    return push(f, loop, &c);
}

int rt_fleet_flush(struct rt_fleet *f, uint32_t loop, uint32_t worker)
{
    struct rt_cmd c = {.kind = RT_CMD_ADMIN, .worker = worker, .op = PB_ADMIN_FLUSH};

    return push(f, loop, &c);
}
