/*
 * One loop thread: its event loop, HTTP server and generations, and how it shuts down.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "common/log.h"
#include "router/conf_def.h"
#include "router/loop.h"
#include "router/request/text.h"

enum { CARE_MS = 100 };

static void on_wake(void *ud)
{
    struct rt_loop *l = ud;

    ps_wake_clear(&l->wake); /* the tick that follows looks at every ring */
}

static void on_tick(void *ud)
{
    struct rt_loop *l = ud;

    rt_text_tick(l);
    rt_gens_tick(l);
    ps_wake_arm(&l->wake);
    /* What was pushed between the last look and the arming rings nobody: look once more. */
    rt_text_tick(l);
    rt_gens_tick(l);
    rt_api_tick(l);
}

static void on_care(void *ud)
{
    struct rt_loop *l = ud;
    uint32_t stage = atomic_load(&l->router->draining);
    struct rt_fail f;

    atomic_store(&l->alive_us, ps_now_us(l->router->clock));
    if (stage == l->drain_seen && stage < RT_DRAIN_REFUSE)
        return;
    if (stage >= RT_DRAIN_GRACE && l->drain_seen < RT_DRAIN_GRACE)
        ps_http_set_closing(l->http, true);
    if (stage >= RT_DRAIN_REFUSE && l->drain_seen < RT_DRAIN_REFUSE)
        ps_http_stop_listening(l->http);
    if (stage >= RT_DRAIN_REFUSE)
        ps_http_close_idle(l->http);
    if (stage >= RT_DRAIN_CUT && l->drain_seen < RT_DRAIN_CUT) {
        rt_fail_set(&f, RT_E37_DRAINING, NULL, "The server is shutting down");
        rt_gens_fail_all(l, &f);
    }
    /* One more round after the cut, so that the last answers leave. */
    if (stage >= RT_DRAIN_REFUSE && rt_gens_n_running(l) + rt_gens_n_queued(l) == 0 &&
        (ps_http_n_conns(l->http) == 0 || l->drain_seen >= RT_DRAIN_CUT))
        ps_loop_stop(l->loop);
    l->drain_seen = stage;
}

int rt_loop_create(struct rt_loop **out, struct rt_router *r, uint32_t index, struct ps_buf *err)
{
    const struct rt_conf *conf = r->conf;
    struct rt_loop *l = ps_calloc(1, sizeof(*l));
    struct ps_http_limits limits;
    int rc;

    l->router = r;
    l->index = index;
    ps_http_limits_default(&limits);
    limits.body_bytes = (uint64_t)conf->max_body_bytes;
    limits.n_conns = (uint32_t)ps_div_up_u64((uint64_t)conf->max_conns, r->n_loops);
    limits.n_conns_per_addr = (uint32_t)conf->max_conns_per_addr;
    limits.write_stall_ms = (uint32_t)conf->write_stall_s * 1000;
    limits.idle_ms = (uint32_t)conf->idle_s * 1000;
    rc = ps_wake_init(&l->wake);
    if (rc == 0)
        rc = ps_loop_create(&l->loop);
    if (rc == 0)
        rc = ps_http_create(&l->http, l->loop, &limits, &rt_api_handler, l);
    if (rc == 0)
        rc = ps_loop_watch(l->loop, l->wake.fd, on_wake, l);
    if (rc != 0) {
        ps_buf_addf(err, "loop %u cannot be made (%d at %s)", index, rc, ps_fault_where());
        rt_loop_destroy(l);
        return rc;
    }
    ps_loop_on_tick(l->loop, on_tick, l);
    l->tok_ctx = ps_tok_ctx_create(r->model.tok);
    l->care = ps_timer_create(l->loop, on_care, l);
    atomic_store(&l->alive_us, ps_now_us(r->clock));
    rt_gens_init(l);
    rt_api_init(l);
    rt_fleet_attach(r->fleet, index, &l->wake);
    *out = l;
    return 0;
}

static void *thread_main(void *ud)
{
    struct rt_loop *l = ud;
    char name[16];

    (void)snprintf(name, sizeof(name), "loop-%u", l->index);
    (void)prctl(PR_SET_NAME, name);
    ps_timer_start(l->care, CARE_MS, CARE_MS);
    ps_loop_run(l->loop);
    return NULL;
}

int rt_loop_start(struct rt_loop *l)
{
    int r = -pthread_create(&l->thread, NULL, thread_main, l);

    l->started = r == 0;
    return r == 0 ? 0 : PS_FAULT(r);
}

void rt_loop_join(struct rt_loop *l)
{
    if (l->started)
        (void)pthread_join(l->thread, NULL);
    l->started = false;
}

void rt_loop_destroy(struct rt_loop *l)
{
    if (l == NULL)
        return;
    PS_ASSERT(!l->started);
    ps_http_destroy(l->http); /* open requests hear on_gone and cancel their generations */
    rt_api_fini(l);
    rt_gens_fini(l);
    if (l->care != NULL)
        ps_timer_destroy(l->care);
    ps_tok_ctx_destroy(l->tok_ctx);
    ps_loop_destroy(l->loop);
    ps_wake_fini(&l->wake);
    ps_free(l);
}
