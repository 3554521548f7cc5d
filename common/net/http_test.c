#include "common/net/http.h"

#include "common/net/http_world.h"

/* ---- answers ---- */

static void a_reply_has_exact_bytes_and_the_connection_is_used_again(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    for (int i = 0; i < 3; i++) {
        send_str(fd, "POST /echo HTTP/1.1\r\n" H "content-length: 5\r\n\r\nhello");
        hear(&w, fd, "hello");
        assert_non_null(strstr(w.got.data, "GMT\r\n"));
        cut_date(w.got.data);
        assert_string_equal(w.got.data, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                        "content-length: 5\r\n\r\nhello");
    }
    send_str(fd, "HEAD /echo-head HTTP/1.1\r\n" H "\r\n");
    hear(&w, fd, "\r\n\r\n");
    assert_non_null(strstr(w.got.data, "content-length: 10\r\n"));
    send_str(fd, "GET /close HTTP/1.1\r\n" H "\r\n");
    hear_end(&w, fd);
    assert_non_null(strstr(w.got.data, "connection: close\r\n\r\nbye"));
    hang_up(&w, fd);
    close_world(&w);
}

static void close_is_honoured_both_ways_and_http10_by_its_rules(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /a HTTP/1.1\r\n" H "connection: close\r\n\r\nGET /b HTTP/1.1\r\n" H "\r\n");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_non_null(strstr(w.got.data, "connection: close\r\n\r\n/a"));
    assert_null(strstr(w.got.data, "/b")); /* nothing is answered behind a close */
    hang_up(&w, fd);
    fd = dial(&w);
    send_str(fd, "GET /a HTTP/1.0\r\n\r\n");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_non_null(strstr(w.got.data, "connection: close\r\n\r\n/a"));
    hang_up(&w, fd);
    fd = dial(&w);
    send_str(fd, "GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    hear(&w, fd, "connection: keep-alive\r\n\r\n/a");
    ps_http_set_closing(w.http, true);
    send_str(fd, "GET /b HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_non_null(strstr(w.got.data, "connection: close\r\n\r\n/b"));
    hang_up(&w, fd);
    close_world(&w);
}

static void pipelined_requests_are_answered_one_by_one_in_order(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    const char *one, *two, *three;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /first HTTP/1.1\r\n" H "\r\nGET /later HTTP/1.1\r\n" H "\r\n"
                 "POST /echo HTTP/1.1\r\n" H "content-length: 5\r\n\r\nthird"
                 "GET /last HTTP/1.1\r\n" H "\r\n");
    hear(&w, fd, "/first");
    UNTIL(&w, w.n_held == 1);
    for (int i = 0; i < 10; i++)
        turn(&w);
    assert_int_equal(w.n_heads, 2); /* the third waits for the answer to the second */
    ps_http_reply(w.held[0], 200, NULL, "", "second", 6, false);
    hear(&w, fd, "/last");
    one = strstr(w.got.data, "second");
    two = strstr(w.got.data, "third");
    three = strstr(w.got.data, "/last");
    assert_true(one != NULL && one < two && two < three);
    assert_int_equal(w.n_gone, 0);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_stream_is_chunked_event_by_event(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /stream HTTP/1.1\r\n" H "\r\nGET /next HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_begin(w.held[0], 200, "text/event-stream", "cache-control: no-cache\r\n");
    assert_true(ps_http_begun(w.held[0]));
    ps_http_write(w.held[0], "data: 1\n\n", 9);
    ps_http_write(w.held[0], "", 0); /* not the last chunk */
    hear(&w, fd, "9\r\ndata: 1\n\n\r\n");
    cut_date(w.got.data);
    assert_string_equal(w.got.data, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                                    "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
                                    "9\r\ndata: 1\n\n\r\n");
    ps_http_end(w.held[0], "data: [DONE]\n\n", 14);
    hear(&w, fd, "/next");
    assert_memory_equal(w.got.data, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\nHTTP/1.1 200 OK", 38);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_stream_to_http10_is_raw_and_ends_with_the_connection(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_begin(w.held[0], 200, "text/event-stream", "");
    ps_http_write(w.held[0], "data: 1\n\n", 9);
    ps_http_end(w.held[0], NULL, 0);
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    cut_date(w.got.data);
    assert_string_equal(w.got.data, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                                    "connection: close\r\n\r\ndata: 1\n\n");
    hang_up(&w, fd);
    close_world(&w);
}

static void an_aborted_stream_ends_in_a_reset(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    UNTIL(&w, w.n_held == 1);
    ps_http_begin(w.held[0], 200, "text/event-stream", "");
    ps_http_write(w.held[0], "data: 1\n\n", 9);
    hear(&w, fd, "data: 1\n\n\r\n");
    ps_http_abort(w.held[0]);
    assert_int_equal(hear_end(&w, fd), RESET);
    assert_int_equal(w.n_gone, 0);
    hang_up(&w, fd);
    close_world(&w);
}

/* ---- bodies, refusals, faults ---- */

static void continue_is_sent_only_when_the_body_is_wanted(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "POST /echo HTTP/1.1\r\n" H "content-length: 5\r\nexpect: 100-continue\r\n\r\n");
    hear(&w, fd, "HTTP/1.1 100 Continue\r\n\r\n");
    send_str(fd, "hello");
    assert_non_null(strstr(hear(&w, fd, "hello"), "200 OK"));
    send_str(fd, "POST /refuse HTTP/1.1\r\n" H "content-length: 5\r\nexpect: 100-continue\r\n\r\n");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_null(strstr(w.got.data, " 100 "));
    assert_non_null(strstr(w.got.data, "HTTP/1.1 401 Unauthorized\r\n"));
    assert_non_null(strstr(w.got.data, "connection: close\r\n"));
    hang_up(&w, fd);
    fd = dial(&w);
    send_str(fd,
             "POST /echo HTTP/1.1\r\n" H "content-length: 100001\r\nexpect: 100-continue\r\n\r\n");
    hear_end(&w, fd);
    assert_memory_equal(w.got.data, "HTTP/1.1 413 Content Too Large\r\n", 32);
    assert_non_null(strstr(w.got.data, "x-request-id: f\r\n"));
    hang_up(&w, fd);
    close_world(&w);
}

static void a_refused_body_is_drained_when_small_and_ends_the_connection_when_large(void **state)
{
    static char body[65536];
    struct ps_http_limits l = small_limits();
    char head[128];
    struct world w;
    int fd;

    (void)state;
    memset(body, 'x', sizeof(body));
    open_world(&w, &l);
    fd = dial(&w);
    snprintf(head, sizeof(head), "POST /refuse HTTP/1.1\r\n" H "content-length: %zu\r\n\r\n",
             sizeof(body));
    send_str(fd, head);
    hear(&w, fd, "\r\n\r\nno");
    assert_int_equal(send(fd, body, sizeof(body), 0), (ssize_t)sizeof(body));
    send_str(fd, "GET /again HTTP/1.1\r\n" H "\r\n");
    hear(&w, fd, "/again");
    send_str(fd, "POST /refuse HTTP/1.1\r\n" H "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    hear(&w, fd, "\r\n\r\nno");
    send_str(fd, "0\r\n\r\nGET /more HTTP/1.1\r\n" H "\r\n");
    hear(&w, fd, "/more");
    send_str(fd, "POST /refuse HTTP/1.1\r\n" H "transfer-encoding: chunked\r\n\r\n10000\r\n");
    assert_int_equal(send(fd, body, sizeof(body), 0), (ssize_t)sizeof(body));
    send_str(fd, "\r\n1\r\nx\r\n0\r\n\r\nGET /never HTTP/1.1\r\n" H "\r\n");
    assert_int_equal(hear_end(&w, fd), EOF_SEEN);
    assert_int_equal(n_of(w.got.data, "HTTP/1.1 "), 1);
    hang_up(&w, fd);
    fd = dial(&w);
    snprintf(head, sizeof(head), "POST /refuse HTTP/1.1\r\n" H "content-length: %zu\r\n\r\n",
             sizeof(body) + 1);
    send_str(fd, head);
    hear_end(&w, fd);
    assert_non_null(strstr(w.got.data, "connection: close\r\n"));
    hang_up(&w, fd);
    close_world(&w);
}

static void a_fault_is_answered_readable_even_with_unread_input(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "GET / HTTP/1.1\r\n\r\nGET /never HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < 20; i++) /* more input while the answer travels */
        send_str(fd, "0123456789012345678901234567890123456789");
    hear_end(&w, fd);
    assert_memory_equal(w.got.data, "HTTP/1.1 400 Bad Request\r\n", 26);
    assert_non_null(strstr(w.got.data, "content-type: application/json\r\n"));
    assert_non_null(strstr(w.got.data, "connection: close\r\n\r\n{}"));
    assert_int_equal(w.n_heads, 0);
    hang_up(&w, fd);
    close_world(&w);
}

static void a_fault_in_a_body_tells_the_user_that_the_request_is_gone(void **state)
{
    struct ps_http_limits l = small_limits();
    struct world w;
    int fd;

    (void)state;
    open_world(&w, &l);
    fd = dial(&w);
    send_str(fd, "POST /echo HTTP/1.1\r\n" H "transfer-encoding: chunked\r\n\r\n0x5\r\n");
    hear_end(&w, fd);
    assert_memory_equal(w.got.data, "HTTP/1.1 400 ", 13);
    assert_int_equal(w.n_heads, 1);
    assert_int_equal(w.n_bodies, 0);
    assert_int_equal(w.n_gone, 1);
    hang_up(&w, fd);
    fd = dial(&w);
    send_str(fd, "POST /echo HTTP/1.1\r\n" H "transfer-encoding: chunked\r\n\r\n186A1\r\n");
    hear_end(&w, fd);
    assert_memory_equal(w.got.data, "HTTP/1.1 413 ", 13);
    assert_int_equal(w.n_gone, 2);
    hang_up(&w, fd);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_has_exact_bytes_and_the_connection_is_used_again),
        cmocka_unit_test(close_is_honoured_both_ways_and_http10_by_its_rules),
        cmocka_unit_test(pipelined_requests_are_answered_one_by_one_in_order),
        cmocka_unit_test(a_stream_is_chunked_event_by_event),
        cmocka_unit_test(a_stream_to_http10_is_raw_and_ends_with_the_connection),
        cmocka_unit_test(an_aborted_stream_ends_in_a_reset),
        cmocka_unit_test(continue_is_sent_only_when_the_body_is_wanted),
        cmocka_unit_test(a_refused_body_is_drained_when_small_and_ends_the_connection_when_large),
        cmocka_unit_test(a_fault_is_answered_readable_even_with_unread_input),
        cmocka_unit_test(a_fault_in_a_body_tells_the_user_that_the_request_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
