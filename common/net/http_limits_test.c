#include "common/net/http.h"

#include "common/net/http_world.h"

/* ---- leaving ---- */

static void a_client_that_leaves_is_gone_once_in_every_way(void **state)
{
    struct ps_http_limits l = small_limits();
    struct linger now = {.l_onoff = 1};
    struct world w;

    (void)state;
    open_world(&w, &l);
    for (uint32_t way = 0; way < 4; way++) {
        int fd = dial(&w);

        send_str(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
        UNTIL(&w, w.n_held == way + 1);
        if (way == 0)
            shutdown(fd, SHUT_WR);
        if (way == 1)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        if (way == 2) /* pipelined bytes are no end; the end behind them is */
            send_str(fd, "GET /b HTTP/1.1\r\n" H "\r\n");
        if (way != 0)
            close(fd);
        UNTIL(&w, w.n_gone == way + 1);
        if (way == 0)
            close(fd);
        UNTIL(&w, w.http->conns == NULL);
    }
    assert_int_equal(w.n_heads, 4);
    close_world(&w);
}

static void input_is_bounded_while_an_answer_is_made_and_the_end_is_still_seen(void **state)
{
    static char junk[16384];
    struct ps_http_limits l = small_limits();
    struct world w;
    size_t n_sent = 0;
    int fd;

    (void)state;
    memset(junk, 'j', sizeof(junk));
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    while (n_sent < PS_PIPE_BYTES + 2 * sizeof(junk)) { /* the rest lies in the kernel */
        ssize_t n = send(fd, junk, sizeof(junk), MSG_DONTWAIT);

        n_sent += n > 0 ? (size_t)n : 0;
        turn(&w);
        assert_true(w.http->conns->in.len <= PS_PIPE_BYTES);
    }
    UNTIL(&w, !w.http->conns->reading);
    assert_int_equal(w.n_gone, 0);
    close(fd);
    UNTIL(&w, w.n_gone == 1);
    UNTIL(&w, w.http->conns == NULL);
    close_world(&w);
}

static void a_paused_connection_reads_on_after_its_answer(void **state)
{
    struct ps_http_limits l = small_limits();
    struct ps_buf many = PS_BUF_INIT;
    struct world w;
    size_t sent = 0;
    uint32_t n = 0;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    for (; many.len < 3 * PS_PIPE_BYTES; n++)
        ps_buf_add_str(&many, "GET /x HTTP/1.1\r\n" H "\r\n");
    ps_buf_add_str(&many, "GET /last HTTP/1.1\r\n" H "\r\n");
    while (w.http->conns->reading) {
        ssize_t k = send(fd, many.data + sent, many.len - sent, MSG_DONTWAIT);

        sent += k > 0 ? (size_t)k : 0;
        turn(&w);
        if (sent == many.len)
            break;
    }
    UNTIL(&w, !w.http->conns->reading);
    ps_http_reply(w.held[0], 200, NULL, "", "", 0, false);
    ps_buf_clear(&w.got);
    while (w.got.len < 5 || strcmp(w.got.data + w.got.len - 5, "/last") != 0) {
        ssize_t k = sent < many.len ? send(fd, many.data + sent, many.len - sent, MSG_DONTWAIT) : 0;

        sent += k > 0 ? (size_t)k : 0;
        assert_int_equal(sip(&w, fd), OPEN);
    }
    assert_int_equal(n_of(w.got.data, "HTTP/1.1 200 OK"), n + 2);
    ps_buf_fini(&many);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_paused_connection_that_is_to_close_reads_and_forgets(void **state)
{
    static char junk[100 * 1000];
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    memset(junk, 'j', sizeof(junk));
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    assert_int_equal(send(fd, junk, sizeof(junk), 0), (ssize_t)sizeof(junk));
    UNTIL(&w, !w.http->conns->reading);
    ps_http_reply(w.held[0], 200, NULL, "", "done", 4, true);
    UNTIL(&w, w.http->conns->discarded == sizeof(junk)); /* else the close would be a reset */
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    hang_up(&w, fd);
    close_world(&w);
}

/* ---- output ---- */

static void a_slow_reader_is_told_about_and_a_dead_one_is_cut(void **state)
{
    static char block[64 * 1024];
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial_with(&w, 4096);
    send_str(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_begin(w.held[0], 200, "text/event-stream", "");
    while (ps_http_pending(w.held[0]) <= l.out_soft_bytes) {
        ps_http_write(w.held[0], block, sizeof(block));
        turn(&w);
    }
    assert_int_equal(w.n_drained, 0);
    assert_true(ps_http_pending_bytes(w.http) > l.out_soft_bytes);
    while (w.n_drained == 0)
        assert_int_equal(sip(&w, fd), OPEN);
    for (int i = 0; i < 1000; i++) { /* over the hard limit inside one turn */
        ps_http_write(w.held[0], block, sizeof(block));
        assert_true(ps_http_pending(w.held[0]) <= l.out_hard_bytes);
    }
    assert_int_equal(w.n_gone, 0); /* never from inside a call of the user's */
    UNTIL(&w, w.n_gone == 1);
    assert_int_equal(hear_end(&w, fd), RESET);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_stalled_write_is_cut_with_a_reset(void **state)
{
    static char block[1024 * 1024];
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    l.write_stall_ms = 100;
    open_world(&w, &l);
    fd = dial_with(&w, 4096);
    send_str(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_begin(w.held[0], 200, "text/event-stream", "");
    for (int i = 0; i < 8; i++)
        ps_http_write(w.held[0], block, sizeof(block));
    UNTIL(&w, w.n_gone == 1);
    assert_int_equal(hear_end(&w, fd), RESET);
    hang_up(&w, fd);
    close_world(&w);
}

static void requests_of_a_client_that_reads_nothing_wait(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial_with(&w, 4096);
    for (int i = 0; i < 60; i++)
        send_str(fd, "GET /big HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < 50; i++) {
        turn(&w);
        assert_true(ps_http_pending_bytes(w.http) < l.out_soft_bytes + 2 * 300 * 1000);
    }
    assert_true(w.n_bodies < 30);
    UNTIL(&w, sip(&w, fd) == OPEN && w.n_bodies == 60);
    hang_up(&w, fd);
    close_world(&w);
}

/* ---- time ---- */

static void input_that_came_in_time_counts_after_a_long_turn(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    l.first_byte_ms = 100;
    open_world(&w, &l);
    fd = dial(&w);
    UNTIL(&w, w.http->conns != NULL);
    send_str(fd, "GET /a HTTP/1.1\r\n" H "\r\n");
    for (uint64_t until = clock_ms() + 200; clock_ms() < until;)
        ; /* the loop's thread is busy with something else */
    hear(&w, fd, "/a");
    hang_up(&w, fd);
    close_world(&w);
}

/* True at the end of the connection; counts the 408 that came before it. */
static bool told_and_ended(struct world *w, int fd, uint64_t began, uint64_t min_ms,
                           uint32_t *n_told)
{
    enum end e;

    ps_buf_clear(&w->got);
    e = sip(w, fd);
    if (w->got.len > 0) {
        assert_memory_equal(w->got.data, "HTTP/1.1 408 Request Timeout", 28);
        (*n_told)++;
    }
    if (e != OPEN)
        assert_in_range(clock_ms() - began, min_ms, WAIT_MS);
    return e != OPEN;
}

static void timers_end_what_does_not_move(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    uint64_t began;
    int fd, head, body, idle;
    bool head_done = false, body_done = false, idle_done = false;
    uint32_t n_told = 0;

    (void)state;
    l.first_byte_ms = 100;
    l.head_ms = 200;
    l.body_idle_ms = 150;
    l.idle_ms = 300;
    open_world(&w, &l);
    began = clock_ms();
    fd = dial(&w); /* says nothing: closed without a word */
    head = dial(&w);
    body = dial(&w);
    idle = dial(&w);
    send_str(head, "GET /");
    send_str(body, "POST /echo HTTP/1.1\r\n" H "content-length: 9\r\n\r\n1234");
    send_str(idle, "GET /a HTTP/1.1\r\n" H "\r\n");
    hear(&w, idle, "/a");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_int_equal(w.got.len, 0);
    assert_in_range(clock_ms() - began, 100, WAIT_MS);
    while (!head_done || !body_done || !idle_done) {
        assert_true(clock_ms() - began < WAIT_MS);
        if (!body_done)
            body_done = told_and_ended(&w, body, began, 150, &n_told);
        if (!head_done)
            head_done = told_and_ended(&w, head, began, 200, &n_told);
        if (!idle_done && sip(&w, idle) == EOF_SEEN) {
            idle_done = true;
            assert_in_range(clock_ms() - began, 300, WAIT_MS);
        }
    }
    assert_int_equal(n_told, 2);
    assert_int_equal(w.n_gone, 1);
    close(fd);
    close(head);
    close(body);
    hang_up(&w, idle);
    close_world(&w);
}

static void a_body_that_drips_below_the_rate_is_ended(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    uint64_t began, n_sent = 0;
    int fd;

    (void)state;
    l.body_base_ms = 300;
    l.body_min_bytes_per_s = 1000;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "POST /echo HTTP/1.1\r\n" H "content-length: 9000\r\n\r\n");
    UNTIL(&w, w.n_heads == 1);
    began = clock_ms();
    while (w.n_gone == 0) { /* one byte in 10 ms: a tenth of the rate, 30 bytes buy 30 ms */
        assert_true(clock_ms() - began < WAIT_MS);
        turn(&w);
        if (clock_ms() - began >= n_sent * 10 && n_sent < 1000) {
            send_str(fd, "x");
            n_sent++;
        }
    }
    assert_in_range(clock_ms() - began, 300, WAIT_MS);
    hear_end(&w, fd);
    assert_memory_equal(w.got.data, "HTTP/1.1 408 Request Timeout", 28);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_client_that_does_not_close_is_cut_after_the_linger_time(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    l.linger_ms = 100;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "BAD\r\n");
    hear(&w, fd, "{}");
    assert_ptr_not_equal(w.http->conns, NULL);
    UNTIL(&w, w.http->conns == NULL);
    hang_up(&w, fd);
    close_world(&w);
}

/* ---- limits and life of the server ---- */

static void connections_over_the_limits_are_told_so(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int a, b, c;

    (void)state;
    l.n_conns_per_addr = 2;
    open_world(&w, &l);
    a = dial(&w);
    b = dial(&w);
    UNTIL(&w, ps_http_n_conns(w.http) == 2);
    c = dial(&w);
    assert_int_equal(hear_end(&w, c), EOF_SEEN);
    assert_memory_equal(w.got.data, "HTTP/1.1 503 Service Unavailable\r\n", 34);
    close(c);
    close(a);
    UNTIL(&w, ps_http_n_conns(w.http) == 1);
    c = dial(&w);
    send_str(c, "GET /a HTTP/1.1\r\n" H "\r\n");
    hear(&w, c, "/a");
    close(b);
    hang_up(&w, c);
    assert_int_equal(w.http->n_refused, 0);
    close_world(&w);
}

static void accepted_sockets_have_the_options_of_their_listener(void **state)
{
    static const struct {
        int level, name, want;
    } rows[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 60}, {IPPROTO_TCP, TCP_KEEPINTVL, 10},
        {IPPROTO_TCP, TCP_KEEPCNT, 6},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 60000},
    };
    struct ps_http_limits l = small_limits();
    struct world w;
    int client, fd, value;
    socklen_t len;

    (void)state;
    open_world(&w, &l);
    client = dial(&w);
    UNTIL(&w, w.http->conns != NULL);
    assert_int_equal(uv_fileno((uv_handle_t *)&w.http->conns->tcp, &fd), 0);
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        len = sizeof(value);
        assert_int_equal(getsockopt(fd, rows[i].level, rows[i].name, &value, &len), 0);
        assert_int_equal(value, rows[i].want);
    }
    hang_up(&w, client);
    close_world(&w);
}

static void draining_closes_idle_connections_only(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int idle, busy, r;

    (void)state;
    open_world(&w, &l);
    idle = dial(&w);
    busy = dial(&w);
    send_str(idle, "GET /a HTTP/1.1\r\n" H "\r\n");
    hear(&w, idle, "/a");
    send_str(busy, "GET /later HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_stop_listening(w.http);
    ps_http_close_idle(w.http);
    assert_int_equal(hear_end(&w, idle), EOF_SEEN);
    assert_int_equal(ps_http_n_conns(w.http), 1);
    ps_http_reply(w.held[0], 200, NULL, "", "done", 4, true);
    hear(&w, busy, "done");
    r = socket(AF_INET, SOCK_STREAM, 0);
    {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(w.port)};

        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        assert_int_equal(connect(r, (struct sockaddr *)&a, sizeof(a)), -1);
    }
    close(r);
    close(idle);
    hang_up(&w, busy);
    close_world(&w);
}

static void destroy_ends_open_requests_and_a_port_can_be_shared(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    struct ps_http *second;
    uint16_t port = 0;
    int fd;

    (void)state;
    open_world(&w, &l);
    ps_http_stop_listening(w.http);
    assert_int_equal(ps_http_listen(w.http, "127.0.0.1", 0, true, &w.port), 0);
    assert_int_equal(ps_http_create(&second, w.loop, &l, &handler, &w), 0);
    assert_int_equal(ps_http_listen(second, "127.0.0.1", w.port, true, &port), 0);
    assert_int_equal(port, w.port);
    assert_int_equal(ps_http_listen(second, "127.0.0.1", w.port, false, &port), -EADDRINUSE);
    assert_int_equal(ps_http_listen(second, "no.such.address.invalid.", 0, false, &port),
                     -EADDRNOTAVAIL);
    ps_http_destroy(second);
    fd = dial(&w);
    send_str(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
    while (w.n_held == 0)
        turn(&w);
    ps_http_destroy(w.http);
    assert_int_equal(w.n_gone, 1);
    ps_loop_destroy(w.loop);
    close(fd);
    ps_buf_fini(&w.got);
}

static uint32_t n_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint32_t n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void clients_that_vanish_in_a_stream_leave_nothing_behind(void **state)
{
    static char block[100 * 1000];
    struct ps_http_limits l = small_limits();
    struct linger now = {.l_onoff = 1};
    struct world w;
    uint32_t before;

    (void)state;
    open_world(&w, &l);
    turn(&w);
    before = n_fds();
    for (uint32_t i = 0; i < 2000; i++) {
        int fd = dial(&w);

        w.n_held = 0;
        send_str(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
        UNTIL(&w, w.n_held == 1);
        ps_http_begin(w.held[0], 200, "text/event-stream", "");
        ps_http_write(w.held[0], block, i % 3 == 0 ? sizeof(block) : 9);
        turn(&w);
        if (i % 2 == 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
        UNTIL(&w, w.n_gone == i + 1);
    }
    UNTIL(&w, w.http->conns == NULL && w.http->n_handles == 1);
    assert_int_equal(n_fds(), before);
    assert_int_equal(ps_http_n_conns(w.http), 0);
    assert_int_equal(ps_http_pending_bytes(w.http), 0);
    assert_int_equal(w.http->addrs.n, 0);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_that_drips_below_the_rate_is_ended),
        cmocka_unit_test(a_client_that_leaves_is_gone_once_in_every_way),
        cmocka_unit_test(input_is_bounded_while_an_answer_is_made_and_the_end_is_still_seen),
        cmocka_unit_test(a_paused_connection_reads_on_after_its_answer),
        cmocka_unit_test(a_paused_connection_that_is_to_close_reads_and_forgets),
        cmocka_unit_test(a_slow_reader_is_told_about_and_a_dead_one_is_cut),
        cmocka_unit_test(a_stalled_write_is_cut_with_a_reset),
        cmocka_unit_test(requests_of_a_client_that_reads_nothing_wait),
        cmocka_unit_test(input_that_came_in_time_counts_after_a_long_turn),
        cmocka_unit_test(timers_end_what_does_not_move),
        cmocka_unit_test(a_client_that_does_not_close_is_cut_after_the_linger_time),
        cmocka_unit_test(connections_over_the_limits_are_told_so),
        cmocka_unit_test(accepted_sockets_have_the_options_of_their_listener),
        cmocka_unit_test(draining_closes_idle_connections_only),
        cmocka_unit_test(destroy_ends_open_requests_and_a_port_can_be_shared),
        cmocka_unit_test(clients_that_vanish_in_a_stream_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
