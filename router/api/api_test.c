/*
 * The API over loopback with a generation engine that does what the test says.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "router/api/api.h"
#include "router/conf_def.h"
#include "router/gen.h"
#include "router/request/tok_fixture.h"
#include "router/stats.h"

enum { WAIT_MS = 3000, MAX_GENS = 32, END = FIX_FIRST_EXTRA };

struct rt_gen {
    struct rt_gen_sink sink;
    void *ud;
    struct rt_gen_spec spec;
    bool open, cancelled;
    uint32_t n;
};

static struct rt_gen gens[MAX_GENS];
static uint32_t n_gens, n_gens_max = MAX_GENS, n_live_workers = 1;

/* ---- what the router's other halves would do ---- */

struct rt_gen *rt_gen_start(struct rt_loop *l, const struct rt_gen_spec *spec,
                            const struct rt_gen_sink *sink, void *ud, struct rt_fail *f)
{
    struct rt_gen *g = &gens[n_gens];

    (void)l;
    if (n_gens == n_gens_max) {
        rt_fail_set(f, RT_E27_QUEUE_FULL, NULL, "full");
        f->retry_after_s = 7;
        return NULL;
    }
    n_gens++;
    *g = (struct rt_gen){.sink = *sink, .ud = ud, .spec = *spec, .open = true};
    return g;
}

void rt_gen_cancel(struct rt_gen *g)
{
    assert_true(g->open);
    g->open = false;
    g->cancelled = true;
}

uint32_t rt_gens_n_running(const struct rt_loop *l)
{
    (void)l;
    return 0;
}

uint32_t rt_gens_n_queued(const struct rt_loop *l)
{
    (void)l;
    return 0;
}

uint32_t rt_fleet_n_slots(const struct rt_fleet *f)
{
    (void)f;
    return n_live_workers;
}

bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out)
{
    (void)f;
    *out = (struct rt_worker){.slot = slot, .state = RT_W_LIVE};
    return true;
}

bool rt_fleet_kv(const struct rt_fleet *f, uint32_t slot, struct pb_kv_load *out)
{
    (void)f;
    *out = (struct pb_kv_load){.n_tier = 1, .tier = {{.id = PB_KV_T0, .is_open = true}}};
    return slot < n_live_workers;
}

/* ---- the world ---- */

struct world {
    struct ps_clock clock;
    struct rt_conf conf;
    struct rt_router router;
    struct rt_loop loop, *loops[1];
    struct ps_timer *stopper;
    uint16_t port;
    struct ps_buf got;
};

static struct ps_tok *tok;

static void stop_loop(void *ud)
{
    ps_loop_stop(ud);
}

static void tick(void *ud)
{
    rt_text_tick(ud);
    rt_api_tick(ud);
}

static void on_wake(void *ud)
{
    struct rt_loop *l = ud;

    ps_wake_clear(&l->wake);
    ps_wake_arm(&l->wake);
}

static void turn(struct world *w)
{
    ps_timer_start(w->stopper, 1, 0);
    ps_loop_run(w->loop.loop);
}

static void open_world(struct world *w)
{
    static const struct ps_conf_list no_keys;
    struct ps_http_limits limits;
    struct ps_buf err = PS_BUF_INIT;
    static const uint8_t secret[32];

    *w = (struct world){0};
    n_gens = 0;
    n_gens_max = MAX_GENS;
    n_live_workers = 1;
    ps_clock_manual(&w->clock, 1000000);
    w->conf = (struct rt_conf){.max_n = 16,
                               .max_logprobs = 20,
                               .header_flush_s = 10,
                               .sse_keepalive_s = 15,
                               .min_ready_workers = 1,
                               .host = "127.0.0.1"};
    w->router.conf = &w->conf;
    w->router.clock = &w->clock;
    w->router.model = (struct rt_model){
        .name = "m", .dir = "/nowhere", .tok = tok, .context = 100000, .eos = {END}, .n_eos = 1};
    w->router.metrics = rt_metrics_create("m");
    w->router.n_loops = 1;
    w->loops[0] = &w->loop;
    w->router.loops = w->loops;
    assert_int_equal(rt_keys_create(&w->router.keys, &no_keys, "", secret, &err), RT_KEYS_LOADED);
    w->loop.router = &w->router;
    assert_int_equal(ps_wake_init(&w->loop.wake), 0);
    assert_int_equal(ps_loop_create(&w->loop.loop), 0);
    w->stopper = ps_timer_create(w->loop.loop, stop_loop, w->loop.loop);
    ps_http_limits_default(&limits);
    assert_int_equal(
        ps_http_create(&w->loop.http, w->loop.loop, &limits, &rt_api_handler, &w->loop), 0);
    assert_int_equal(ps_http_listen(w->loop.http, "127.0.0.1", 0, false, &w->port), 0);
    ps_loop_on_tick(w->loop.loop, tick, &w->loop);
    assert_int_equal(ps_loop_watch(w->loop.loop, w->loop.wake.fd, on_wake, &w->loop), 0);
    ps_wake_arm(&w->loop.wake);
    w->loop.tok_ctx = ps_tok_ctx_create(tok);
    w->router.text = rt_text_create(&w->router);
    rt_api_init(&w->loop);
}

static void close_world(struct world *w)
{
    rt_text_destroy(w->router.text);
    ps_http_destroy(w->loop.http);
    assert_null(w->loop.api->calls);
    rt_api_fini(&w->loop);
    ps_timer_destroy(w->stopper);
    ps_tok_ctx_destroy(w->loop.tok_ctx);
    ps_loop_destroy(w->loop.loop);
    ps_wake_fini(&w->loop.wake);
    rt_keys_destroy(w->router.keys);
    ps_free(w->router.metrics);
    ps_buf_fini(&w->got);
}

static uint64_t clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#define UNTIL(w, cond) \
    do { \
        uint64_t until_ = clock_ms() + WAIT_MS; \
        while (!(cond)) { \
            assert_true(clock_ms() < until_); \
            turn(w); \
        } \
    } while (0)

static int dial(struct world *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(w->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static int ask(struct world *w, const char *method, const char *path, const char *body)
{
    struct ps_buf b = PS_BUF_INIT;
    int fd = dial(w);

    ps_buf_addf(&b, "%s %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %zu\r\n\r\n%s", method,
                path, strlen(body), body);
    assert_int_equal(send(fd, b.data, b.len, MSG_NOSIGNAL), (ssize_t)b.len);
    ps_buf_fini(&b);
    return fd;
}

/* A completion on its way: its generations are there when this returns. */
static int ask_completion(struct world *w, const char *more, uint32_t n)
{
    char body[512];
    int fd;

    (void)snprintf(body, sizeof(body), "{\"prompt\":\"p\"%s}", more);
    fd = ask(w, "POST", "/v1/completions", body);
    UNTIL(w, n_gens == n);
    return fd;
}

static void sip(struct world *w, int fd)
{
    char buf[65536];
    ssize_t n;

    turn(w);
    n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n > 0)
        ps_buf_add(&w->got, buf, (size_t)n);
}

/* Reads until the text holds what; forgets what came before. */
static const char *hear(struct world *w, int fd, const char *what)
{
    uint64_t until = clock_ms() + WAIT_MS;

    ps_buf_clear(&w->got);
    ps_buf_reserve(&w->got, 1);
    while (strstr(w->got.data, what) == NULL) {
        if (clock_ms() >= until)
            fail_msg("wanted %s, got %s", what, w->got.data);
        sip(w, fd);
    }
    return w->got.data;
}

static void hear_nothing(struct world *w, int fd)
{
    ps_buf_clear(&w->got);
    for (int i = 0; i < 5; i++)
        sip(w, fd);
    assert_int_equal(w->got.len, 0);
}

static void say(uint32_t g, const char *text)
{
    uint32_t ids[64], n = 0;

    for (; text[n] != '\0'; n++)
        ids[n] = (uint8_t)text[n];
    gens[g].n += n;
    gens[g].sink.on_tokens(&gens[g], gens[g].n - n, n, ids, NULL, gens[g].ud);
}

static void finish(uint32_t g, enum pb_finish why)
{
    struct rt_gen_end e = {.finish = why, .n_total = gens[g].n};

    gens[g].open = false;
    gens[g].sink.on_finished(&gens[g], &e, gens[g].ud);
}

static void break_down(uint32_t g)
{
    struct rt_fail f;

    rt_fail_set(&f, RT_E32_WORKER_LOST, NULL, "lost");
    gens[g].open = false;
    gens[g].sink.on_failed(&gens[g], &f, gens[g].ud);
}

static uint64_t n_ended(const struct world *w, enum rt_outcome o)
{
    return ps_counter_value(w->router.metrics->success[o]);
}

/* ---- tests ---- */

static void the_head_waits_for_the_first_token_and_the_last_events_are_one_chunk(void **state)
{
    struct world w;
    const char *s, *last;
    int fd;

    (void)state;
    open_world(&w);
    fd = ask_completion(&w, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}", 1);
    hear_nothing(&w, fd);
    say(0, "Hi");
    s = hear(&w, fd, "\"text\":\"Hi\"");
    assert_non_null(strstr(s,
                           "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                           "cache-control: no-cache\r\nx-accel-buffering: no\r\n"));
    say(0, "!");
    finish(0, PB_FIN_LENGTH);
    s = hear(&w, fd, "0\r\n\r\n");
    last = strstr(s, "\r\n"); /* the size of a chunk: everything left is in that one */
    assert_int_equal(strtoul(s, NULL, 16), strlen(last + 2) - strlen("\r\n0\r\n\r\n"));
    assert_non_null(strstr(s, "\"text\":\"!\""));
    assert_non_null(strstr(s, "\"finish_reason\":\"length\""));
    assert_non_null(strstr(s, "\"completion_tokens\":3"));
    assert_non_null(strstr(s, "data: [DONE]\n\n\r\n0\r\n\r\n"));
    assert_null(w.loop.api->calls);
    close(fd);
    close_world(&w);
}

static void events_of_one_turn_are_one_chunk(void **state)
{
    struct world w;
    const char *s;
    int fd;

    (void)state;
    open_world(&w);
    fd = ask_completion(&w, ",\"stream\":true,\"n\":2", 2);
    say(0, "a");
    say(1, "b");
    say(0, "c");
    s = hear(&w, fd, "\"text\":\"b\"");
    s = strstr(s, "\r\n\r\n") + 4;
    assert_non_null(strstr(s, "\"text\":\"ac\"")); /* and what one choice heard is one event */
    assert_int_equal(strtoul(s, NULL, 16), strlen(strstr(s, "\r\n") + 2) - 2);
    close(fd);
    UNTIL(&w, w.loop.api->calls == NULL);
    close_world(&w);
}

static void a_failure_before_the_first_token_has_its_own_status(void **state)
{
    struct world w;
    const char *s;
    uint64_t n;
    int fd;

    (void)state;
    open_world(&w);
    n = n_ended(&w, RT_OUT_ERROR);
    fd = ask_completion(&w, ",\"stream\":true,\"n\":2", 2);
    break_down(0);
    s = hear(&w, fd, "}}");
    assert_non_null(strstr(s, "HTTP/1.1 502 Bad Gateway\r\n"));
    assert_non_null(strstr(s, "retry-after: 1\r\n"));
    assert_non_null(strstr(s,
                           "{\"error\":{\"message\":\"lost\",\"type\":\"server_error\",\"param\":"
                           "null,\"code\":\"worker_lost\"}}"));
    assert_true(gens[1].cancelled);
    assert_int_equal(n_ended(&w, RT_OUT_ERROR) - n, 2);
    close(fd);
    close_world(&w);
}

static void a_failure_after_it_is_an_event_and_a_clean_end(void **state)
{
    struct world w;
    const char *s;
    int fd;

    (void)state;
    open_world(&w);
    fd = ask_completion(&w, ",\"stream\":true", 1);
    say(0, "a");
    (void)hear(&w, fd, "\"text\":\"a\"");
    break_down(0);
    s = hear(&w, fd, "0\r\n\r\n");
    assert_non_null(strstr(s, "data: {\"error\":{\"message\":\"lost\",\"type\":\"server_error\","
                              "\"param\":null,\"code\":\"worker_lost\"}}\n\ndata: [DONE]\n\n"));
    assert_null(strstr(s, "finish_reason"));
    close(fd);
    close_world(&w);
}

static void a_client_that_leaves_cancels_all_choices(void **state)
{
    struct world w;
    uint64_t n;
    int fd;

    (void)state;
    open_world(&w);
    n = n_ended(&w, RT_OUT_ABORT);
    fd = ask_completion(&w, ",\"n\":2", 2);
    say(0, "a");
    close(fd);
    UNTIL(&w, gens[0].cancelled && gens[1].cancelled);
    assert_null(w.loop.api->calls);
    assert_int_equal(n_ended(&w, RT_OUT_ABORT) - n, 2);
    close_world(&w);
}

static void a_stop_string_cancels_and_counts_its_tokens(void **state)
{
    struct world w;
    const char *s;
    uint64_t n;
    int fd;

    (void)state;
    open_world(&w);
    n = ps_counter_value(w.router.metrics->generation_tokens);
    fd = ask_completion(&w, ",\"stop\":[\"END\"]", 1);
    say(0, "one E");
    say(0, "NDmore");
    assert_true(gens[0].cancelled);
    s = hear(&w, fd, "}}}");
    assert_non_null(strstr(s, "\"text\":\"one \",\"logprobs\":null,\"finish_reason\":\"stop\","
                              "\"stop_reason\":\"END\""));
    assert_non_null(strstr(s, "\"completion_tokens\":7"));
    assert_int_equal(ps_counter_value(w.router.metrics->generation_tokens) - n, 7);
    close(fd);
    close_world(&w);
}

static void silence_is_broken_by_the_head_and_then_by_single_newlines(void **state)
{
    struct world w;
    int fd;

    (void)state;
    open_world(&w);
    fd = ask_completion(&w, ",\"stream\":true,\"sse_ping_interval\":20", 1);
    ps_clock_advance(&w.clock, 9999 * 1000);
    rt_calls_care(w.loop.api);
    hear_nothing(&w, fd);
    ps_clock_advance(&w.clock, 2 * 1000);
    rt_calls_care(w.loop.api);
    assert_null(strstr(hear(&w, fd, "\r\n\r\n"), "\n1\r\n"));
    ps_clock_advance(&w.clock, 20 * 1000 * 1000);
    rt_calls_care(w.loop.api);
    assert_string_equal(hear(&w, fd, "1\r\n\n\r\n"), "1\r\n\n\r\n");
    close(fd);
    UNTIL(&w, w.loop.api->calls == NULL);
    close_world(&w);
}

static void a_queue_that_fills_up_half_way_starts_nothing(void **state)
{
    struct world w;
    const char *s;
    int fd;

    (void)state;
    open_world(&w);
    n_gens_max = 2;
    fd = ask_completion(&w, ",\"n\":3", 2);
    s = hear(&w, fd, "}}");
    assert_non_null(strstr(s, "HTTP/1.1 429 Too Many Requests\r\n"));
    assert_non_null(strstr(s, "retry-after: 7\r\n"));
    assert_true(gens[0].cancelled && gens[1].cancelled);
    close(fd);
    close_world(&w);
}

static int ask_long(struct world *w)
{
    size_t n = 2 * RT_TEXT_INLINE_BYTES;
    char *body = ps_alloc(n + 64);
    int fd, at = snprintf(body, 64, "{\"prompt\":\"");

    memset(body + at, 'x', n);
    (void)snprintf(body + at + (int)n, 32, "\"}");
    fd = ask(w, "POST", "/v1/completions", body);
    ps_free(body);
    return fd;
}

static void long_texts_go_through_the_pool(void **state)
{
    struct world w;
    uint64_t until;
    int fd, gone;

    (void)state;
    open_world(&w);
    gone = ask_long(&w);
    UNTIL(&w, w.loop.api->calls != NULL);
    close(gone); /* whenever this is heard, nothing is left of it in the end */
    fd = ask_long(&w);
    /* The first request may still start a generation of its own: whichever comes is ended. */
    until = clock_ms() + WAIT_MS;
    ps_buf_clear(&w.got);
    ps_buf_reserve(&w.got, 1);
    while (strstr(w.got.data, "\"prompt_tokens\":65536") == NULL) {
        assert_true(clock_ms() < until);
        for (uint32_t g = 0; g < n_gens; g++) {
            if (gens[g].open)
                finish(g, PB_FIN_STOP_EOS);
        }
        sip(&w, fd);
    }
    UNTIL(&w, w.loop.api->calls == NULL);
    close(fd);
    close_world(&w);
}

static void every_path_has_its_answer(void **state)
{
    static const struct {
        const char *method, *path, *want;
    } rows[] = {
        {"GET", "/v1/models", "HTTP/1.1 200 OK"},
        {"GET", "/models", "HTTP/1.1 200 OK"},
        {"GET", "/v1/models/m", "HTTP/1.1 200 OK"},
        {"GET", "/v1/models/nope", "model_not_found"},
        {"GET", "/v1/../x", "bad_http_request"},
        {"GET", "/health", "{\"status\":\"ok\"}"},
        {"POST", "/ping", "HTTP/1.1 200 OK"},
        {"POST", "/health", "method_not_allowed"},
        {"GET", "/v1/chat/completions", "allow: POST, OPTIONS\r\n"},
        {"DELETE", "/v1/models", "method_not_allowed"},
        {"POST", "/v1/audio/speech", "x-should-retry: false\r\n"},
        {"GET", "/v1/responses/resp_1", "unsupported_endpoint"},
        {"GET", "/nope", "unknown_url"},
        {"OPTIONS", "/anything", "HTTP/1.1 204 No Content"},
        {"GET", "/ready", "{\"status\":\"ready\",\"workers\":{\"ready\":1,\"total\":1}"},
        {"POST", "/v1/chat/completions", "invalid_json"},
        {"GET", "/version", "\"api\":\"1\""},
        {"POST", "/tokenize", "invalid_json"},
    };
    struct world w;

    (void)state;
    open_world(&w);
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        int fd = ask(&w, rows[i].method, rows[i].path, "");

        assert_non_null(strstr(hear(&w, fd, rows[i].want), "x-request-id: "));
        close(fd);
    }
    close_world(&w);
}

static void without_workers_probes_and_requests_say_so(void **state)
{
    struct world w;
    int fd;

    (void)state;
    open_world(&w);
    n_live_workers = 0;
    fd = ask(&w, "GET", "/health", "");
    (void)hear(&w, fd, "HTTP/1.1 503 Service Unavailable");
    close(fd);
    fd = ask(&w, "GET", "/ready", "");
    (void)hear(&w, fd, "retry-after: 1\r\n");
    close(fd);
    atomic_store(&w.router.draining, RT_DRAIN_GRACE);
    fd = ask(&w, "GET", "/ready", "");
    (void)hear(&w, fd, "{\"status\":\"draining\"");
    close(fd);
    close_world(&w);
}

static int set_up(void **state)
{
    static const char *const extra[] = {"<|end|>"};

    (void)state;
    tok = fix_tok(extra, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ps_tok_destroy(tok);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_head_waits_for_the_first_token_and_the_last_events_are_one_chunk),
        cmocka_unit_test(events_of_one_turn_are_one_chunk),
        cmocka_unit_test(a_failure_before_the_first_token_has_its_own_status),
        cmocka_unit_test(a_failure_after_it_is_an_event_and_a_clean_end),
        cmocka_unit_test(a_client_that_leaves_cancels_all_choices),
        cmocka_unit_test(a_stop_string_cancels_and_counts_its_tokens),
        cmocka_unit_test(silence_is_broken_by_the_head_and_then_by_single_newlines),
        cmocka_unit_test(a_queue_that_fills_up_half_way_starts_nothing),
        cmocka_unit_test(long_texts_go_through_the_pool),
        cmocka_unit_test(every_path_has_its_answer),
        cmocka_unit_test(without_workers_probes_and_requests_say_so),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
