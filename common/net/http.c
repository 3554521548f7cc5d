#include "common/net/http.h"

#include <time.h>

#include "common/net/conn.h"
#include "common/rng.h"

void ps_http_limits_default(struct ps_http_limits *l)
{
    *l = (struct ps_http_limits){
        .target_bytes = 8 * 1024,
        .header_bytes = 16 * 1024,
        .head_bytes = 64 * 1024,
        .n_headers = 128,
        .body_bytes = 64 * 1024 * 1024, /* a million token ids are about 8 MB of JSON */
        .n_conns = 20000,
        .n_conns_per_addr = 4096,
        .out_soft_bytes = 1024 * 1024,
        .out_hard_bytes = 8 * 1024 * 1024,
        .first_byte_ms = 15 * 1000,
        .head_ms = 10 * 1000,
        .body_base_ms = 30 * 1000,
        .body_min_bytes_per_s = 64 * 1024,
        .body_idle_ms = 10 * 1000,
        .idle_ms =
            75 * 1000, /* above the 60 s of common load balancers, so that they close first */
        .write_stall_ms = 60 * 1000,
        .linger_ms = 2 * 1000,
        .linger_bytes = 256 * 1024,
    };
}

uint64_t ps_http_now_ms(const struct ps_http *s)
{
    return uv_now(ps_loop_uv(s->loop));
}

const char *ps_http_date(struct ps_http *s)
{
    struct timespec now;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if ((uint64_t)now.tv_sec != s->date_s) {
        s->date_s = (uint64_t)now.tv_sec;
        gmtime_r(&now.tv_sec, &tm);
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return s->date;
}

/* ---- the turn ---- */

void ps_http_mark_resume(struct ps_conn *c)
{
    struct ps_http *s = c->srv;

    if (c->on_resume)
        return;
    c->on_resume = true;
    c->next_resume = s->resume;
    s->resume = c;
    ps_turn_again(s->loop);
}

static void before_tick(void *ud)
{
    struct ps_http *s = ud;
    struct ps_conn *list = s->resume;

    s->resume = NULL;
    while (list != NULL) {
        struct ps_conn *c = list;

        list = c->next_resume;
        c->on_resume = false;
        ps_conn_resume(c);
        ps_conn_release(c);
    }
}

static void after_tick(void *ud)
{
    struct ps_http *s = ud;
    struct ps_conn *c;

    while ((c = s->marked) !=
           NULL) { /* flushing may mark others; each is written or dead after it */
        s->marked = c->next_mark;
        c->marked = false;
        ps_conn_flush(c);
        ps_conn_release(c);
    }
    while (s->dead_reqs != NULL) {
        struct ps_http_req *r = s->dead_reqs;

        s->dead_reqs = r->next_dead;
        ps_req_free(r);
    }
}

static void on_coarse(void *ud)
{
    struct ps_http *s = ud;

    ps_wheel_run(&s->wheel, ps_http_now_ms(s), ps_conn_on_timer, s);
}

/* ---- life ---- */

int ps_http_create(struct ps_http **out, struct ps_loop *loop, const struct ps_http_limits *l,
                   const struct ps_http_handler *h, void *ud)
{
    struct ps_http *s = ps_calloc(1, sizeof(*s));
    uint64_t seed;

    PS_ASSERT(h->on_head != NULL && h->on_body != NULL && h->on_gone != NULL);
    PS_ASSERT(h->on_drained != NULL && h->on_fault != NULL);
    s->loop = loop;
    s->limits = *l;
    s->on = *h;
    s->ud = ud;
    s->read_buf = ps_alloc(PS_READ_BYTES);
    ps_random_bytes(&seed, sizeof(seed)); /* the keys are addresses, which a client may choose */
    ps_map_init(&s->addrs, seed);
    ps_wheel_init(&s->wheel, PS_COARSE_MS, ps_http_now_ms(s));
    s->turn =
        (struct ps_turn){.before = before_tick, .after = after_tick, .coarse = on_coarse, .ud = s};
    ps_turn_add(loop, &s->turn);
    *out = s;
    return 0;
}

static void free_if_done(struct ps_http *s)
{
    if (!s->destroyed || s->n_handles > 0)
        return;
    ps_map_fini(&s->addrs);
    ps_free(s->read_buf);
    ps_free(s);
}

void ps_http_handle_closed(struct ps_http *s)
{
    PS_ASSERT(s->n_handles > 0);
    s->n_handles--;
    free_if_done(s);
}

void ps_http_stop_listening(struct ps_http *s)
{
    while (s->listeners != NULL) {
        struct ps_listener *l = s->listeners;

        s->listeners = l->next;
        ps_listener_close(l);
    }
}

void ps_http_close_idle(struct ps_http *s)
{
    struct ps_conn *next;

    for (struct ps_conn *c = s->conns; c != NULL; c = next) {
        next = c->next;
        if (c->state != PS_CONN_HEAD || c->scan.pos > 0 || c->in.len > 0)
            continue;
        if (ps_conn_pending(c) > 0)
            c->close_after = true;
        else
            ps_conn_close(c, false);
    }
}

void ps_http_set_closing(struct ps_http *s, bool closing)
{
    s->closing = closing;
}

uint32_t ps_http_n_conns(const struct ps_http *s)
{
    return s->n_conns;
}

uint64_t ps_http_pending_bytes(const struct ps_http *s)
{
    uint64_t n = 0;

    for (const struct ps_conn *c = s->conns; c != NULL; c = c->next)
        n += ps_conn_pending(c);
    return n;
}

void ps_http_destroy(struct ps_http *s)
{
    if (s == NULL)
        return;
    ps_http_stop_listening(s);
    while (s->conns != NULL)
        ps_conn_close(s->conns, false);
    before_tick(s); /* every connection is dead: these only empty the lists */
    after_tick(s);
    ps_turn_remove(s->loop, &s->turn);
    s->destroyed = true;
    free_if_done(s);
}

/* ---- requests ---- */

const struct ps_http_head *ps_http_head(const struct ps_http_req *r)
{
    return &r->head;
}

const char *ps_http_header(const struct ps_http_req *r, const char *lower_name)
{
    return ps_req_header(r, lower_name);
}

void ps_http_set_ud(struct ps_http_req *r, void *req_ud)
{
    r->ud = req_ud;
}

void *ps_http_ud(const struct ps_http_req *r)
{
    return r->ud;
}
