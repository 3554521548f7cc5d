#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mq/mq.h"
#include "common/mq/zap.h"

static const struct ps_mq_keys no_keys;

struct world {
    struct ps_mq *q;
    struct ps_mq_sock *r;
    struct ps_mq_set *set;
    uint16_t port;
    char endpoint[64], err[200];
};

static void world_open(struct world *w, const struct ps_mq_keys *keys)
{
    assert_int_equal(ps_mq_create(&w->q, 64), 0);
    assert_int_equal(ps_mq_set_create(&w->set), 0);
    assert_int_equal(
        ps_mq_router_open(&w->r, w->q, keys, "127.0.0.1", 0, &w->port, w->err, sizeof(w->err)),
        PS_MQ_OK);
    snprintf(w->endpoint, sizeof(w->endpoint), "tcp://127.0.0.1:%u", w->port);
}

static void world_close(struct world *w)
{
    ps_mq_close(w->r, 0);
    ps_mq_set_destroy(w->set);
    ps_mq_destroy(w->q);
}

static bool wait_send(struct world *w, struct ps_mq_sock *d, const char *text)
{
    for (int i = 0; i < 300; i++) {
        if (ps_mq_send(d, NULL, 0, (const uint8_t *)text, strlen(text)) == PS_MQ_OK)
            return true;
        if (ps_mq_lost(d))
            return false;
        ps_mq_set_clear(w->set);
        ps_mq_set_add(w->set, d, true);
        ps_mq_wait(w->set, 10);
    }
    return false;
}

static bool wait_recv(struct world *w, struct ps_mq_sock *s, struct ps_mq_msg *m)
{
    for (int i = 0; i < 300; i++) {
        int r = ps_mq_recv(s, m);

        if (r == PS_MQ_OK)
            return true;
        ps_mq_set_clear(w->set);
        ps_mq_set_add(w->set, s, false);
        ps_mq_wait(w->set, 10);
    }
    return false;
}

static bool wait_lost(struct world *w, struct ps_mq_sock *d)
{
    for (int i = 0; i < 300 && !ps_mq_lost(d); i++) {
        ps_mq_set_clear(w->set);
        ps_mq_set_add(w->set, d, false);
        ps_mq_wait(w->set, 10);
    }
    return ps_mq_lost(d);
}

static void messages_go_both_ways_and_the_end_is_seen(void **state)
{
    struct world w;
    struct ps_mq_sock *d;
    struct ps_mq_msg m;

    (void)state;
    world_open(&w, &no_keys);
    assert_int_equal(ps_mq_dealer_open(&d, w.q, &no_keys, w.endpoint, (const uint8_t *)"abc", 3),
                     0);
    assert_true(wait_send(&w, d, "hello"));
    assert_true(wait_recv(&w, w.r, &m));
    assert_int_equal(m.id_len, 3);
    assert_memory_equal(m.data, "hello", 5);
    assert_string_equal(m.user_id, "");
    assert_int_equal(ps_mq_send(w.r, m.id, 3, (const uint8_t *)"back", 4), PS_MQ_OK);
    assert_int_equal(ps_mq_send(w.r, (const uint8_t *)"xyz", 3, (const uint8_t *)"b", 1),
                     PS_MQ_E_GONE);
    assert_true(wait_recv(&w, d, &m));
    assert_memory_equal(m.data, "back", 4);
    ps_mq_close(w.r, 0);
    assert_true(wait_lost(&w, d));
    ps_mq_close(d, 0);
    w.r = NULL;
    world_close(&w);
}

/* Closed sockets are reaped by another thread, so room may come a little later; a leak never ends. */
static struct ps_mq_sock *open_when_room(struct world *w)
{
    struct ps_mq_sock *d = NULL;
    int r = PS_MQ_E_SOCKETS;

    for (int i = 0; i < 300 && r == PS_MQ_E_SOCKETS; i++) {
        r = ps_mq_dealer_open(&d, w->q, &no_keys, w->endpoint, (const uint8_t *)"a", 1);
        if (r == PS_MQ_E_SOCKETS) {
            ps_mq_set_clear(w->set);
            ps_mq_wait(w->set, 10);
        }
    }
    assert_int_equal(r, PS_MQ_OK);
    return d;
}

static void refused_connection_counts_as_lost_and_sockets_do_not_leak(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, &no_keys);
    ps_mq_close(w.r, 0);
    w.r = NULL;
    for (int i = 0; i < 200; i++) { /* three sockets each, and the context has 64 */
        struct ps_mq_sock *d = open_when_room(&w);

        assert_true(wait_lost(&w, d));
        ps_mq_close(d, 0);
    }
    world_close(&w);
}

static void file_with(char path[64], const char *text)
{
    int fd;

    snprintf(path, 64, "/tmp/ps_mq_test_XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void only_listed_keys_enter_and_carry_their_uid(void **state)
{
    struct ps_mq_keys server = {.on = true}, client = {.on = true}, stranger = {.on = true};
    char allow[64], text[200];
    struct ps_mq_sock *d;
    struct ps_mq_msg m;
    struct ps_zap *z;
    struct world w;

    (void)state;
    ps_curve_keypair(server.pub, server.sec);
    ps_curve_keypair(client.pub, client.sec);
    ps_curve_keypair(stranger.pub, stranger.sec);
    memcpy(client.server, server.pub, sizeof(server.pub));
    memcpy(stranger.server, server.pub, sizeof(server.pub));
    snprintf(text, sizeof(text), "# list\n\n%s 00000000000000AB\n", client.pub);
    file_with(allow, text);
    assert_int_equal(ps_mq_create(&w.q, 64), 0);
    assert_int_equal(ps_zap_start(&z, w.q, allow, w.err, sizeof(w.err)), PS_ZAP_OK);
    assert_int_equal(ps_mq_set_create(&w.set), 0);
    assert_int_equal(
        ps_mq_router_open(&w.r, w.q, &server, "127.0.0.1", 0, &w.port, w.err, sizeof(w.err)), 0);
    snprintf(w.endpoint, sizeof(w.endpoint), "tcp://127.0.0.1:%u", w.port);
    assert_int_equal(ps_zap_self_test(w.q, &server, "127.0.0.1", w.port, w.err, sizeof(w.err)),
                     PS_ZAP_OK);

    assert_int_equal(ps_mq_dealer_open(&d, w.q, &stranger, w.endpoint, (const uint8_t *)"s", 1), 0);
    assert_false(wait_send(&w, d, "let me in"));
    ps_mq_close(d, 0);
    assert_int_equal(ps_mq_dealer_open(&d, w.q, &no_keys, w.endpoint, (const uint8_t *)"n", 1), 0);
    assert_false(wait_send(&w, d, "let me in"));
    ps_mq_close(d, 0);
    assert_int_equal(ps_mq_dealer_open(&d, w.q, &client, w.endpoint, (const uint8_t *)"c", 1), 0);
    assert_true(wait_send(&w, d, "hello"));
    assert_true(wait_recv(&w, w.r, &m));
    assert_string_equal(m.user_id, "00000000000000ab");
    ps_mq_close(d, 0);
    ps_mq_close(w.r, 0);
    ps_zap_stop(z);
    ps_mq_set_destroy(w.set);
    ps_mq_destroy(w.q);
    unlink(allow);
}

/* The self-test must fail where ZAP is not asked: then a random key would enter. */
static void self_test_fails_without_a_handler(void **state)
{
    struct ps_mq_keys server = {.on = true};
    struct ps_zap *z;
    struct world w;
    char allow[64];

    (void)state;
    ps_curve_keypair(server.pub, server.sec);
    file_with(allow, "not a key\n");
    assert_int_equal(ps_mq_create(&w.q, 64), 0);
    assert_int_equal(ps_zap_start(&z, w.q, allow, w.err, sizeof(w.err)), PS_ZAP_E_CONFIG);
    assert_int_equal(ps_zap_self_test(w.q, &server, "127.0.0.1", 1, w.err, sizeof(w.err)),
                     PS_ZAP_E_OPEN);
    ps_mq_destroy(w.q);
    unlink(allow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways_and_the_end_is_seen),
        cmocka_unit_test(refused_connection_counts_as_lost_and_sockets_do_not_leak),
        cmocka_unit_test(only_listed_keys_enter_and_carry_their_uid),
        cmocka_unit_test(self_test_fails_without_a_handler),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
