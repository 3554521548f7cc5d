#include "bench/agent/run.h"

#include <math.h>
#include <string.h>

#include "common/rng.h"

/* A session that still has turns: waiting in the heap, or running. */
struct runner {
    struct bn_call call;
    struct bn_session *session;
    uint32_t n_left, n_avoidable;
    uint64_t due_us, order; /* order breaks ties: first come, first served */
};

struct run {
    const struct bn_agent_conf *conf;
    struct bn_sessions *sessions;
    struct bn_answers *answers;
    struct bn_agent_result *res;
    struct bn_client *client;
    struct runner *runners, **heap; /* heap: by due_us, order; heap[0] is next */
    uint32_t n_heap;
    uint64_t order;
    struct ps_rng rng; /* think times */
};

static void turns_init(struct bn_turns *t)
{
    bn_sample_init(&t->ttft);
    bn_sample_init(&t->wait);
    bn_sample_init(&t->e2e);
}

static void turns_fini(struct bn_turns *t)
{
    bn_sample_fini(&t->ttft);
    bn_sample_fini(&t->wait);
    bn_sample_fini(&t->e2e);
}

void bn_agent_result_init(struct bn_agent_result *r)
{
    memset(r, 0, sizeof(*r));
    turns_init(&r->cold);
    turns_init(&r->warm);
}

void bn_agent_result_fini(struct bn_agent_result *r)
{
    turns_fini(&r->cold);
    turns_fini(&r->warm);
}

static bool before(const struct runner *a, const struct runner *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void heap_push(struct run *r, struct runner *x)
{
    uint32_t i = r->n_heap++;

    x->order = r->order++;
    for (; i > 0 && before(x, r->heap[(i - 1) / 2]); i = (i - 1) / 2)
        r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = x;
}

static struct runner *heap_pop(struct run *r)
{
    struct runner *top = r->heap[0], *x;
    uint32_t i = 0, k;

    PS_ASSERT(r->n_heap > 0);
    x = r->heap[--r->n_heap];
    for (; (k = 2 * i + 1) < r->n_heap; i = k) {
        if (k + 1 < r->n_heap && before(r->heap[k + 1], r->heap[k]))
            k++;
        if (!before(r->heap[k], x))
            break;
        r->heap[i] = r->heap[k];
    }
    r->heap[i] = x;
    return top;
}

static void count(struct run *r, const struct runner *x)
{
    const struct bn_call *call = &x->call;
    struct bn_turns *t = x->session->turn == 0 ? &r->res->cold : &r->res->warm;

    bn_sample_add(&t->ttft, call->first_us - call->from_us);
    bn_sample_add(&t->wait, call->from_us - x->due_us);
    bn_sample_add(&t->e2e, call->last_us - call->from_us);
    t->n_prompt += call->n_prompt;
    t->n_cached += call->n_cached;
    t->n_output += call->n_output;
    t->n_avoidable += x->n_avoidable;
    t->n_avoided += ps_min_u64(call->n_cached, x->n_avoidable);
}

/* A turn is over: the session goes on after its think time, unless it failed or has no turn left. */
static void on_done(struct bn_call *call, void *ud)
{
    struct run *r = ud;
    struct runner *x = PS_CONTAINER(call, struct runner, call);
    struct bn_session *s = x->session;
    double think_us;

    bn_tally_add(&r->res->tally, call);
    ps_buf_fini(&call->body);
    if (call->error != BN_OK)
        return;
    count(r, x);
    if (r->answers != NULL)
        bn_answers_add(r->answers, s->number, s->turn, s->ids, s->n, call->ids, call->n_ids);
    bn_session_answered(r->sessions, s, call->ids, call->n_ids);
    if (--x->n_left == 0)
        return;
    think_us = -log(1 - ps_rng_unit(&r->rng)) * r->conf->think_s * 1e6;
    x->due_us = bn_now_us() + (uint64_t)think_us;
    heap_push(r, x);
}

static int send_turn(struct run *r, struct runner *x)
{
    const struct bn_agent_conf *conf = r->conf;
    struct bn_session *s = x->session;
    struct bn_call *call = &x->call;

    call->n_prompt = s->n;
    x->n_avoidable = bn_session_avoidable(r->sessions, s);
    bn_write_body(&call->body, &(struct bn_ask){.model = conf->model,
                                                .ids = s->ids,
                                                .n_ids = s->n,
                                                .n_output = call->n_output,
                                                .temperature = conf->temperature,
                                                .seed = (uint64_t)s->number * 65536 + s->turn,
                                                .with_ids = true});
    call->from_us = bn_now_us();
    return bn_client_send(r->client, call);
}

static int loop(struct run *r)
{
    uint32_t n_max = (uint32_t)r->conf->concurrency;
    uint64_t now, wait_us;
    int res = 0;

    while (res == 0 && (r->n_heap > 0 || bn_client_n_running(r->client) > 0)) {
        now = bn_now_us();
        while (res == 0 && r->n_heap > 0 && r->heap[0]->due_us <= now &&
               bn_client_n_running(r->client) < n_max)
            res = send_turn(r, heap_pop(r));
        wait_us = UINT64_MAX;
        if (r->n_heap > 0 && bn_client_n_running(r->client) < n_max)
            wait_us = r->heap[0]->due_us > now ? r->heap[0]->due_us - now : 0;
        if (res == 0)
            res = bn_client_poll(r->client, wait_us);
    }
    return res;
}

int bn_agent_run(const struct bn_agent_conf *conf, struct bn_sessions *sessions,
                 struct bn_answers *answers, struct bn_agent_result *out)
{
    struct run r = {.conf = conf, .sessions = sessions, .answers = answers, .res = out};
    const struct bn_client_conf cc = {.targets = conf->targets.items,
                                      .n_targets = conf->targets.n,
                                      .n_streams_max = (uint32_t)conf->concurrency,
                                      .timeout_us = (uint64_t)(conf->timeout_s * 1e6),
                                      .api_key = conf->api_key,
                                      .done = on_done,
                                      .ud = &r};
    uint64_t start_us = bn_now_us(), cpu_us = bn_thread_cpu_us();
    uint32_t n = sessions->conf.n;
    int res = bn_client_create(&r.client, &cc);

    if (res != BN_CLIENT_OK)
        return res;
    ps_rng_seed(&r.rng, bn_stream_seed(sessions->conf.vocab.seed, BN_STREAM_ARRIVAL, 0));
    r.runners = ps_calloc(n, sizeof(r.runners[0]));
    r.heap = ps_calloc(n, sizeof(r.heap[0]));
    for (uint32_t i = 0; i < n; i++) {
        struct runner *x = &r.runners[i];

        x->session = &sessions->v[i];
        x->n_left = (uint32_t)conf->turns;
        x->due_us = start_us;
        x->call.n_output = (uint32_t)conf->answer;
        x->call.with_ids = true;
        x->call.ids = ps_calloc(x->call.n_output, sizeof(x->call.ids[0]));
        heap_push(&r, x);
    }
    res = loop(&r);
    bn_client_destroy(r.client);
    for (uint32_t i = 0; i < n; i++) {
        out->n_history += sessions->v[i].n_known;
        ps_buf_fini(&r.runners[i].call.body);
        ps_free(r.runners[i].call.ids);
    }
    ps_free(r.runners);
    ps_free(r.heap);
    out->wall_us = bn_now_us() - start_us;
    out->cpu_us = bn_thread_cpu_us() - cpu_us;
    return res;
}
