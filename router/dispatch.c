/*
 * One loop's generations: queue, placement, dispatch, moves, ends.
 *
 * Life of a generation. The only writer is gen_goto().
 *
 *   QUEUED -> SENT -> STREAM -> DONE
 *     ^  |      |       |  |      ^
 *     |  |      |       |  +------+
 *     |  +------|-------|---------+   refused, timed out, cancelled
 *     |         |       v
 *     +---------+     MOVING -> SENT  worker lost after tokens were sent: keeps its tokens and its place
 *
 * A cancelled or finished generation is freed at once; events that still arrive for its id find an
 * empty slot or another generation and are dropped. MOVING generations are dispatched before QUEUED ones.
 */

#include <stdatomic.h>
#include <string.h>

#include "common/log.h"
#include "common/model/block.h"
#include "router/conf_def.h"
#include "router/gen.h"
#include "router/place/place.h"
#include "router/router.h"
#include "router/stats.h"

enum gen_state { GEN_QUEUED, GEN_SENT, GEN_STREAM, GEN_MOVING, GEN_DONE };

enum { MAX_GENS = 1 << 16, QUEUE_TICK_MS = 20, MAX_TOKENS_KEPT = 1 << 24 };

struct rt_gen {
    struct rt_loop *loop;
    struct rt_gen_sink sink;
    void *ud;
    uint64_t id;
    enum gen_state state;
    struct rt_gen_spec spec; /* its pointers are owned by this generation */
    uint32_t n_own_stops;    /* of spec.stop_ids, those the client named; EOS ids follow */
    uint32_t *out_ids;       /* tokens of the answer so far */
    uint32_t n_out, cap_out;
    uint32_t attempt, worker, n_moves;
    /* Of the worker it runs on; arith_id 0 when that one is not exact. */
    uint64_t space_id, arith_id;
    struct rt_place_req place;
    uint64_t start_us, sent_us, lost_us;
    struct rt_gen *prev, *next; /* queue links */
};

struct queue {
    struct rt_gen *head, *tail;
    uint32_t n;
    uint64_t n_bytes;
};

struct cancel {
    uint64_t req;
    uint32_t attempt;
};

struct rt_gens {
    struct rt_gen **slots; /* by RT_REQ_SLOT */
    uint32_t *free_slots;
    uint32_t n_free, next_generation;
    struct queue queued, moving;
    struct ps_timer *timer; /* runs while something is queued */
    bool timer_on;
    struct cancel *cancels; /* that did not fit the ring yet */
    uint32_t n_cancels, cap_cancels;
    _Atomic uint32_t n_running, n_queued;
};

static void gen_goto(struct rt_gen *g, enum gen_state to)
{
    static const uint8_t allowed[] = {
        [GEN_QUEUED] = 1 << GEN_SENT | 1 << GEN_DONE,
        [GEN_SENT] = 1 << GEN_STREAM | 1 << GEN_QUEUED | 1 << GEN_MOVING | 1 << GEN_DONE,
        [GEN_STREAM] = 1 << GEN_MOVING | 1 << GEN_DONE,
        [GEN_MOVING] = 1 << GEN_SENT | 1 << GEN_DONE,
        [GEN_DONE] = 0,
    };

    PS_ASSERT((allowed[g->state] >> to & 1) != 0);
    g->state = to;
}

static void queue_add(struct queue *q, struct rt_gen *g)
{
    struct rt_gen *after = q->tail;

    /* By priority (lower first), then in order of arrival; almost always this is the tail. */
    while (after != NULL && after->spec.priority > g->spec.priority)
        after = after->prev;
    g->prev = after;
    g->next = after != NULL ? after->next : q->head;
    *(g->next != NULL ? &g->next->prev : &q->tail) = g;
    *(after != NULL ? &after->next : &q->head) = g;
    q->n++;
    q->n_bytes += g->spec.n_prompt * sizeof(uint32_t);
}

static void queue_del(struct queue *q, struct rt_gen *g)
{
    PS_ASSERT(q->n > 0);
    *(g->prev != NULL ? &g->prev->next : &q->head) = g->next;
    *(g->next != NULL ? &g->next->prev : &q->tail) = g->prev;
    g->prev = g->next = NULL;
    q->n--;
    q->n_bytes -= g->spec.n_prompt * sizeof(uint32_t);
}

static struct queue *queue_of(struct rt_gen *g)
{
    struct rt_gens *gs = g->loop->gens;

    return g->state == GEN_QUEUED ? &gs->queued : g->state == GEN_MOVING ? &gs->moving : NULL;
}

static void publish_counts(struct rt_gens *gs)
{
    uint32_t n = MAX_GENS - gs->n_free, waiting = gs->queued.n + gs->moving.n;

    gs->n_running = n - waiting;
    gs->n_queued = waiting;
}

/* Frees the generation; the caller has told its sink, or was told not to. */
static void gen_free(struct rt_gen *g)
{
    struct rt_gens *gs = g->loop->gens;
    struct queue *q = queue_of(g);
    uint32_t slot = RT_REQ_SLOT(g->id);

    if (q != NULL)
        queue_del(q, g);
    gen_goto(g, GEN_DONE);
    gs->slots[slot] = NULL;
    gs->free_slots[gs->n_free++] = slot;
    ps_free((void *)(uintptr_t)g->spec.ids);
    ps_free((void *)(uintptr_t)g->spec.stop_ids);
    ps_free((void *)(uintptr_t)g->spec.bias_ids);
    ps_free((void *)(uintptr_t)g->spec.bias);
    ps_free((void *)(uintptr_t)g->spec.cuts);
    ps_free(g->out_ids);
    ps_free(g);
    publish_counts(gs);
}

static void gen_fail(struct rt_gen *g, const struct rt_fail *f)
{
    struct rt_gen_sink sink = g->sink;

    sink.on_failed(g, f, g->ud);
    gen_free(g);
}

static void wake_later(struct rt_loop *l)
{
    if (!l->gens->timer_on) {
        l->gens->timer_on = true;
        ps_timer_start(l->gens->timer, QUEUE_TICK_MS, QUEUE_TICK_MS);
    }
}

static void *copy(const void *p, size_t n_bytes)
{
    void *q;

    if (n_bytes == 0)
        return NULL;
    q = ps_alloc(n_bytes);
    memcpy(q, p, n_bytes);
    return q;
}

static bool admit_ok(struct rt_loop *l, const struct rt_gen_spec *spec, struct rt_fail *f)
{
    const struct rt_conf *conf = l->router->conf;
    struct rt_gens *gs = l->gens;
    /* Each loop takes its share; with one loop that is the configured number. */
    uint64_t max = ps_div_up_u64((uint64_t)conf->max_queue, l->router->n_loops);
    uint64_t max_bytes = ps_div_up_u64((uint64_t)conf->max_queue_bytes, l->router->n_loops);
    const struct rt_place_req any = {0};
    uint32_t slot;

    if (atomic_load(&l->router->draining) >= RT_DRAIN_REFUSE) {
        rt_fail_set(f, RT_E37_DRAINING, NULL, "The server is shutting down");
        return false;
    }
    if (rt_place_pick(l->router->fleet, &any, &slot) == RT_PLACE_E_NONE) {
        rt_fail_set(f, RT_E31_NO_WORKER, NULL, "No worker is available for this model");
        return false;
    }
    if (gs->queued.n >= max || gs->queued.n_bytes + spec->n_prompt * sizeof(uint32_t) > max_bytes ||
        gs->n_free == 0) {
        rt_fail_set(f, RT_E27_QUEUE_FULL, NULL, "The queue is full; try again later");
        f->retry_after_s = (uint16_t)(1 + gs->queued.n / 256 > 30 ? 30 : 1 + gs->queued.n / 256);
        ps_counter_add(l->router->metrics->refused_queue_full, 1);
        return false;
    }
    return true;
}

/* The worker knows the EOS ids of the model's configuration; the tokenizer may name one more. */
static void take_stop_ids(struct rt_gen *g, const struct rt_gen_spec *spec)
{
    const struct rt_model *m = &g->loop->router->model;
    uint32_t n_more = spec->ignore_eos ? 0 : m->n_eos, n = spec->n_stop_ids;
    uint32_t *ids = ps_calloc((size_t)n + n_more + 1, sizeof(ids[0]));

    if (n > 0)
        memcpy(ids, spec->stop_ids, n * sizeof(ids[0]));
    if (n_more > 0)
        memcpy(ids + n, m->eos, n_more * sizeof(ids[0]));
    g->spec.stop_ids = ids;
    g->spec.n_stop_ids = n + n_more;
    g->n_own_stops = n;
}

static bool has_id(const uint32_t *ids, uint32_t n, uint32_t id)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

/* A stop id that the client did not name is the model's own end. */
static enum pb_finish finish_of(const struct rt_gen *g, enum pb_finish f, uint32_t id)
{
    if (f == PB_FIN_STOP_ID && !has_id(g->spec.stop_ids, g->n_own_stops, id))
        return PB_FIN_STOP_EOS;
    return f;
}

struct rt_gen *rt_gen_start(struct rt_loop *l, const struct rt_gen_spec *spec,
                            const struct rt_gen_sink *sink, void *ud, struct rt_fail *f)
{
    struct rt_gens *gs = l->gens;
    struct rt_gen *g;
    uint32_t slot;

    PS_ASSERT(spec->n_prompt > 0 && sink->on_tokens != NULL && sink->on_finished != NULL &&
              sink->on_failed != NULL);
    if (!admit_ok(l, spec, f))
        return NULL;
    g = ps_calloc(1, sizeof(*g));
    slot = gs->free_slots[--gs->n_free];
    gs->slots[slot] = g;
    g->loop = l;
    g->sink = *sink;
    g->ud = ud;
    g->id = RT_REQ_ID(l->index, ++gs->next_generation, slot);
    g->state = GEN_QUEUED;
    g->spec = *spec;
    g->spec.ids = copy(spec->ids, spec->n_prompt * sizeof(uint32_t));
    take_stop_ids(g, spec);
    g->spec.bias_ids = copy(spec->bias_ids, spec->n_bias * sizeof(uint32_t));
    g->spec.bias = copy(spec->bias, spec->n_bias * sizeof(float));
    g->spec.cuts = copy(spec->cuts, spec->n_cuts * sizeof(uint32_t));
    g->place.key = rt_place_key(spec->salt, g->spec.ids, spec->n_prompt, spec->affinity);
    g->start_us = ps_now_us(l->router->clock);
    queue_add(&gs->queued, g);
    publish_counts(gs);
    return g; /* dispatched by this turn's tick */
}

static void gen_finish(struct rt_gen *g, const struct rt_event *ev)
{
    struct rt_gen_end e = {.finish = finish_of(g, ev->finish, ev->matched_id),
                           .matched_id = ev->matched_id,
                           .n_total = g->n_out,
                           .n_cached = ev->n_cached,
                           .n_prompt_scores = ev->n_prompt_scores,
                           .prompt_scores = ev->prompt_scores,
                           .queued_us = g->sent_us - g->start_us};

    g->sink.on_finished(g, &e, g->ud);
    gen_free(g);
}

static void push_cancel(struct rt_loop *l, uint64_t req, uint32_t attempt)
{
    struct rt_gens *gs = l->gens;

    if (gs->n_cancels == 0 &&
        rt_fleet_cancel(l->router->fleet, l->index, req, attempt) == RT_FLEET_OK)
        return;
    if (gs->n_cancels == gs->cap_cancels) { /* bounded by the generations that were open */
        gs->cap_cancels = gs->cap_cancels != 0 ? 2 * gs->cap_cancels : 64;
        gs->cancels = ps_realloc(gs->cancels, gs->cap_cancels * sizeof(gs->cancels[0]));
    }
    gs->cancels[gs->n_cancels++] = (struct cancel){req, attempt};
    wake_later(l);
}

static void flush_cancels(struct rt_loop *l)
{
    struct rt_gens *gs = l->gens;
    uint32_t i;

    for (i = 0; i < gs->n_cancels; i++) {
        if (rt_fleet_cancel(l->router->fleet, l->index, gs->cancels[i].req,
                            gs->cancels[i].attempt) != RT_FLEET_OK)
            break;
    }
    gs->n_cancels -= i;
    if (i > 0 && gs->n_cancels > 0)
        memmove(gs->cancels, gs->cancels + i, gs->n_cancels * sizeof(gs->cancels[0]));
}

void rt_gen_cancel(struct rt_gen *g)
{
    if (g->state == GEN_SENT || g->state == GEN_STREAM)
        push_cancel(g->loop, g->id, g->attempt);
    gen_free(g);
}

static struct pb_submit *make_submit(const struct rt_gen *g, const struct rt_worker *w)
{
    const struct rt_gen_spec *s = &g->spec;
    struct pb_submit *p =
        pb_submit_create(s->n_prompt + g->n_out, s->n_stop_ids, s->n_bias, s->n_cuts);

    p->req = g->id;
    p->attempt = g->attempt;
    p->space_id = w->info.space_id;
    p->arith_id = w->info.arith_id;
    p->chain_seed = ps_block_seed(w->info.space_id, 0, s->salt);
    p->priority = s->priority;
    p->n_prompt = s->n_prompt;
    p->n_done = g->n_out;
    p->max_tokens = s->max_tokens;
    p->min_tokens = s->min_tokens;
    p->ignore_eos = s->ignore_eos;
    p->samp = s->samp;
    memcpy(p->ids, s->ids, s->n_prompt * sizeof(uint32_t));
    if (g->n_out > 0)
        memcpy(p->ids + s->n_prompt, g->out_ids, g->n_out * sizeof(uint32_t));
    if (s->n_stop_ids > 0)
        memcpy(p->stop_ids, s->stop_ids, s->n_stop_ids * sizeof(uint32_t));
    if (s->n_bias > 0) {
        memcpy(p->bias_ids, s->bias_ids, s->n_bias * sizeof(uint32_t));
        memcpy(p->bias, s->bias, s->n_bias * sizeof(float));
    }
    if (s->n_cuts > 0)
        memcpy(p->cuts, s->cuts, s->n_cuts * sizeof(uint32_t));
    return p;
}

enum dispatched { DISPATCHED, NOT_NOW, NOBODY };

static enum dispatched dispatch(struct rt_gen *g)
{
    struct rt_loop *l = g->loop;
    struct rt_fleet *fleet = l->router->fleet;
    int64_t n_tok = (int64_t)g->spec.n_prompt + g->n_out;
    struct pb_submit *p;
    struct rt_worker w;
    uint32_t slot;
    int r;

    r = rt_place_pick(fleet, &g->place, &slot);
    if (r != RT_PLACE_OK)
        return r == RT_PLACE_E_NONE ? NOBODY : NOT_NOW;
    if (!rt_fleet_worker(fleet, slot, &w) || w.state != RT_W_LIVE)
        return NOT_NOW;
    g->attempt++;
    p = make_submit(g, &w);
    (void)rt_fleet_reserve(fleet, slot, n_tok);
    if (rt_fleet_submit(fleet, l->index, slot, p, n_tok) != RT_FLEET_OK) {
        rt_fleet_unreserve(fleet, slot, n_tok);
        pb_submit_destroy(p);
        g->attempt--;
        return NOT_NOW;
    }
    queue_del(queue_of(g), g);
    gen_goto(g, GEN_SENT);
    g->worker = slot;
    g->space_id = w.info.space_id;
    g->arith_id = w.info.exact ? w.info.arith_id : 0;
    if (g->sent_us == 0)
        g->sent_us = ps_now_us(l->router->clock);
    publish_counts(l->gens);
    return DISPATCHED;
}

static void avoid(struct rt_gen *g, uint32_t worker)
{
    uint32_t n = PS_ARRAY_LEN(g->place.avoid);

    if (g->place.n_avoid == n) { /* the oldest grudge is forgotten */
        memmove(g->place.avoid, g->place.avoid + 1, (n - 1) * sizeof(g->place.avoid[0]));
        g->place.n_avoid--;
    }
    g->place.avoid[g->place.n_avoid++] = worker;
}

/*
 * Its worker is lost, but the answer may be complete: only Finished was lost on the way. Then it ends
 * here. (Never when prompt scores are wanted: those come with Finished.)
 */
static bool finish_if_complete(struct rt_gen *g)
{
    const struct rt_model *m = &g->loop->router->model;
    struct rt_event ev = {.kind = RT_EV_FINISHED};
    uint32_t last;

    if (g->n_out == 0 || g->spec.samp.n_prompt_top >= 0)
        return false;
    last = g->out_ids[g->n_out - 1];
    ev.matched_id = last;
    if (has_id(g->spec.stop_ids, g->spec.n_stop_ids, last))
        ev.finish = PB_FIN_STOP_ID;
    if (ev.finish == 0 && g->n_out >= g->spec.max_tokens)
        ev.finish = PB_FIN_LENGTH;
    if (ev.finish == 0 && g->spec.n_prompt + g->n_out >= m->context)
        ev.finish = PB_FIN_CONTEXT;
    if (ev.finish == 0)
        return false;
    gen_finish(g, &ev);
    return true;
}

static void on_lost(struct rt_gen *g)
{
    struct rt_loop *l = g->loop;
    struct rt_fail f;

    if (finish_if_complete(g))
        return;
    if (++g->n_moves > (uint32_t)l->router->conf->max_moves) {
        rt_fail_set(&f, RT_E32_WORKER_LOST, NULL, "The worker was lost %u times", g->n_moves);
        gen_fail(g, &f);
        return;
    }
    ps_counter_add(l->router->metrics->moves, 1);
    avoid(g, g->worker);
    g->lost_us = ps_now_us(l->router->clock);
    gen_goto(g, GEN_MOVING);
    queue_add(&l->gens->moving, g);
    publish_counts(l->gens);
    wake_later(l);
}

static void on_rejected(struct rt_gen *g, const struct rt_event *ev)
{
    struct rt_loop *l = g->loop;
    struct rt_fail f;

    if (ev->reject == PB_REJ_TOO_LONG) {
        rt_fail_set(&f, RT_E35_TOO_LONG_FOR_KV, NULL,
                    "The prompt and its answer need more cache memory than a worker has");
        gen_fail(g, &f);
    } else if (ev->reject == PB_REJ_BAD) {
        rt_fail_set(&f, RT_E34_ENGINE, NULL, "The worker refused the request");
        ps_error("worker refused a request as malformed", "worker=%u", ev->worker);
        gen_fail(g, &f);
    } else { /* full or draining: somebody else, or later */
        avoid(g, ev->worker);
        gen_goto(g, g->n_out > 0 ? GEN_MOVING : GEN_QUEUED);
        g->lost_us = ps_now_us(l->router->clock);
        queue_add(queue_of(g), g);
        publish_counts(l->gens);
        wake_later(l);
    }
}

static void on_tokens(struct rt_gen *g, struct rt_event *ev)
{
    struct rt_tokens *t = ev->tokens;

    /* From the first token on only a worker that would have said the same may go on (G2). */
    g->place.space_id = g->space_id;
    g->place.arith_id = g->arith_id;
    PS_ASSERT(ev->first == g->n_out && g->n_out + t->n <= MAX_TOKENS_KEPT);
    if (g->n_out + t->n > g->cap_out) {
        g->cap_out = ps_max_u32(2 * g->cap_out, g->n_out + t->n + 16);
        g->out_ids = ps_realloc(g->out_ids, g->cap_out * sizeof(uint32_t));
    }
    memcpy(g->out_ids + g->n_out, t->ids, t->n * sizeof(uint32_t));
    g->n_out += t->n;
    if (g->state == GEN_SENT)
        gen_goto(g, GEN_STREAM);
    g->sink.on_tokens(g, ev->first, t->n, t->ids, t->logprobs,
                      g->ud); /* may cancel: g is not used after */
}

static void on_finished(struct rt_gen *g, const struct rt_event *ev)
{
    struct rt_fail f;

    PS_ASSERT(ev->n_total == g->n_out);
    if (ev->finish == PB_FIN_CANCELLED) { /* not by us: the worker thought this router was gone */
        on_lost(g);
    } else if (ev->finish == PB_FIN_NUMERICAL) {
        rt_fail_set(&f, RT_E36_NUMERICAL, NULL, "The model produced no finite probabilities");
        gen_fail(g, &f);
    } else if (ev->finish == PB_FIN_ERROR) {
        rt_fail_set(&f, RT_E34_ENGINE, NULL, "The worker failed on this request");
        gen_fail(g, &f);
    } else {
        gen_finish(g, ev);
    }
}

static void on_event(struct rt_loop *l, struct rt_event *ev)
{
    uint32_t slot = RT_REQ_SLOT(ev->req);
    struct rt_gen *g = ev->kind != RT_EV_FLEET && slot < MAX_GENS ? l->gens->slots[slot] : NULL;

    if (g != NULL && g->id == ev->req && g->attempt == ev->attempt &&
        (g->state == GEN_SENT || g->state == GEN_STREAM)) {
        switch (ev->kind) {
        case RT_EV_TOKENS:
            on_tokens(g, ev);
            break;
        case RT_EV_FINISHED:
            on_finished(g, ev);
            break;
        case RT_EV_REJECTED:
            on_rejected(g, ev);
            break;
        case RT_EV_LOST:
            on_lost(g);
            break;
        case RT_EV_ACCEPTED:
        case RT_EV_FLEET:
            break;
        }
    }
    ps_free(ev->tokens);
    ps_free(ev->prompt_scores);
}

/* Dispatches from the head until somebody has to wait. Moving generations go first: a client is watching. */
static void dispatch_queue(struct queue *q)
{
    while (q->head != NULL && dispatch(q->head) == DISPATCHED) {
    }
}

static void expire_queued(struct rt_loop *l, uint64_t now)
{
    const struct rt_conf *conf = l->router->conf;
    struct rt_gen *g, *next;
    struct rt_fail f;

    for (g = l->gens->queued.head; g != NULL; g = next) {
        next = g->next;
        if (now - g->start_us < (uint64_t)conf->queue_timeout_s * 1000000)
            continue;
        rt_fail_set(&f, RT_E28_QUEUE_TIMEOUT, NULL, "No worker was free within %ld s",
                    (long)conf->queue_timeout_s);
        gen_fail(g, &f);
    }
    for (g = l->gens->moving.head; g != NULL; g = next) {
        next = g->next;
        if (now - g->lost_us < (uint64_t)conf->move_wait_s * 1000000)
            continue;
        rt_fail_set(&f, RT_E32_WORKER_LOST, NULL,
                    "The worker was lost and no other was free within %ld s",
                    (long)conf->move_wait_s);
        gen_fail(g, &f);
    }
}

/* E29: no first token in time, wherever it is. */
static void expire_first_token(struct rt_loop *l, uint64_t now)
{
    uint64_t limit = (uint64_t)l->router->conf->request_timeout_s * 1000000;
    struct rt_fail f;
    uint32_t i;

    for (i = 0; limit > 0 && i < MAX_GENS; i++) {
        struct rt_gen *g = l->gens->slots[i];

        if (g == NULL || g->n_out > 0 || now - g->start_us < limit)
            continue;
        if (g->state == GEN_SENT)
            push_cancel(l, g->id, g->attempt);
        rt_fail_set(&f, RT_E29_DEADLINE, NULL, "No token within %ld s",
                    (long)l->router->conf->request_timeout_s);
        gen_fail(g, &f);
    }
}

static void on_timer(void *ud)
{
    struct rt_loop *l = ud;
    struct rt_gens *gs = l->gens;
    uint64_t now = ps_now_us(l->router->clock);

    expire_queued(l, now);
    expire_first_token(l, now);
    if (gs->queued.n + gs->moving.n + gs->n_cancels == 0 &&
        l->router->conf->request_timeout_s == 0) {
        gs->timer_on = false;
        ps_timer_stop(gs->timer);
    }
}

void rt_gens_tick(struct rt_loop *l)
{
    struct rt_gens *gs = l->gens;
    struct rt_event ev;

    flush_cancels(l);
    while (rt_fleet_poll(l->router->fleet, l->index, &ev))
        on_event(l, &ev);
    dispatch_queue(&gs->moving);
    if (gs->moving.head == NULL)
        dispatch_queue(&gs->queued);
    if (gs->queued.n + gs->moving.n > 0)
        wake_later(l);
}

void rt_gens_init(struct rt_loop *l)
{
    struct rt_gens *gs = ps_calloc(1, sizeof(*gs));
    uint32_t i;

    _Static_assert(MAX_GENS <= 1 << 24, "a slot fits a request id");
    gs->slots = ps_calloc(MAX_GENS, sizeof(gs->slots[0]));
    gs->free_slots = ps_calloc(MAX_GENS, sizeof(gs->free_slots[0]));
    for (i = 0; i < MAX_GENS; i++)
        gs->free_slots[gs->n_free++] = MAX_GENS - 1 - i;
    l->gens = gs;
    gs->timer = ps_timer_create(l->loop, on_timer, l);
    if (l->router->conf->request_timeout_s > 0)
        wake_later(l);
}

void rt_gens_fail_all(struct rt_loop *l, const struct rt_fail *f)
{
    uint32_t i;

    for (i = 0; i < MAX_GENS; i++) {
        struct rt_gen *g = l->gens->slots[i];

        if (g == NULL)
            continue;
        if (g->state == GEN_SENT || g->state == GEN_STREAM)
            push_cancel(l, g->id, g->attempt);
        gen_fail(g, f);
    }
}

void rt_gens_fini(struct rt_loop *l)
{
    struct rt_gens *gs = l->gens;
    struct rt_event ev;
    uint32_t i;

    if (gs == NULL)
        return;
    for (i = 0; i < MAX_GENS; i++) {
        if (gs->slots[i] != NULL)
            gen_free(gs->slots[i]);
    }
    while (rt_fleet_poll(l->router->fleet, l->index, &ev)) {
        ps_free(ev.tokens);
        ps_free(ev.prompt_scores);
    }
    ps_timer_destroy(gs->timer);
    ps_free(gs->slots);
    ps_free(gs->free_slots);
    ps_free(gs->cancels);
    ps_free(gs);
    l->gens = NULL;
}

uint32_t rt_gens_n_running(const struct rt_loop *l)
{
    return l->gens->n_running;
}

uint32_t rt_gens_n_queued(const struct rt_loop *l)
{
    return l->gens->n_queued;
}
