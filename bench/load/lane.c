#include "bench/load/lane.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct slot {
    struct bn_call call;
    struct slot *next;
};

/* What all lanes share. */
struct run {
    const struct bn_plan *plan;
    bool warm;
    uint64_t n, start_us, end_us; /* no request is sent after end_us */
    _Atomic uint64_t next;        /* closed loop: the next request */
};

struct lane {
    struct run *run;
    uint64_t at, stride; /* open loop: this lane's next request */
    uint32_t n_slots;
    struct slot *slots, *free;
    struct bn_client *client;
    struct bn_result res;
    uint32_t *ids;
    size_t ids_cap;
    pthread_t thread;
    bool started;
    int r;
};

void bn_result_init(struct bn_result *r)
{
    memset(r, 0, sizeof(*r));
    bn_sample_init(&r->ttft);
    bn_sample_init(&r->gap);
    bn_sample_init(&r->tpot);
    bn_sample_init(&r->e2e);
    bn_sample_init(&r->late);
}

void bn_result_fini(struct bn_result *r)
{
    bn_sample_fini(&r->ttft);
    bn_sample_fini(&r->gap);
    bn_sample_fini(&r->tpot);
    bn_sample_fini(&r->e2e);
    bn_sample_fini(&r->late);
}

static void merge(struct bn_result *to, const struct bn_result *from)
{
    bn_sample_merge(&to->ttft, &from->ttft);
    bn_sample_merge(&to->gap, &from->gap);
    bn_sample_merge(&to->tpot, &from->tpot);
    bn_sample_merge(&to->e2e, &from->e2e);
    bn_sample_merge(&to->late, &from->late);
    to->n_good += from->n_good;
    to->n_prompt += from->n_prompt;
    to->n_output += from->n_output;
    to->n_cached += from->n_cached;
    bn_tally_merge(&to->tally, &from->tally);
    to->cpu_us += from->cpu_us;
    to->cpu_us_max = ps_max_u64(to->cpu_us_max, from->cpu_us);
}

static void on_done(struct bn_call *call, void *ud)
{
    struct lane *l = ud;
    struct slot *s = PS_CONTAINER(call, struct slot, call);
    const struct bn_load_conf *conf = l->run->plan->conf;
    struct bn_result *r = &l->res;
    double tpot_us = 0;

    s->next = l->free;
    l->free = s;
    bn_tally_add(&r->tally, call);
    if (call->error != BN_OK)
        return;
    r->n_prompt += call->n_prompt;
    r->n_output += call->n_output;
    r->n_cached += call->n_cached;
    bn_sample_add(&r->ttft, call->first_us - call->from_us);
    bn_sample_add(&r->e2e, call->last_us - call->from_us);
    if (call->n_output > 1) {
        tpot_us = (double)(call->last_us - call->first_us) / (double)(call->n_output - 1);
        bn_sample_add(&r->tpot, (uint64_t)tpot_us);
    }
    if ((double)(call->first_us - call->from_us) <= conf->slo_ttft_ms * 1e3 &&
        tpot_us <= conf->slo_tpot_ms * 1e3)
        r->n_good++;
}

static bool is_open(const struct lane *l)
{
    return !l->run->warm && l->run->plan->due_us != NULL;
}

/* The next request this lane may send now; false: none, and *wait_us says how long. */
static bool take_next(struct lane *l, uint64_t now, uint64_t *i, uint64_t *from_us,
                      uint64_t *wait_us)
{
    struct run *run = l->run;

    if (is_open(l)) {
        if (l->at >= run->n)
            return false;
        *from_us = run->start_us + run->plan->due_us[l->at];
        if (*from_us > now) {
            *wait_us = *from_us - now;
            return false;
        }
        *i = l->at;
        l->at += l->stride;
        return true;
    }
    if (now >= run->end_us || atomic_load(&run->next) >= run->n)
        return false;
    *i = atomic_fetch_add(&run->next, 1);
    *from_us = now;
    return *i < run->n;
}

static bool is_over(const struct lane *l, uint64_t now)
{
    if (is_open(l))
        return l->at >= l->run->n;
    return now >= l->run->end_us || atomic_load(&l->run->next) >= l->run->n;
}

static int send(struct lane *l, uint64_t i, uint64_t from_us)
{
    const struct bn_plan *p = l->run->plan;
    struct slot *s = l->free;
    struct bn_call *call = &s->call;
    struct bn_shape shape;

    bn_plan_shape(p, i, &shape);
    if (l->ids_cap < shape.n_prompt) {
        l->ids_cap = shape.n_prompt;
        l->ids = ps_realloc(l->ids, l->ids_cap * sizeof(l->ids[0]));
    }
    bn_plan_ids(p, i, l->run->warm, l->ids);
    l->free = s->next;
    call->n_prompt = shape.n_prompt;
    call->n_output = shape.n_output;
    call->with_ids = p->conf->token_ids;
    call->gaps = &l->res.gap;
    bn_write_body(&call->body, &(struct bn_ask){.model = p->conf->model,
                                                .ids = l->ids,
                                                .n_ids = shape.n_prompt,
                                                .n_output = shape.n_output,
                                                .temperature = p->conf->temperature,
                                                .seed = i,
                                                .with_ids = call->with_ids});
    /* A closed loop asks when it can; the time to write the prompt down is the client's own. */
    call->from_us = is_open(l) ? from_us : bn_now_us();
    if (is_open(l))
        bn_sample_add(&l->res.late, bn_now_us() - from_us);
    return bn_client_send(l->client, call);
}

static void *lane_main(void *ud)
{
    struct lane *l = ud;
    const uint64_t cpu_us = bn_thread_cpu_us();
    uint64_t now, i, from_us, wait_us;

    while (l->r == 0) {
        wait_us = UINT64_MAX;
        while (l->r == 0 && l->free != NULL && take_next(l, bn_now_us(), &i, &from_us, &wait_us))
            l->r = send(l, i, from_us);
        now = bn_now_us();
        if (bn_client_n_running(l->client) == 0 && is_over(l, now))
            break;
        if (l->r == 0)
            l->r = bn_client_poll(l->client, wait_us);
    }
    l->res.cpu_us = bn_thread_cpu_us() - cpu_us;
    return NULL;
}

static int lane_open(struct lane *l, struct run *run, uint32_t number, uint32_t n_lanes)
{
    const struct bn_load_conf *conf = run->plan->conf;
    const struct bn_client_conf cc = {.targets = conf->targets.items,
                                      .n_targets = conf->targets.n,
                                      .n_streams_max = l->n_slots,
                                      .timeout_us = (uint64_t)(conf->timeout_s * 1e6),
                                      .api_key = conf->api_key,
                                      .done = on_done,
                                      .ud = l};

    l->run = run;
    l->at = number;
    l->stride = n_lanes;
    bn_result_init(&l->res);
    l->slots = ps_calloc(l->n_slots, sizeof(l->slots[0]));
    for (uint32_t i = 0; i < l->n_slots; i++) {
        l->slots[i].next = l->free;
        l->free = &l->slots[i];
    }
    return bn_client_create(&l->client, &cc);
}

static void lane_close(struct lane *l)
{
    bn_client_destroy(l->client);
    for (uint32_t i = 0; l->slots != NULL && i < l->n_slots; i++)
        ps_buf_fini(&l->slots[i].call.body);
    ps_free(l->slots);
    ps_free(l->ids);
    bn_result_fini(&l->res);
}

int bn_lanes_run(const struct bn_plan *plan, bool warm, struct bn_result *out)
{
    const struct bn_load_conf *conf = plan->conf;
    uint32_t n = (uint32_t)ps_min_u64((uint64_t)conf->threads, (uint64_t)conf->concurrency);
    struct run run = {.plan = plan, .warm = warm, .n = warm ? (uint64_t)conf->warmup : plan->n};
    struct lane *lanes = ps_calloc(n, sizeof(lanes[0]));
    uint32_t n_streams = (uint32_t)conf->concurrency;
    int r = 0;

    run.start_us = bn_now_us();
    run.end_us = !warm && conf->duration_s > 0 ? run.start_us + (uint64_t)(conf->duration_s * 1e6)
                                               : UINT64_MAX;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        lanes[i].n_slots = n_streams / n + (i < n_streams % n ? 1 : 0);
        r = lane_open(&lanes[i], &run, i, n);
    }
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = -pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]);
        lanes[i].started = r == 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (lanes[i].started)
            (void)pthread_join(lanes[i].thread, NULL);
        if (r == 0)
            r = lanes[i].r;
        merge(out, &lanes[i].res);
        lane_close(&lanes[i]);
    }
    out->wall_us = bn_now_us() - run.start_us;
    ps_free(lanes);
    return r;
}
