#include <sched.h>

#include "common/log.h"
#include "worker/tier/peer_raw.h"

enum { SMALL = 8192, LARGE = 5 * 1024 * 1024 + 4096 };

/* Two hosts without a secret: giver has the first n pages, taker asks it. */
struct pair {
    struct world w;
    struct host giver, taker;
    struct wk_tier *tier;
};

static void pair_open(struct pair *pr, uint32_t item_bytes, uint32_t n_pages)
{
    *pr = (struct pair){.w = {.n_hosts = 0}};
    ps_clock_manual(&pr->w.clock, 1000000);
    host_init(&pr->giver, item_bytes, n_pages);
    host_init(&pr->taker, item_bytes, 0);
    host_start(&pr->w, &pr->giver, "127.0.0.1:0", "");
    host_start(&pr->w, &pr->taker, "", "");
    pr->tier = host_dial(&pr->taker, wk_peers_address(pr->giver.p));
}

static void pair_close(struct pair *pr)
{
    assert_int_equal(pr->tier->ops->close(pr->tier, 0), WK_TIER_OK);
    host_stop(&pr->taker);
    host_stop(&pr->giver);
}

static struct question *put(struct pair *pr, enum wk_tier_op op, uint32_t page, uint32_t n)
{
    return question_put(pr->tier, op, page, n, pr->taker.item_bytes);
}

static void put_wait_end(struct pair *pr, enum wk_tier_op op, uint32_t page, uint32_t n,
                         uint32_t n_done, enum wk_tier_status rest)
{
    struct question *q = put(pr, op, page, n);

    question_wait(&pr->w, q);
    question_end(q, n_done, rest, pr->taker.item_bytes);
}

/* ---- the good ways ---- */

static void find_tells_how_many_leading_keys_are_there(void **state)
{
    struct pair pr;
    struct question *q;

    (void)state;
    pair_open(&pr, SMALL, 10);
    q = put(&pr, WK_TIER_FIND, 4, 16);
    question_wait(&pr.w, q);
    assert_int_equal(q->io.n_found, 6);
    question_end(q, 6, WK_TIER_MISS, 0);
    put_wait_end(&pr, WK_TIER_FIND, 10, 3, 0, WK_TIER_MISS);
    WORLD_UNTIL(&pr.w, pr.giver.n_over == 2);
    assert_int_equal(pr.giver.n_asked, 2);
    pair_close(&pr);
}

static void get_of_16_parts_fills_every_buffer(void **state)
{
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, PAGES);
    put_wait_end(&pr, WK_TIER_GET, 8, 16, 16, WK_TIER_MISS);
    WORLD_UNTIL(&pr.w, pr.giver.n_over == 1);
    pair_close(&pr);
}

static void a_get_misses_what_the_peer_has_not(void **state)
{
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 10);
    put_wait_end(&pr, WK_TIER_GET, 7, 9, 3, WK_TIER_MISS);
    put_wait_end(&pr, WK_TIER_GET, 11, 2, 0, WK_TIER_MISS);
    pair_close(&pr);
}

static void large_items_come_in_pieces(void **state)
{
    struct pair pr;

    (void)state;
    pair_open(&pr, LARGE, 3);
    put_wait_end(&pr, WK_TIER_GET, 0, 4, 3, WK_TIER_MISS);
    pair_close(&pr);
}

static void many_ios_share_one_connection(void **state)
{
    struct question *q[WK_PEER_DEPTH];
    struct question *one_more;
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, PAGES);
    for (uint32_t i = 0; i < WK_PEER_DEPTH; i++)
        q[i] = put(&pr, i % 3 == 0 ? WK_TIER_FIND : WK_TIER_GET, i % 16, 1 + i % 16);
    one_more = question_create(WK_TIER_GET, 0, 1, SMALL);
    assert_int_equal(pr.tier->ops->submit(pr.tier, &one_more->io), WK_TIER_E_FULL);
    question_destroy(one_more);
    for (uint32_t i = 0; i < WK_PEER_DEPTH; i++) {
        question_wait(&pr.w, q[i]);
        question_end(q[i], 1 + i % 16, WK_TIER_MISS, SMALL);
        assert_true(pr.giver.p->n_served <= 1);
    }
    assert_int_equal(pr.giver.n_asked, WK_PEER_DEPTH);
    pair_close(&pr);
}

static void urgent_ios_overtake_those_that_have_not_begun(void **state)
{
    struct question *q[8], *urgent;
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, PAGES);
    pr.giver.is_mute = true;
    for (uint32_t i = 0; i < 8; i++)
        q[i] = put(&pr, WK_TIER_GET, i, 1);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == WK_PEER_INFLIGHT); /* the others have not begun */
    urgent = question_create(WK_TIER_GET, 9, 1, SMALL);
    urgent->io.urgent = true;
    assert_int_equal(pr.tier->ops->submit(pr.tier, &urgent->io), WK_TIER_OK);
    host_answer(&pr.giver, 0);
    WORLD_UNTIL(&pr.w, pr.giver.n_asked == WK_PEER_INFLIGHT + 1);
    assert_int_equal(pr.giver.held[WK_PEER_INFLIGHT - 1]->io.part[0].key.first_pos, 9 * TOKENS);
    assert_true(pr.giver.held[WK_PEER_INFLIGHT - 1]->io.urgent);
    pr.giver.is_mute = false;
    for (uint32_t i = 0; i < 8; i++) {
        question_wait(&pr.w, q[i]);
        question_end(q[i], 1, WK_TIER_MISS, SMALL);
    }
    question_wait(&pr.w, urgent);
    question_end(urgent, 1, WK_TIER_MISS, SMALL);
    pair_close(&pr);
}

static void a_name_is_looked_up_when_it_is_dialled(void **state)
{
    struct question *q;
    struct wk_tier *t;
    struct pair pr;
    char address[32];

    (void)state;
    pair_open(&pr, SMALL, 4);
    snprintf(address, sizeof(address), "localhost:%u", address_port(wk_peers_address(pr.giver.p)));
    t = host_dial(&pr.taker, address);
    /* The first address of localhost may be the one of the other family: the next dial takes turns. */
    for (uint32_t i = 0; i < 4; i++) {
        bool is_done;

        q = question_put(t, WK_TIER_GET, 0, 4, SMALL);
        for (uint32_t n = 0; !q->is_back && n < TURNS_MAX; n++) {
            (void)wk_peers_pump(pr.taker.p, 1);
            world_turn(&pr.w);
        }
        assert_true(q->is_back);
        is_done = q->part[0].status == WK_TIER_DONE;
        question_end(q, is_done ? 4 : 0, WK_TIER_FAULT, SMALL);
        if (is_done)
            break;
        assert_true(i < 3);
        ps_clock_advance(&pr.w.clock, WK_PEER_BACKOFF_MAX_US);
    }
    assert_int_equal(t->ops->close(t, 0), WK_TIER_OK);
    pair_close(&pr);
}

static void a_name_can_go_while_it_is_looked_up(void **state)
{
    struct wk_peer_name *n;
    struct wk_peer_addr a;

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(wk_peer_name_create(&n, "localhost:1"), WK_PEER_NAME_OK);
        assert_int_not_equal(wk_peer_name_lookup(n, &a), WK_PEER_NAME_E_BAD);
        wk_peer_name_destroy(n);
    }
}

/* ---- who may ask ---- */

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
}

/* What becomes of a question between hosts with these secret files, "" for none. */
static bool is_answered(const char *giver_file, const char *taker_file)
{
    struct world w = {.n_hosts = 0};
    struct host giver, taker;
    struct question *q;
    struct wk_tier *t;
    bool is_done;

    ps_clock_manual(&w.clock, 1000000);
    host_init(&giver, SMALL, 4);
    host_init(&taker, SMALL, 0);
    host_start(&w, &giver, "127.0.0.1:0", giver_file);
    host_start(&w, &taker, "", taker_file);
    t = host_dial(&taker, wk_peers_address(giver.p));
    q = question_put(t, WK_TIER_GET, 0, 2, SMALL);
    question_wait(&w, q);
    is_done = q->part[0].status == WK_TIER_DONE;
    question_end(q, is_done ? 2 : 0, WK_TIER_FAULT, SMALL);
    assert_int_equal(giver.n_asked, is_done ? 1 : 0);
    assert_int_equal(t->ops->close(t, 0), WK_TIER_OK);
    host_stop(&taker);
    host_stop(&giver);
    return is_done;
}

static void only_those_who_know_the_secret_are_answered(void **state)
{
    char dir[] = "/tmp/peer_test_XXXXXX", a[64], b[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(a, sizeof(a), "%s/a", dir);
    snprintf(b, sizeof(b), "%s/b", dir);
    write_file(a, "correct horse battery staple\n");
    write_file(b, "correct horse battery stable\n");
    assert_true(is_answered(a, a));
    assert_true(is_answered("", ""));
    assert_false(is_answered(a, b));
    assert_false(is_answered(a, ""));
    assert_false(is_answered("", a));
    assert_int_equal(unlink(a), 0);
    assert_int_equal(unlink(b), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void other_items_are_refused(void **state)
{
    struct pair pr;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        pair_open(&pr, SMALL, 4);
        if (i == 0)
            pr.taker.p->conf.ident.space_id++;
        else if (i == 1)
            pr.taker.p->conf.ident.arith_id++;
        else
            pr.taker.p->conf.ident.item_bytes[0] *= 2;
        put_wait_end(&pr, WK_TIER_FIND, 0, 2, 0, WK_TIER_FAULT);
        assert_string_equal(((struct wk_pull *)(void *)pr.tier)->told, "ident");
        WORLD_UNTIL(&pr.w, pr.giver.p->n_served == 0);
        assert_int_equal(pr.giver.n_asked, 0);
        pair_close(&pr);
    }
}

static int create_result(const char *listen, const char *secret)
{
    struct wk_tier_inbox inbox;
    struct wk_peers_conf conf = {.listen = listen,
                                 .secret_file = secret,
                                 .ident = ident_of(SMALL),
                                 .inbox = &inbox,
                                 .asks = &inbox,
                                 .no_thread = true};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_peers *p = NULL;
    int r;

    wk_tier_inbox_init(&inbox, NULL);
    r = wk_peers_create(&p, &conf, &err);
    assert_int_equal(err.len > 0, r != WK_TIER_OK);
    wk_peers_destroy(p);
    wk_tier_inbox_fini(&inbox);
    ps_buf_fini(&err);
    return r;
}

static void without_a_secret_only_loopback_is_served_and_dialled(void **state)
{
    static const char *const refused[] = {
        "10.1.2.3:4000", "worker-7.example:4000", "[fe80::1]:9", "127.0.0.1",
        "127.0.0.1:",    "127.0.0.1:port",        ":4000"};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_tier *t;
    struct pair pr;

    (void)state;
    assert_int_equal(create_result("0.0.0.0:0", ""), WK_TIER_E_CONF);
    assert_int_equal(create_result("127.0.0.1:0", ""), WK_TIER_OK);
    assert_int_equal(create_result("127.0.0.1", ""), WK_TIER_E_CONF);
    assert_int_equal(create_result("", "/nowhere/secret"), WK_TIER_E_CONF);
    assert_int_equal(create_result("", "/dev/null"), WK_TIER_E_CONF); /* an empty secret */
    assert_int_equal(create_result("", "/dev/zero"), WK_TIER_E_CONF); /* an endless one */
    pair_open(&pr, SMALL, 0);
    for (size_t i = 0; i < PS_ARRAY_LEN(refused); i++) {
        ps_buf_clear(&err);
        assert_int_equal(wk_tier_peer_create(&t, pr.taker.p, refused[i], &err), WK_TIER_E_CONF);
        assert_true(err.len > 0);
    }
    ps_buf_fini(&err);
    pair_close(&pr);
}

/* ---- the end of things ---- */

static void a_cancelled_io_that_has_not_begun_comes_back_at_once(void **state)
{
    struct question *q[WK_PEER_INFLIGHT + 1];
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 4);
    pr.giver.is_mute = true;
    for (uint32_t i = 0; i <= WK_PEER_INFLIGHT; i++)
        q[i] = put(&pr, WK_TIER_GET, 0, 1);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == WK_PEER_INFLIGHT);
    pr.tier->ops->cancel(pr.tier, &q[WK_PEER_INFLIGHT]->io);
    question_wait(&pr.w, q[WK_PEER_INFLIGHT]);
    question_end(q[WK_PEER_INFLIGHT], 0, WK_TIER_CANCELLED, SMALL);
    /* One that has begun may be written to: it ends with its connection, here by close. */
    pr.tier->ops->cancel(pr.tier, &q[0]->io);
    world_turns(&pr.w, 40);
    assert_false(q[0]->is_back);
    assert_int_equal(pr.tier->ops->close(pr.tier, 0), WK_TIER_OK);
    world_turn(&pr.w);
    for (uint32_t i = 0; i < WK_PEER_INFLIGHT; i++) {
        assert_true(q[i]->is_back);
        question_end(q[i], 0, WK_TIER_FAULT, SMALL);
    }
    host_stop(&pr.taker);
    host_stop(&pr.giver);
}

static void a_late_find_comes_back_and_its_connection_stays(void **state)
{
    struct question *get, *find;
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 4);
    pr.giver.is_mute = true;
    get = put(&pr, WK_TIER_GET, 0, 3);
    find = question_create(WK_TIER_FIND, 0, 3, 0);
    find->io.deadline_us = ps_now_us(&pr.w.clock) + 20000;
    assert_int_equal(pr.tier->ops->submit(pr.tier, &find->io), WK_TIER_OK);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == 2);
    ps_clock_advance(&pr.w.clock, 20000);
    world_turns(&pr.w, 2);
    assert_true(find->is_back);
    question_end(find, 0, WK_TIER_FAULT, 0); /* its memory is gone before the answer comes */
    pr.giver.is_mute = false;
    question_wait(&pr.w, get);
    question_end(get, 3, WK_TIER_MISS, SMALL);
    put_wait_end(&pr, WK_TIER_FIND, 2, 3, 2, WK_TIER_MISS);
    pair_close(&pr);
}

static void an_io_without_an_answer_ends_after_five_seconds(void **state)
{
    struct question *q[2];
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 4);
    pr.giver.is_mute = true;
    q[0] = put(&pr, WK_TIER_GET, 0, 1);
    q[1] = put(&pr, WK_TIER_FIND, 0, 1);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == 2);
    ps_clock_advance(&pr.w.clock, WK_PEER_IO_US - 1);
    world_turns(&pr.w, 4);
    assert_false(q[0]->is_back || q[1]->is_back);
    ps_clock_advance(&pr.w.clock, 1);
    world_turns(&pr.w, 4);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(q[i]->is_back);
        question_end(q[i], 0, WK_TIER_FAULT, SMALL);
    }
    WORLD_UNTIL(&pr.w, pr.giver.p->n_served == 0);
    /* The asks of the connection that is gone come back once they are answered. */
    pr.giver.is_mute = false;
    world_turns(&pr.w, 4);
    assert_int_equal(pr.giver.n_over, 2);
    ps_clock_advance(&pr.w.clock, WK_PEER_BACKOFF_MIN_US);
    put_wait_end(&pr, WK_TIER_GET, 0, 4, 4, WK_TIER_MISS);
    pair_close(&pr);
}

static void a_dead_peer_is_dialled_again_after_a_pause(void **state)
{
    struct pair pr;
    struct wk_pull *l;
    char address[32];
    uint64_t pause_us = WK_PEER_BACKOFF_MIN_US;
    int bound = raw_bind(address);

    (void)state;
    pair_open(&pr, SMALL, 4);
    assert_int_equal(pr.tier->ops->close(pr.tier, 0), WK_TIER_OK);
    pr.tier = host_dial(&pr.taker, address);
    l = (struct wk_pull *)(void *)pr.tier;
    for (uint32_t i = 0; i < 10; i++) {
        put_wait_end(&pr, WK_TIER_FIND, 0, 1, 0, WK_TIER_FAULT);
        assert_int_equal(l->backoff_us, pause_us);
        ps_clock_advance(&pr.w.clock, pause_us - 1);
        put_wait_end(&pr, WK_TIER_FIND, 0, 1, 0, WK_TIER_FAULT); /* at once: not dialled */
        assert_int_equal(l->backoff_us, pause_us);
        ps_clock_advance(&pr.w.clock, 1);
        pause_us = ps_min_u64(2 * pause_us, WK_PEER_BACKOFF_MAX_US);
    }
    close(bound);
    pair_close(&pr);
}

static void a_peer_that_went_away_idle_is_dialled_at_once(void **state)
{
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 4);
    put_wait_end(&pr, WK_TIER_GET, 0, 4, 4, WK_TIER_MISS);
    wk_conn_cut(pr.giver.p->conn[0], "lost");
    WORLD_UNTIL(&pr.w, ((struct wk_pull *)(void *)pr.tier)->conn == NULL);
    put_wait_end(&pr, WK_TIER_GET, 0, 4, 4, WK_TIER_MISS);
    pair_close(&pr);
}

static void close_gives_back_what_is_queued_and_running(void **state)
{
    struct question *q[10];
    struct pair pr;

    (void)state;
    pair_open(&pr, SMALL, 4);
    pr.giver.is_mute = true;
    for (uint32_t i = 0; i < 10; i++)
        q[i] = put(&pr, WK_TIER_GET, 0, 1);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == WK_PEER_INFLIGHT);
    assert_int_equal(pr.tier->ops->close(pr.tier, 0), WK_TIER_OK);
    world_turns(&pr.w, 4);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(q[i]->is_back);
        question_end(q[i], 0, i < WK_PEER_INFLIGHT ? WK_TIER_FAULT : WK_TIER_CANCELLED, SMALL);
    }
    host_stop(&pr.taker);
    host_stop(&pr.giver);
}

static void destroy_leaves_only_asks_that_are_over(void **state)
{
    struct question *q[4];
    struct pair pr;

    (void)state;
    pair_open(&pr, LARGE, 4);
    pr.giver.is_mute = true;
    for (uint32_t i = 0; i < 3; i++)
        q[i] = put(&pr, WK_TIER_GET, i, 2);
    WORLD_UNTIL(&pr.w, pr.giver.n_held == 3);
    q[3] = put(&pr, WK_TIER_FIND, 0, 2);
    for (uint32_t i = 0; pr.giver.p->n_asks < 4 && i < TURNS_MAX; i++) {
        (void)wk_peers_pump(pr.taker.p, 0);
        (void)wk_peers_pump(pr.giver.p, 0);
    }
    assert_int_equal(pr.giver.p->n_asks, 4);
    host_answer(&pr.giver, 0); /* one on its way, two with the store, one that it has not taken */
    (void)wk_peers_pump(pr.giver.p, 0);
    host_stop(&pr.giver);
    pr.w.host[0] = &pr.taker;
    pr.w.n_hosts = 1;
    assert_int_equal(pr.tier->ops->close(pr.tier, 0), WK_TIER_OK);
    world_turns(&pr.w, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(q[i]->is_back);
        question_destroy(q[i]);
    }
    host_stop(&pr.taker);
}

/* ---- with threads ---- */

static void wait_all(struct pair *pr, struct question *const *q, uint32_t n)
{
    struct wk_tier_io *io;
    uint64_t end_us = ps_now_us(&pr->w.clock) + 20 * 1000000;
    bool all = false;

    while (!all && ps_now_us(&pr->w.clock) < end_us) {
        host_take(&pr->giver);
        while (pr->giver.n_held > 0)
            host_answer(&pr->giver, 0);
        while ((io = wk_tier_take(&pr->taker.inbox)) != NULL)
            PS_CONTAINER(io, struct question, io)->is_back = true;
        all = true;
        for (uint32_t i = 0; i < n; i++)
            all = all && q[i]->is_back;
        if (!all)
            (void)sched_yield();
    }
    assert_true(all);
}

static void host_start_thread(struct world *w, struct host *h, const char *listen)
{
    struct wk_peers_conf conf = {.listen = listen,
                                 .secret_file = "",
                                 .ident = ident_of(h->item_bytes),
                                 .inbox = &h->inbox,
                                 .asks = &h->asks,
                                 .clock = &w->clock};
    struct ps_buf err = PS_BUF_INIT;

    assert_int_equal(wk_peers_create(&h->p, &conf, &err), WK_TIER_OK);
    ps_buf_fini(&err);
}

static void threads_move_the_same_bytes(void **state)
{
    struct pair pr = {.w = {.n_hosts = 0}};
    struct question *q[WK_PEER_DEPTH];

    (void)state;
    ps_clock_real(&pr.w.clock);
    host_init(&pr.giver, 128 * 1024, PAGES);
    host_init(&pr.taker, 128 * 1024, 0);
    host_start_thread(&pr.w, &pr.giver, "127.0.0.1:0");
    host_start_thread(&pr.w, &pr.taker, "");
    pr.tier = host_dial(&pr.taker, wk_peers_address(pr.giver.p));
    for (uint32_t round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < WK_PEER_DEPTH; i++)
            q[i] = put(&pr, i % 2 == 0 ? WK_TIER_GET : WK_TIER_FIND, i, 1 + i % 4);
        for (uint32_t i = 0; round == 3 && i < WK_PEER_DEPTH; i += 3)
            pr.tier->ops->cancel(pr.tier, &q[i]->io);
        if (round < 3)
            wait_all(&pr, q, WK_PEER_DEPTH);
        else /* with ios in every state */
            assert_int_equal(pr.tier->ops->close(pr.tier, 10000), WK_TIER_OK);
        wait_all(&pr, q, WK_PEER_DEPTH);
        for (uint32_t i = 0; i < WK_PEER_DEPTH; i++) {
            uint32_t n = ps_min_u32(1 + i % 4, PAGES - i);

            if (round < 3)
                question_end(q[i], n, WK_TIER_MISS, pr.taker.item_bytes);
            else
                question_destroy(q[i]);
        }
    }
    host_stop(&pr.taker);
    host_stop(&pr.giver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_tells_how_many_leading_keys_are_there),
        cmocka_unit_test(get_of_16_parts_fills_every_buffer),
        cmocka_unit_test(a_get_misses_what_the_peer_has_not),
        cmocka_unit_test(large_items_come_in_pieces),
        cmocka_unit_test(many_ios_share_one_connection),
        cmocka_unit_test(urgent_ios_overtake_those_that_have_not_begun),
        cmocka_unit_test(a_name_is_looked_up_when_it_is_dialled),
        cmocka_unit_test(a_name_can_go_while_it_is_looked_up),
        cmocka_unit_test(only_those_who_know_the_secret_are_answered),
        cmocka_unit_test(other_items_are_refused),
        cmocka_unit_test(without_a_secret_only_loopback_is_served_and_dialled),
        cmocka_unit_test(a_cancelled_io_that_has_not_begun_comes_back_at_once),
        cmocka_unit_test(a_late_find_comes_back_and_its_connection_stays),
        cmocka_unit_test(an_io_without_an_answer_ends_after_five_seconds),
        cmocka_unit_test(a_dead_peer_is_dialled_again_after_a_pause),
        cmocka_unit_test(a_peer_that_went_away_idle_is_dialled_at_once),
        cmocka_unit_test(close_gives_back_what_is_queued_and_running),
        cmocka_unit_test(destroy_leaves_only_asks_that_are_over),
        cmocka_unit_test(threads_move_the_same_bytes),
    };

    ps_log_init("test", PS_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
