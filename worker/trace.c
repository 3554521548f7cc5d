#include "worker/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"
#include "common/ring.h"

enum {
    RING_EVENTS = 1 << 15, /* 2 MiB: what a busy scheduler makes while the disk sleeps a second */
    FLUSH_MS = 20,
    WRITE_BYTES = 1 << 18, /* text that is gathered for one write */
    EVENT_BYTES_MAX = 512, /* of text */
};

enum kind { EV_STEP, EV_OPEN, EV_BEGIN, EV_END, EV_FIRST, EV_LOAD };

struct event {
    uint64_t ts_us, id;
    union {
        struct {
            struct wk_step_work work;
            uint32_t dur_us, step_us, n_fetching, tick_us, store_us;
        } step;
        struct {
            uint64_t req;
            uint32_t attempt, n_prompt, n_done;
        } open;
        struct {
            uint32_t n_running, n_waiting, n_suspended;
            uint64_t n_free, n_evictable, n_pinned;
        } load;
    };
    uint8_t kind, phase;
};

struct wk_trace {
    const struct ps_clock *clock;
    struct ps_ring *ring;
    _Atomic bool stopped; /* the writer takes nothing more */

    /* The caller's thread. */
    uint64_t n_dropped, step_end_us, step_begin_us;
    struct event last_load;

    /* The writer's. */
    pthread_t thread;
    struct ps_wake quit;
    struct ps_buf text;
    uint64_t n_bytes, max_bytes, n_events;
    int fd;
};

static const char *const phase_names[WK_PHASE_N] = {
    "none", "queued", "fetch", "prefill", "decode", "suspended",
};

/* ---- text ---- */

static void add_open(struct ps_buf *b, const struct event *e, unsigned long long id,
                     unsigned long long ts)
{
    ps_buf_addf(b,
                ",\n{\"ph\":\"X\",\"cat\":\"req\",\"name\":\"request %llu\",\"pid\":1,\"tid\":2,"
                "\"ts\":%llu,\"dur\":1,\"args\":{\"id\":%llu,\"req\":\"%llx\",\"attempt\":%u,"
                "\"prompt\":%u,\"done\":%u}}",
                id, ts, id, (unsigned long long)e->open.req, e->open.attempt, e->open.n_prompt,
                e->open.n_done);
    ps_buf_addf(b,
                ",\n{\"ph\":\"s\",\"cat\":\"first\",\"name\":\"first token\",\"id\":%llu,"
                "\"pid\":1,\"tid\":2,\"ts\":%llu}",
                id, ts);
}

static void add_step(struct ps_buf *b, const struct event *e, unsigned long long id,
                     unsigned long long ts)
{
    const struct wk_step_work *w = &e->step.work;

    ps_buf_addf(b,
                ",\n{\"ph\":\"X\",\"cat\":\"step\",\"name\":\"step\",\"pid\":1,\"tid\":1,"
                "\"ts\":%llu,\"dur\":%u,\"args\":{\"ticket\":%llu,\"us\":%u,\"rows\":%u,"
                "\"decode\":%u,\"prefill\":%u,\"kv\":%llu,\"pairs\":%llu,\"fetching\":%u,"
                "\"tick_us\":%u,\"store_us\":%u}}",
                ts, e->step.dur_us, id, e->step.step_us, w->n_row, w->n_row - w->n_prompt,
                w->n_prefill, (unsigned long long)w->n_kv, (unsigned long long)w->n_pair,
                e->step.n_fetching, e->step.tick_us, e->step.store_us);
}

static void add_load(struct ps_buf *b, const struct event *e, unsigned long long ts)
{
    ps_buf_addf(b,
                ",\n{\"ph\":\"C\",\"name\":\"requests\",\"pid\":1,\"ts\":%llu,\"args\":{"
                "\"running\":%u,\"waiting\":%u,\"suspended\":%u}}",
                ts, e->load.n_running, e->load.n_waiting, e->load.n_suspended);
    ps_buf_addf(b,
                ",\n{\"ph\":\"C\",\"name\":\"pages\",\"pid\":1,\"ts\":%llu,\"args\":{"
                "\"pinned\":%llu,\"evictable\":%llu,\"free\":%llu}}",
                ts, (unsigned long long)e->load.n_pinned, (unsigned long long)e->load.n_evictable,
                (unsigned long long)e->load.n_free);
}

static void add_event(struct ps_buf *b, const struct event *e)
{
    unsigned long long ts = e->ts_us, id = e->id;

    switch ((enum kind)e->kind) {
    case EV_STEP:
        add_step(b, e, id, ts);
        return;
    case EV_OPEN:
        add_open(b, e, id, ts);
        return;
    case EV_BEGIN:
    case EV_END:
        ps_buf_addf(b,
                    ",\n{\"ph\":\"%c\",\"cat\":\"req\",\"name\":\"%s\",\"id\":%llu,\"pid\":1,"
                    "\"tid\":2,\"ts\":%llu,\"args\":{\"id\":%llu}}",
                    e->kind == EV_BEGIN ? 'b' : 'e', phase_names[e->phase], id, ts, id);
        return;
    case EV_FIRST: /* ends in the slice of the step that brought it */
        ps_buf_addf(b,
                    ",\n{\"ph\":\"f\",\"bp\":\"e\",\"cat\":\"first\",\"name\":\"first token\","
                    "\"id\":%llu,\"pid\":1,\"tid\":1,\"ts\":%llu}",
                    id, ts);
        return;
    case EV_LOAD:
        add_load(b, e, ts);
        return;
    }
}

static void add_head(struct ps_buf *b)
{
    static const char *const tracks[] = {"executor", "scheduler"};

    ps_buf_add_str(b, "[\n{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,"
                      "\"args\":{\"name\":\"penstock-worker\"}}");
    for (uint32_t i = 0; i < PS_ARRAY_LEN(tracks); i++)
        ps_buf_addf(b,
                    ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":%u,"
                    "\"args\":{\"name\":\"%s\"}}",
                    i + 1, tracks[i]);
}

/* ---- the writer ---- */

static void stop_writing(struct wk_trace *t, const char *why)
{
    atomic_store(&t->stopped, true);
    ps_warn("the trace stops", "why=\"%s\" bytes=%llu events=%llu", why,
            (unsigned long long)t->n_bytes, (unsigned long long)t->n_events);
}

/* Whole events only, so the file is valid after each write. */
static void write_text(struct wk_trace *t)
{
    while (t->text.len > 0 && !atomic_load(&t->stopped)) {
        ssize_t n = write(t->fd, t->text.data, t->text.len);

        if (n == 0 || (n < 0 && errno != EINTR)) {
            stop_writing(t, n == 0 ? "nothing can be written" : strerror(errno));
        } else if (n > 0) {
            t->n_bytes += (uint64_t)n;
            ps_buf_consume(&t->text, (size_t)n);
        }
    }
    ps_buf_clear(&t->text);
}

static void drain(struct wk_trace *t)
{
    struct event e;

    while (ps_ring_pop(t->ring, &e) == PS_RING_OK) {
        if (atomic_load(&t->stopped))
            continue;
        if (t->n_bytes + t->text.len + EVENT_BYTES_MAX > t->max_bytes) {
            write_text(t);
            if (!atomic_load(&t->stopped))
                stop_writing(t, "size limit");
            continue;
        }
        add_event(&t->text, &e);
        t->n_events++;
        if (t->text.len >= WRITE_BYTES)
            write_text(t);
    }
    write_text(t);
}

static void *thread_main(void *ud)
{
    struct wk_trace *t = ud;
    struct pollfd quit = {.fd = t->quit.fd, .events = POLLIN};

    (void)prctl(PR_SET_NAME, "trace");
    while (poll(&quit, 1, FLUSH_MS) <= 0)
        drain(t);
    drain(t);
    return NULL;
}

int wk_trace_create(struct wk_trace **out, const char *path, uint64_t max_bytes,
                    const struct ps_clock *clock, struct ps_buf *err)
{
    struct wk_trace *t = ps_calloc(1, sizeof(*t));
    int r = 0;

    t->clock = clock;
    t->max_bytes = max_bytes;
    t->ring = ps_ring_create(RING_EVENTS, sizeof(struct event));
    t->quit.fd = -1;
    t->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (t->fd < 0)
        r = PS_FAULT(-errno);
    if (r == 0)
        r = ps_wake_init(&t->quit);
    if (r == 0) {
        ps_wake_arm(&t->quit); /* the writer sleeps on it from the start */
        add_head(&t->text);
        write_text(t);
        r = -pthread_create(&t->thread, NULL, thread_main, t);
    }
    if (r == 0) {
        *out = t;
        return 0;
    }
    ps_buf_addf(err, "%s: %s", path, strerror(-r));
    if (t->quit.fd >= 0)
        ps_wake_fini(&t->quit);
    if (t->fd >= 0)
        (void)close(t->fd);
    ps_buf_fini(&t->text);
    ps_ring_destroy(t->ring);
    ps_free(t);
    return r;
}

void wk_trace_destroy(struct wk_trace *t)
{
    static const char end[] = "\n]\n";

    if (t == NULL)
        return;
    ps_wake_ring(&t->quit);
    (void)pthread_join(t->thread, NULL);
    if (write(t->fd, end, sizeof(end) - 1) != (ssize_t)sizeof(end) - 1)
        ps_warn("the trace lacks its end", "why=\"%s\"", strerror(errno));
    if (t->n_dropped > 0)
        ps_warn("the trace has gaps", "dropped=%llu", (unsigned long long)t->n_dropped);
    (void)close(t->fd);
    ps_wake_fini(&t->quit);
    ps_buf_fini(&t->text);
    ps_ring_destroy(t->ring);
    ps_free(t);
}

/* ---- the caller's side ---- */

static void push(struct wk_trace *t, const struct event *e)
{
    if (atomic_load_explicit(&t->stopped, memory_order_relaxed))
        return;
    t->n_dropped += ps_ring_push(t->ring, e) != PS_RING_OK;
}

void wk_trace_open(struct wk_trace *t, uint64_t id, const struct pb_submit *s)
{
    struct event e = {.kind = EV_OPEN, .ts_us = ps_now_us(t->clock), .id = id};

    e.open.req = s->req;
    e.open.attempt = s->attempt;
    e.open.n_prompt = s->n_prompt;
    e.open.n_done = s->n_done;
    push(t, &e);
}

void wk_trace_phase(struct wk_trace *t, uint64_t id, uint8_t *phase, enum wk_phase to)
{
    struct event e = {.ts_us = ps_now_us(t->clock), .id = id};

    PS_ASSERT(to < WK_PHASE_N && *phase < WK_PHASE_N);
    if (*phase == to)
        return;
    if (*phase != WK_PHASE_NONE) {
        e.kind = EV_END;
        e.phase = *phase;
        push(t, &e);
    }
    if (to != WK_PHASE_NONE) {
        e.kind = EV_BEGIN;
        e.phase = (uint8_t)to;
        push(t, &e);
    }
    *phase = (uint8_t)to;
}

/* Slices of one track must not overlap, so a step begins where the one before it ended. */
void wk_trace_step(struct wk_trace *t, const struct wk_trace_step *s)
{
    uint64_t now = ps_now_us(t->clock);
    struct event e = {.kind = EV_STEP, .id = s->ticket};

    e.ts_us = ps_max_u64(t->step_end_us, now - ps_min_u64(now, s->step_us));
    e.step.work = s->work;
    e.step.dur_us = (uint32_t)ps_min_u64(now - ps_min_u64(now, e.ts_us), UINT32_MAX);
    e.step.step_us = s->step_us;
    e.step.n_fetching = s->n_fetching;
    e.step.tick_us = s->tick_us;
    e.step.store_us = s->store_us;
    push(t, &e);
    t->step_begin_us = e.ts_us;
    t->step_end_us = now;
}

void wk_trace_first_token(struct wk_trace *t, uint64_t id)
{
    struct event e = {.kind = EV_FIRST, .ts_us = t->step_begin_us, .id = id};

    push(t, &e);
}

void wk_trace_load(struct wk_trace *t, const struct pb_load *l)
{
    struct event e;

    memset(&e, 0, sizeof(e)); /* it is compared */
    e.kind = EV_LOAD;
    e.load.n_running = l->n_running;
    e.load.n_waiting = l->n_waiting;
    e.load.n_suspended = l->n_suspended;
    e.load.n_free = l->group[0].n_free;
    e.load.n_evictable = l->group[0].n_evictable;
    e.load.n_pinned = l->group[0].n_pinned;
    if (memcmp(&e, &t->last_load, sizeof(e)) == 0)
        return;
    t->last_load = e;
    e.ts_us = ps_now_us(t->clock);
    push(t, &e);
}

uint64_t wk_trace_n_dropped(const struct wk_trace *t)
{
    return t->n_dropped;
}
