/* What strangers, liars and cuts do to both sides of the peers. */

#include "common/log.h"
#include "common/rng.h"
#include "worker/tier/peer_raw.h"

enum { ITEM = 3 * 1024 * 1024, HISTORIES = 500 };

struct giving { /* one host that serves */
    struct world w;
    struct host h;
};

static void giving_open(struct giving *g, uint32_t item_bytes)
{
    *g = (struct giving){.w = {.n_hosts = 0}};
    ps_clock_manual(&g->w.clock, 1000000);
    host_init(&g->h, item_bytes, 4);
    host_start(&g->w, &g->h, "127.0.0.1:0", "");
}

static int dial_ready(struct giving *g)
{
    int fd = raw_dial(wk_peers_address(g->h.p));

    raw_handshake(&g->w, fd, true, g->h.item_bytes);
    return fd;
}

static void put_question(struct ps_buf *b, uint32_t id, enum wk_tier_op op, uint32_t n)
{
    struct question *q = question_create(op, 0, n, 4096);

    wk_peer_put_ask(b, id, &q->io);
    question_destroy(q);
}

/* It still answers who keeps the rules. */
static void assert_serves(struct giving *g)
{
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;
    int fd = dial_ready(g);
    uint8_t body[256];

    put_question(&b, 5, WK_TIER_FIND, 3);
    raw_send(fd, &b);
    assert_true(raw_frame(&g->w, fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_FOUND);
    assert_int_equal(h.id, 5);
    assert_int_equal(body[0], 3);
    close(fd);
    ps_buf_fini(&b);
}

/* ---- strangers ---- */

static void garbage_is_cut_and_others_are_served(void **state)
{
    uint8_t bytes[512];
    struct giving g;
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 2);
    giving_open(&g, 8192);
    for (uint32_t i = 0; i < 40; i++) {
        int fd = i % 2 == 0 ? raw_dial(wk_peers_address(g.h.p)) : dial_ready(&g);

        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = (uint8_t)ps_rng_u64(&r);
        assert_true(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0);
        assert_true(raw_is_closed(&g.w, fd));
        close(fd);
    }
    assert_serves(&g);
    WORLD_UNTIL(&g.w, g.h.p->n_served == 0);
    host_stop(&g.h);
}

static void questions_before_the_proof_are_cut(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct giving g;
    int fd;

    (void)state;
    giving_open(&g, 8192);
    fd = raw_dial(wk_peers_address(g.h.p));
    put_question(&b, 1, WK_TIER_GET, 1);
    raw_send(fd, &b);
    assert_true(raw_is_closed(&g.w, fd));
    assert_int_equal(g.h.n_asked, 0);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

static void a_stranger_who_says_nothing_loses_the_place(void **state)
{
    int fd[WK_PEER_SERVED_MAX];
    struct giving g;

    (void)state;
    giving_open(&g, 8192);
    for (uint32_t i = 0; i < WK_PEER_SERVED_MAX; i++) {
        fd[i] = raw_dial(wk_peers_address(g.h.p));
        world_turn(&g.w);
    }
    WORLD_UNTIL(&g.w, g.h.p->n_served == WK_PEER_SERVED_MAX);
    assert_serves(&g); /* the oldest of them made room */
    ps_clock_advance(&g.w.clock, WK_PEER_HANDSHAKE_US);
    WORLD_UNTIL(&g.w, g.h.p->n_served == 0);
    for (uint32_t i = 0; i < WK_PEER_SERVED_MAX; i++)
        close(fd[i]);
    host_stop(&g.h);
}

static void more_connections_than_places_are_told_so(void **state)
{
    int fd[WK_PEER_SERVED_MAX], more;
    struct wk_peer_head h;
    struct giving g;
    uint8_t body[256];

    (void)state;
    giving_open(&g, 8192);
    for (uint32_t i = 0; i < WK_PEER_SERVED_MAX; i++)
        fd[i] = dial_ready(&g);
    more = raw_dial(wk_peers_address(g.h.p));
    assert_true(raw_frame(&g.w, more, &h, body));
    assert_int_equal(h.kind, WK_PEER_REFUSE);
    assert_int_equal(body[0], WK_PEER_R_BUSY);
    assert_true(raw_is_closed(&g.w, more));
    close(more);
    for (uint32_t i = 0; i < WK_PEER_SERVED_MAX; i++)
        close(fd[i]);
    host_stop(&g.h);
}

static void another_version_is_told_so(void **state)
{
    struct wk_peer_challenge c = {.version = WK_PEER_VERSION + 1};
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;
    struct giving g;
    uint8_t body[256];
    int fd;

    (void)state;
    giving_open(&g, 8192);
    fd = raw_dial(wk_peers_address(g.h.p));
    wk_peer_put_challenge(&b, &c);
    raw_send(fd, &b);
    assert_true(raw_frame(&g.w, fd, &h, body)); /* its challenge */
    assert_true(raw_frame(&g.w, fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_REFUSE);
    assert_int_equal(body[0], WK_PEER_R_VERSION);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

static void a_proof_sent_back_proves_nothing(void **state)
{
    struct wk_peer_challenge theirs;
    uint8_t body[256], nonces[2][WK_PEER_NONCE_BYTES];
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;
    struct giving g;
    int fd;

    (void)state;
    giving_open(&g, 8192);
    fd = raw_dial(wk_peers_address(g.h.p));
    assert_true(raw_frame(&g.w, fd, &h, body));
    assert_int_equal(wk_peer_challenge_decode(body, h.body_bytes, &theirs), WK_PEER_WIRE_OK);
    wk_peer_put_challenge(&b, &theirs); /* its own nonce as ours */
    memcpy(nonces[0], theirs.nonce, sizeof(theirs.nonce));
    memcpy(nonces[1], theirs.nonce, sizeof(theirs.nonce));
    raw_proof(false, nonces, "", &b); /* the server's words */
    raw_send(fd, &b);
    assert_true(raw_frame(&g.w, fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_REFUSE);
    assert_int_equal(body[0], WK_PEER_R_SECRET);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

static void a_fifth_question_is_cut_and_all_asks_come_back(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct giving g;
    int fd;

    (void)state;
    giving_open(&g, 8192);
    g.h.is_mute = true;
    fd = dial_ready(&g);
    for (uint32_t i = 0; i < WK_PEER_INFLIGHT + 1; i++)
        put_question(&b, i, WK_TIER_GET, 2);
    raw_send(fd, &b);
    assert_true(raw_is_closed(&g.w, fd));
    assert_int_equal(g.h.n_asked, WK_PEER_INFLIGHT);
    g.h.is_mute = false;
    world_turns(&g.w, 4);
    assert_int_equal(g.h.n_over, WK_PEER_INFLIGHT);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

static void who_does_not_read_is_dropped_after_five_seconds(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct giving g;
    int fd;

    (void)state;
    giving_open(&g, ITEM); /* of four of them the kernel does not take all */
    fd = dial_ready(&g);
    put_question(&b, 1, WK_TIER_GET, 4);
    raw_send(fd, &b);
    WORLD_UNTIL(&g.w, g.h.n_lent == 1 && g.h.p->conn[0]->bulk_left > 0);
    world_turns(&g.w, 100);
    ps_clock_advance(&g.w.clock, WK_PEER_STALL_US - 1);
    world_turns(&g.w, 4);
    assert_int_equal(g.h.n_lent, 1);
    /* The kernel may have taken a little more just now, which counts as progress. */
    for (uint32_t i = 0; g.h.n_over == 0 && i < 20; i++) {
        ps_clock_advance(&g.w.clock, i == 0 ? 1 : WK_PEER_STALL_US);
        world_turns(&g.w, 100);
    }
    assert_int_equal(g.h.n_over, 1);
    assert_int_equal(g.h.p->n_served, 0);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

static void a_store_that_never_answers_bounds_what_others_ask(void **state)
{
    const uint32_t n = WK_PEER_ASKS_MAX / WK_PEER_INFLIGHT;
    struct ps_buf b = PS_BUF_INIT;
    struct wk_peer_head h;
    struct giving g;
    uint8_t body[256];
    int fd;

    (void)state;
    giving_open(&g, 8192);
    g.h.is_mute = true;
    for (uint32_t i = 0; i < n; i++) { /* each asks and goes */
        fd = dial_ready(&g);
        for (uint32_t j = 0; j < WK_PEER_INFLIGHT; j++)
            put_question(&b, j, WK_TIER_GET, 1);
        raw_send(fd, &b);
        WORLD_UNTIL(&g.w, g.h.n_held == WK_PEER_INFLIGHT * (i + 1));
        close(fd);
    }
    fd = dial_ready(&g);
    put_question(&b, 1, WK_TIER_GET, 1);
    raw_send(fd, &b);
    assert_true(raw_frame(&g.w, fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_GOT);
    assert_int_equal(body[0], 0);
    assert_int_equal(g.h.n_held, WK_PEER_ASKS_MAX);
    g.h.is_mute = false;
    WORLD_UNTIL(&g.w, g.h.n_over == WK_PEER_ASKS_MAX);
    close(fd);
    ps_buf_fini(&b);
    host_stop(&g.h);
}

/* ---- liars ---- */

struct taking { /* one host that asks a peer by hand */
    struct world w;
    struct host h;
    struct wk_tier *tier;
    struct question *q;
    uint32_t id; /* of the question on the wire */
    int listener, fd;
};

static void taking_open(struct taking *t, uint32_t n)
{
    struct wk_peer_head h;
    uint8_t body[4096];
    char address[32];

    *t = (struct taking){.w = {.n_hosts = 0}};
    ps_clock_manual(&t->w.clock, 1000000);
    host_init(&t->h, ITEM, 0);
    host_start(&t->w, &t->h, "", "");
    t->listener = raw_listen(address);
    t->tier = host_dial(&t->h, address);
    t->q = question_put(t->tier, WK_TIER_GET, 0, n, ITEM);
    t->fd = raw_accept(&t->w, t->listener);
    raw_handshake(&t->w, t->fd, false, ITEM);
    assert_true(raw_frame(&t->w, t->fd, &h, body));
    assert_int_equal(h.kind, WK_PEER_GET);
    t->id = h.id;
}

static void taking_close(struct taking *t, uint32_t n_done)
{
    question_wait(&t->w, t->q);
    question_end(t->q, n_done, WK_TIER_FAULT, ITEM);
    close(t->fd);
    close(t->listener);
    assert_int_equal(t->tier->ops->close(t->tier, 0), WK_TIER_OK);
    host_stop(&t->h);
}

static void a_liar_is_cut(void **state)
{
    static const struct {
        uint32_t n_found; /* of 2 */
        bool is_other_id, is_found_kind;
        struct wk_peer_piece piece;
    } lies[] = {
        {.n_found = 3},
        {.n_found = UINT32_MAX},
        {.n_found = 2, .is_other_id = true},
        {.n_found = 2, .is_found_kind = true},
        {.n_found = 2, .piece = {.part = 1, .n_bytes = WK_PEER_PIECE_BYTES}},
        {.n_found = 2, .piece = {.part = 0, .off = 4096, .n_bytes = WK_PEER_PIECE_BYTES}},
        {.n_found = 2, .piece = {.part = 0, .n_bytes = WK_PEER_PIECE_BYTES - 1}},
        {.n_found = 2, .piece = {.part = 0, .n_bytes = 1}},
    };
    struct ps_buf b = PS_BUF_INIT;
    struct taking t;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(lies); i++) {
        taking_open(&t, 2);
        wk_peer_put_count(&b, lies[i].is_found_kind ? WK_PEER_FOUND : WK_PEER_GOT,
                          t.id + lies[i].is_other_id, lies[i].n_found);
        if (lies[i].piece.n_bytes > 0)
            wk_peer_put_piece(&b, t.id, &lies[i].piece);
        raw_send(t.fd, &b);
        taking_close(&t, 0);
    }
    ps_buf_fini(&b);
}

static void bytes_without_a_promise_are_cut(void **state)
{
    struct wk_peer_piece piece = {.n_bytes = WK_PEER_PIECE_BYTES};
    struct ps_buf b = PS_BUF_INIT;
    struct taking t;

    (void)state;
    taking_open(&t, 1);
    wk_peer_put_piece(&b, t.id, &piece);
    raw_send(t.fd, &b);
    taking_close(&t, 0);
    ps_buf_fini(&b);
}

static void send_all(struct taking *t, const uint8_t *at, size_t n)
{
    for (uint32_t i = 0; n > 0 && i < TURNS_MAX; i++) {
        ssize_t sent = send(t->fd, at, n, MSG_NOSIGNAL);

        if (sent > 0) {
            at += sent;
            n -= (size_t)sent;
        }
        world_turn(&t->w);
    }
    assert_int_equal(n, 0);
}

static void send_item(struct taking *t, uint32_t part, const uint8_t *item, uint64_t sum)
{
    struct ps_buf b = PS_BUF_INIT;

    for (uint32_t off = 0; off < ITEM;) {
        struct wk_peer_piece piece = {.part = part,
                                      .off = off,
                                      .sum = sum,
                                      .n_bytes = ps_min_u32(ITEM - off, WK_PEER_PIECE_BYTES)};

        wk_peer_put_piece(&b, t->id, &piece);
        send_all(t, (const uint8_t *)b.data, b.len);
        send_all(t, item + off, piece.n_bytes);
        ps_buf_clear(&b);
        off += piece.n_bytes;
    }
    ps_buf_fini(&b);
}

static void an_item_with_another_checksum_is_bad(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct taking t;
    uint8_t *item = ps_alloc(ITEM);
    uint64_t sum;

    (void)state;
    taking_open(&t, 3);
    wk_peer_put_count(&b, WK_PEER_GOT, t.id, 3);
    raw_send(t.fd, &b);
    for (uint32_t i = 0; i < 3; i++) {
        page_fill(i, item, ITEM);
        sum = ps_hash64(item, ITEM, 0);
        if (i == 1)
            item[ITEM - 1] ^= 1;
        send_item(&t, i, item, sum);
    }
    question_wait(&t.w, t.q);
    assert_int_equal(t.q->part[0].status, WK_TIER_DONE);
    assert_int_equal(t.q->part[1].status, WK_TIER_BAD);
    assert_int_equal(t.q->part[2].status, WK_TIER_DONE);
    t.q->part[1].status =
        WK_TIER_DONE; /* for the end below: it is done with, and its byte is put right */
    t.q->part[1].buf[ITEM - 1] ^= 1;
    taking_close(&t, 3);
    ps_free(item);
    ps_buf_fini(&b);
}

static void parts_that_came_before_the_cut_stay_done(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct taking t;
    uint8_t *item = ps_alloc(ITEM);

    (void)state;
    taking_open(&t, 3);
    wk_peer_put_count(&b, WK_PEER_GOT, t.id, 3);
    raw_send(t.fd, &b);
    page_fill(0, item, ITEM);
    send_item(&t, 0, item, ps_hash64(item, ITEM, 0));
    shutdown(t.fd, SHUT_RDWR);
    taking_close(&t, 1);
    ps_free(item);
    ps_buf_fini(&b);
}

static void a_half_open_peer_costs_two_seconds(void **state)
{
    struct world w = {.n_hosts = 0};
    struct question *q;
    struct wk_tier *t;
    struct host h;
    char address[32];
    int listener, fd;

    (void)state;
    ps_clock_manual(&w.clock, 1000000);
    host_init(&h, 8192, 0);
    host_start(&w, &h, "", "");
    listener = raw_listen(address);
    t = host_dial(&h, address);
    q = question_put(t, WK_TIER_FIND, 0, 1, 0);
    fd = raw_accept(&w, listener); /* and says nothing */
    ps_clock_advance(&w.clock, WK_PEER_HANDSHAKE_US - 1);
    world_turns(&w, 4);
    assert_false(q->is_back);
    ps_clock_advance(&w.clock, 1);
    question_wait(&w, q);
    question_end(q, 0, WK_TIER_FAULT, 0);
    close(fd);
    close(listener);
    assert_int_equal(t->ops->close(t, 0), WK_TIER_OK);
    host_stop(&h);
}

/* ---- histories ---- */

enum { QUESTIONS = 24 };

struct history {
    struct world w;
    struct host host[2];
    struct wk_tier *tier[2]; /* of each host, to the other */
    struct question *q[QUESTIONS];
    uint32_t n_put, item_bytes;
    struct ps_rng r;
};

static bool once_in(struct history *y, uint32_t n)
{
    return ps_rng_below(&y->r, n) == 0;
}

static void put_any(struct history *y)
{
    uint32_t who = (uint32_t)ps_rng_below(&y->r, 2), page = (uint32_t)ps_rng_below(&y->r, PAGES);
    uint32_t n = 1 + (uint32_t)ps_rng_below(&y->r, ps_min_u32(WK_TIER_PARTS_MAX, PAGES - page));
    enum wk_tier_op op = once_in(y, 3) ? WK_TIER_FIND : WK_TIER_GET;
    struct question *q = question_create(op, page, n, y->item_bytes);

    q->io.urgent = once_in(y, 3);
    if (once_in(y, 6))
        q->io.deadline_us = ps_now_us(&y->w.clock) + ps_rng_below(&y->r, 300000);
    assert_int_equal(y->tier[who]->ops->submit(y->tier[who], &q->io), WK_TIER_OK);
    y->q[y->n_put++] = q;
}

/* Somewhere in a frame: the other side sees half of it, or bytes that are none. */
static void hurt_any(struct history *y)
{
    struct wk_peers *p = y->host[ps_rng_below(&y->r, 2)].p;
    struct wk_conn *c;

    if (p->n_conns == 0)
        return;
    c = p->conn[ps_rng_below(&y->r, p->n_conns)];
    if (c->state == WK_CONN_DEAD)
        return;
    if (once_in(y, 3))
        (void)send(c->fd, "garbage bytes", 13, MSG_NOSIGNAL | MSG_DONTWAIT);
    else
        shutdown(c->fd, once_in(y, 2) ? SHUT_RDWR : SHUT_WR);
}

static void step(struct history *y)
{
    struct host *h = &y->host[ps_rng_below(&y->r, 2)];
    struct wk_tier_io *io;

    if (y->n_put < QUESTIONS && once_in(y, 3))
        put_any(y);
    if (once_in(y, 40))
        hurt_any(y);
    if (y->n_put > 0 && once_in(y, 20)) {
        struct question *q = y->q[ps_rng_below(&y->r, y->n_put)];

        if (!q->is_back)
            q->io.tier->ops->cancel(q->io.tier, &q->io);
    }
    if (once_in(y, 10))
        ps_clock_advance(&y->w.clock, ps_rng_below(&y->r, 200000));
    (void)wk_peers_pump(h->p, 0);
    host_take(h);
    if (h->n_held > 0 && once_in(y, 2))
        host_answer(h, (uint32_t)ps_rng_below(&y->r, h->n_held));
    while ((io = wk_tier_take(&h->inbox)) != NULL) {
        struct question *q = PS_CONTAINER(io, struct question, io);

        assert_false(q->is_back);
        q->is_back = true;
    }
}

/* Whatever happened: what is DONE is right, and nothing says that it is still on its way. */
static uint32_t check_question(struct history *y, const struct question *q)
{
    uint32_t n_done = 0;

    assert_true(q->is_back);
    for (uint32_t i = 0; i < q->io.n_part; i++) {
        uint32_t page = q->part[i].key.first_pos / TOKENS;

        assert_int_not_equal(q->part[i].status, WK_TIER_PENDING);
        assert_int_not_equal(q->part[i].status, WK_TIER_BAD);
        if (q->part[i].status != WK_TIER_DONE)
            continue;
        n_done++;
        if (q->io.op == WK_TIER_GET)
            assert_true(page_is_right(page, q->part[i].buf, y->item_bytes));
        assert_true(page < 20); /* neither of them has more */
    }
    return n_done;
}

static uint32_t run_history(uint64_t seed)
{
    const bool is_large = seed % 50 == 0; /* items of two pieces */
    struct history y = {.n_put = 0};
    uint32_t n_done = 0;

    ps_rng_seed(&y.r, seed);
    y.item_bytes = is_large ? WK_PEER_PIECE_BYTES + 4096 : 4096u << ps_rng_below(&y.r, 3);
    ps_clock_manual(&y.w.clock, 1000000);
    for (uint32_t i = 0; i < 2; i++) {
        host_init(&y.host[i], y.item_bytes, is_large ? 2 : 20);
        host_start(&y.w, &y.host[i], "127.0.0.1:0", "");
    }
    for (uint32_t i = 0; i < 2; i++)
        y.tier[i] = host_dial(&y.host[i], wk_peers_address(y.host[1 - i].p));
    for (uint32_t i = 0; i < 200; i++)
        step(&y);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(y.tier[i]->ops->close(y.tier[i], 0), WK_TIER_OK);
    world_turns(&y.w, 2);
    for (uint32_t i = 0; i < y.n_put; i++) {
        n_done += check_question(&y, y.q[i]);
        question_destroy(y.q[i]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        world_turns(&y.w, 2);
        assert_int_equal(y.host[i].n_held, 0);
        assert_int_equal(y.host[i].n_asked, y.host[i].n_over);
    }
    host_stop(&y.host[0]);
    host_stop(&y.host[1]);
    return n_done;
}

static void every_io_and_ask_comes_back_once_whatever_is_cut(void **state)
{
    uint32_t n_done = 0;

    (void)state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++)
        n_done += run_history(seed);
    assert_true(n_done > 10000); /* between the cuts a lot was moved */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_is_cut_and_others_are_served),
        cmocka_unit_test(questions_before_the_proof_are_cut),
        cmocka_unit_test(a_stranger_who_says_nothing_loses_the_place),
        cmocka_unit_test(more_connections_than_places_are_told_so),
        cmocka_unit_test(another_version_is_told_so),
        cmocka_unit_test(a_proof_sent_back_proves_nothing),
        cmocka_unit_test(a_fifth_question_is_cut_and_all_asks_come_back),
        cmocka_unit_test(who_does_not_read_is_dropped_after_five_seconds),
        cmocka_unit_test(a_store_that_never_answers_bounds_what_others_ask),
        cmocka_unit_test(a_liar_is_cut),
        cmocka_unit_test(bytes_without_a_promise_are_cut),
        cmocka_unit_test(an_item_with_another_checksum_is_bad),
        cmocka_unit_test(parts_that_came_before_the_cut_stay_done),
        cmocka_unit_test(a_half_open_peer_costs_two_seconds),
        cmocka_unit_test(every_io_and_ask_comes_back_once_whatever_is_cut),
    };

    ps_log_init("test", PS_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
