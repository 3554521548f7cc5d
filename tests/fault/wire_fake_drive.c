#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "tests/fault/wire_fake.h"

enum {
    STUCK_US = 15000000
}; /* several times every timer of the protocol, but the 30 s of the last */

struct stream {
    bool used, in_flight, accepted;
    uint64_t req, seed, retry_us, progress_us;
    uint32_t gen, attempt, worker, n_total, n_have, n_prompt;
    bool logprobs, scores;
};

struct wire_drive {
    struct rt_fleet *f;
    struct ps_clock clock;
    struct ps_wake wake;
    struct ps_rng rng;
    struct wire_table *table;
    struct stream streams[WIRE_STREAMS_MAX];
    uint32_t n_streams, n_open, gen, n_long;
};

static void wrong(struct wire_drive *d, const struct stream *s, const char *what)
{
    fprintf(stderr, "WRONG %s: req=%llx attempt=%u have=%u total=%u worker=%u\n", what,
            (unsigned long long)s->req, s->attempt, s->n_have, s->n_total, s->worker);
    atomic_fetch_add(&d->table->n_wrong, 1);
}

static void set_entry(struct wire_drive *d, const struct stream *s)
{
    struct wire_entry *e = &d->table->entries[s - d->streams];

    atomic_store(&e->used, 0);
    if (!s->in_flight)
        return;
    e->tag = d->table->tag;
    e->req = s->req;
    e->attempt = s->attempt;
    atomic_store(&e->used, 1);
}

/* Any live worker, from a random start; UINT32_MAX: none. */
static uint32_t pick(struct wire_drive *d)
{
    uint32_t n = rt_fleet_n_slots(d->f), from;
    struct rt_worker w;

    if (n == 0)
        return UINT32_MAX;
    from = (uint32_t)ps_rng_below(&d->rng, n);
    for (uint32_t i = 0; i < n; i++) {
        if (rt_fleet_worker(d->f, (from + i) % n, &w) && w.state == RT_W_LIVE)
            return (from + i) % n;
    }
    return UINT32_MAX;
}

static void dispatch(struct wire_drive *d, struct stream *s, uint64_t now_us)
{
    struct pb_submit *b;

    s->worker = pick(d);
    s->retry_us = now_us + 5000;
    if (s->worker == UINT32_MAX)
        return;
    b = pb_submit_create(s->n_prompt + s->n_have, 0, 0, 0);
    b->req = s->req;
    b->attempt = s->attempt + 1;
    b->space_id = 7;
    b->arith_id = 8;
    b->chain_seed = d->table->tag;
    b->n_prompt = s->n_prompt;
    b->n_done = s->n_have;
    b->max_tokens = s->n_total;
    b->samp = (struct pb_sampling){.temperature = 1,
                                   .top_p = 1,
                                   .rep_penalty = 1,
                                   .seed = s->seed,
                                   .n_top = s->logprobs ? 2 : -1,
                                   .n_prompt_top = s->scores ? 0 : -1};
    for (uint32_t i = 0; i < s->n_prompt; i++)
        b->ids[i] = wire_token(~s->seed, i);
    for (uint32_t i = 0; i < s->n_have; i++)
        b->ids[s->n_prompt + i] = wire_token(s->seed, i);
    rt_fleet_reserve(d->f, s->worker, s->n_prompt);
    if (rt_fleet_submit(d->f, 0, s->worker, b, s->n_prompt) != RT_FLEET_OK) {
        rt_fleet_unreserve(d->f, s->worker, s->n_prompt);
        pb_submit_destroy(b);
        return;
    }
    s->attempt++;
    s->in_flight = true;
    s->accepted = false;
    set_entry(d, s);
}

static void start_stream(struct wire_drive *d, struct stream *s, uint64_t now_us)
{
    uint64_t kind = ps_rng_below(&d->rng, 1000);
    uint32_t n = 1 + (uint32_t)ps_rng_below(&d->rng, 40);

    if (kind < 30) /* long enough to live through a fault */
        n = 300 + (uint32_t)ps_rng_below(&d->rng, 900);
    else if (kind < 30 + d->n_long) /* an orphan of it would not end by itself */
        n = 6000 + (uint32_t)ps_rng_below(&d->rng, 6000);
    memset(s, 0, sizeof(*s));
    s->used = true;
    s->req = RT_REQ_ID(0, ++d->gen, (uint64_t)(s - d->streams));
    s->seed = ps_rng_u64(&d->rng);
    s->n_total = n;
    s->progress_us = now_us;
    s->n_prompt = 1 + (uint32_t)ps_rng_below(&d->rng, 50);
    s->logprobs = ps_rng_below(&d->rng, 8) == 0;
    s->scores = ps_rng_below(&d->rng, 16) == 0;
    d->n_open++;
}

static void end_stream(struct wire_drive *d, struct stream *s)
{
    s->used = s->in_flight = false;
    set_entry(d, s);
    d->n_open--;
}

static void on_tokens(struct wire_drive *d, struct stream *s, const struct rt_event *e)
{
    const struct rt_tokens *t = e->tokens;

    if (!s->accepted)
        wrong(d, s, "tokens before accept");
    if (e->first != s->n_have || t->n == 0 || t->n > s->n_total - s->n_have)
        wrong(d, s, "index");
    if ((t->logprobs != NULL) != s->logprobs)
        wrong(d, s, "logprobs");
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t at = e->first + i;

        if (t->ids[i] != wire_token(s->seed, at))
            wrong(d, s, "value");
        if (t->logprobs != NULL && (t->logprobs[i].rank != at || t->logprobs[i].n_top != 2 ||
                                    t->logprobs[i].top[1].id != t->ids[i]))
            wrong(d, s, "logprob value");
    }
    s->n_have = e->first + t->n;
    atomic_fetch_add(&d->table->n_tokens, t->n);
}

static void on_finished(struct wire_drive *d, struct stream *s, const struct rt_event *e)
{
    if (!s->accepted || e->finish != PB_FIN_LENGTH || e->n_total != s->n_total ||
        s->n_have != s->n_total || e->n_cached != 3)
        wrong(d, s, "end");
    if (e->n_prompt_scores != (s->scores ? s->n_prompt : 0))
        wrong(d, s, "scores");
    for (uint32_t i = 0; i < e->n_prompt_scores; i++) {
        if (e->prompt_scores[i].rank != wire_token(~s->seed, i))
            wrong(d, s, "score value");
    }
    atomic_fetch_add(&d->table->n_completed, 1);
    end_stream(d, s);
}

static void on_event(struct wire_drive *d, const struct rt_event *e, uint64_t now_us)
{
    struct stream *s = &d->streams[RT_REQ_SLOT(e->req)];

    if (e->kind == RT_EV_FLEET)
        return;
    PS_ASSERT(RT_REQ_SLOT(e->req) < WIRE_STREAMS_MAX);
    if (!s->in_flight || s->req != e->req || s->attempt != e->attempt || s->worker != e->worker) {
        wrong(d, s, "event of an attempt that is not current");
        return;
    }
    s->progress_us = now_us;
    switch (e->kind) {
    case RT_EV_ACCEPTED:
        if (s->accepted)
            wrong(d, s, "accepted twice");
        s->accepted = true;
        break;
    case RT_EV_TOKENS:
        on_tokens(d, s, e);
        break;
    case RT_EV_FINISHED:
        on_finished(d, s, e);
        break;
    case RT_EV_REJECTED:
    case RT_EV_LOST:
        atomic_fetch_add(e->kind == RT_EV_LOST ? &d->table->n_lost : &d->table->n_rejected, 1);
        s->in_flight = false;
        set_entry(d, s);
        s->retry_us = now_us + (e->kind == RT_EV_LOST ? 0 : 5000);
        break;
    case RT_EV_FLEET:
        break;
    }
}

static void maybe_cancel(struct wire_drive *d, struct stream *s)
{
    if (!s->in_flight || ps_rng_below(&d->rng, 4000) != 0)
        return;
    if (rt_fleet_cancel(d->f, 0, s->req, s->attempt) != RT_FLEET_OK)
        return;
    atomic_fetch_add(&d->table->n_cancelled, 1);
    if (ps_rng_below(&d->rng, 2) == 0) { /* a move by choice: the same request on another worker */
        s->in_flight = false;
        set_entry(d, s);
    } else {
        end_stream(d, s);
    }
}

void wire_drive_turn(struct wire_drive *d, bool more)
{
    struct pollfd p = {.fd = d->wake.fd, .events = POLLIN};
    uint64_t now_us = ps_now_us(&d->clock);
    struct rt_event e;
    bool any = false;

    while (rt_fleet_poll(d->f, 0, &e)) {
        on_event(d, &e, now_us);
        ps_free(e.tokens);
        ps_free(e.prompt_scores);
        any = true;
    }
    for (uint32_t i = 0; i < d->n_streams; i++) {
        struct stream *s = &d->streams[i];

        if (!s->used && more)
            start_stream(d, s, now_us);
        if (s->used && !s->in_flight && now_us >= s->retry_us)
            dispatch(d, s, now_us);
        if (s->used && now_us - s->progress_us > STUCK_US) {
            wrong(d, s, "stuck");
            s->progress_us = now_us;
        }
        if (s->used)
            maybe_cancel(d, s);
    }
    atomic_store(&d->table->n_open, d->n_open);
    ps_wake_arm(&d->wake);
    if (!any)
        poll(&p, 1, 5);
    ps_wake_clear(&d->wake);
}

struct wire_drive *wire_drive_start(const struct wire_drive_conf *c, struct ps_buf *err)
{
    struct wire_drive *d = ps_calloc(1, sizeof(*d));
    struct rt_fleet_conf conf = {
        .bind_host = "127.0.0.1",
        .tok_port = c->port,
        .n_loops = 1,
        .n_events = 256, /* small on purpose: a full ring is a fault too */
        .curve_secret_file = c->secret_file,
        .curve_allow_file = c->allow_file,
        .inject = c->inject,
    };

    PS_ASSERT(c->n_streams <= WIRE_STREAMS_MAX);
    ps_clock_real(&d->clock);
    ps_rng_seed(&d->rng, c->seed);
    d->n_streams = c->n_streams;
    d->n_long = c->n_long;
    PS_ASSERT(ps_wake_init(&d->wake) == 0);
    if (rt_fleet_create(&d->f, &conf, &d->clock, err) != 0) {
        ps_wake_fini(&d->wake);
        ps_free(d);
        return NULL;
    }
    d->table = wire_table_open(c->table_path);
    ps_random_bytes(&d->table->tag, sizeof(d->table->tag));
    rt_fleet_attach(d->f, 0, &d->wake);
    PS_ASSERT(rt_fleet_start(d->f) == 0);
    return d;
}

struct rt_fleet *wire_drive_fleet(struct wire_drive *d)
{
    return d->f;
}

struct wire_table *wire_drive_table(struct wire_drive *d)
{
    return d->table;
}

uint32_t wire_drive_n_open(const struct wire_drive *d)
{
    return d->n_open;
}

void wire_drive_describe(const struct wire_drive *d)
{
    for (uint32_t i = 0; i < d->n_streams; i++) {
        const struct stream *s = &d->streams[i];

        if (s->used)
            fprintf(stderr,
                    "OPEN req=%llx attempt=%u in_flight=%d accepted=%d have=%u/%u worker=%u\n",
                    (unsigned long long)s->req, s->attempt, s->in_flight, s->accepted, s->n_have,
                    s->n_total, s->worker);
    }
}

uint32_t wire_drive_n_live(const struct wire_drive *d)
{
    uint32_t n = 0;
    struct rt_worker w;

    for (uint32_t i = 0; i < rt_fleet_n_slots(d->f); i++)
        n += rt_fleet_worker(d->f, i, &w) && w.state == RT_W_LIVE;
    return n;
}

bool wire_drive_unreserved(const struct wire_drive *d)
{
    struct rt_worker w;

    for (uint32_t i = 0; i < rt_fleet_n_slots(d->f); i++) {
        if (rt_fleet_worker(d->f, i, &w) && (w.resv_tok != 0 || w.resv_req != 0))
            return false;
    }
    return true;
}

void wire_drive_stop(struct wire_drive *d)
{
    rt_fleet_stop(d->f);
    rt_fleet_destroy(d->f);
    ps_wake_fini(&d->wake);
    ps_free(d);
}
