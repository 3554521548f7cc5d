#pragma once

/*
 * For unit tests of the peers: hosts with an invented store of pages, and questions to them.
 *
 * Everything runs in the test's thread: world_turn pumps every host and answers what they were asked.
 */

#include "common/test.h"
#include "worker/tier/peers_internal.h"

enum { PAGES = 32, TOKENS = 16, HELD = 512, TURNS_MAX = 200000 };

struct host {
    struct wk_peers *p;
    struct wk_tier_inbox inbox, asks;
    uint32_t item_bytes;
    uint8_t *item[PAGES]; /* NULL: it has not got the page */
    struct wk_peer_ask *held[HELD];
    uint32_t n_held, n_lent; /* not answered yet; answered and not over */
    uint32_t n_asked, n_over;
    bool is_mute; /* its store answers nobody */
};

struct world {
    struct ps_clock clock;
    struct host *host[2];
    uint32_t n_hosts;
};

struct question { /* an io with all it points to */
    struct wk_tier_io io;
    struct wk_tier_part part[WK_TIER_PARTS_MAX];
    bool is_back;
};

/* Of PAGES and as many more as a question may name. Filled by the first call, before any thread. */
static inline const uint32_t *page_ids(void)
{
    static uint32_t ids[(PAGES + WK_TIER_PARTS_MAX) * TOKENS];

    for (uint32_t i = 0; ids[0] == 0 && i < PS_ARRAY_LEN(ids); i++)
        ids[PS_ARRAY_LEN(ids) - 1 - i] = (i + 1) * 2654435761U;
    return ids;
}

static inline void page_key(uint32_t page, struct wk_kv_key *k)
{
    *k = (struct wk_kv_key){.seed = 7,
                            .hash = 1000 + page,
                            .first_pos = page * TOKENS,
                            .n_tok = TOKENS,
                            .ids = page_ids() + page * TOKENS};
    memset(k->digest, (int)page + 1, sizeof(k->digest));
    memset(k->parent, (int)page, sizeof(k->parent));
}

static inline uint64_t page_word(uint32_t page, uint32_t i)
{
    return (page + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ i;
}

static inline void page_fill(uint32_t page, uint8_t *buf, uint32_t n_bytes)
{
    for (uint32_t i = 0; i < n_bytes / 8; i++) {
        uint64_t v = page_word(page, i);

        memcpy(buf + (size_t)8 * i, &v, 8);
    }
}

static inline bool page_is_right(uint32_t page, const uint8_t *buf, uint32_t n_bytes)
{
    for (uint32_t i = 0; i < n_bytes / 8; i++) {
        uint64_t v = page_word(page, i);

        if (memcmp(buf + (size_t)8 * i, &v, 8) != 0)
            return false;
    }
    return true;
}

/* ---- hosts ---- */

static inline struct wk_tier_ident ident_of(uint32_t item_bytes)
{
    return (struct wk_tier_ident){.space_id = 1,
                                  .arith_id = 2,
                                  .layout_id = 3,
                                  .n_group = 1,
                                  .page_tokens = TOKENS,
                                  .item_bytes = {item_bytes},
                                  .n_ranks = 1};
}

static inline void host_init(struct host *h, uint32_t item_bytes, uint32_t n_pages)
{
    *h = (struct host){.item_bytes = item_bytes};
    wk_tier_inbox_init(&h->inbox, NULL);
    wk_tier_inbox_init(&h->asks, NULL);
    for (uint32_t i = 0; i < n_pages; i++) {
        h->item[i] = ps_alloc_aligned(4096, item_bytes);
        page_fill(i, h->item[i], item_bytes);
    }
}

static inline void host_start(struct world *w, struct host *h, const char *listen,
                              const char *secret)
{
    struct wk_peers_conf conf = {.listen = listen,
                                 .secret_file = secret,
                                 .ident = ident_of(h->item_bytes),
                                 .inbox = &h->inbox,
                                 .asks = &h->asks,
                                 .clock = &w->clock,
                                 .no_thread = true};
    struct ps_buf err = PS_BUF_INIT;

    assert_int_equal(wk_peers_create(&h->p, &conf, &err), WK_TIER_OK);
    w->host[w->n_hosts++] = h;
    ps_buf_fini(&err);
}

/* The leading pages that it has; the store compares the ids, so a test sees that they arrive. */
static inline uint32_t host_n_found(struct host *h, struct wk_peer_ask *ask)
{
    uint32_t n = 0;

    for (; n < ask->io.n_part; n++) {
        struct wk_tier_part *part = &ask->io.part[n];
        uint32_t page = part->key.first_pos / TOKENS;
        struct wk_kv_key want;

        if (page >= PAGES || h->item[page] == NULL)
            break;
        page_key(page, &want);
        assert_int_equal(part->key.n_tok, TOKENS);
        assert_int_equal(part->key.hash, want.hash);
        assert_int_equal(part->key.seed, want.seed);
        assert_memory_equal(part->key.digest, want.digest, sizeof(want.digest));
        assert_memory_equal(part->key.parent, want.parent, sizeof(want.parent));
        assert_memory_equal(part->key.ids, want.ids, TOKENS * sizeof(*want.ids));
        if (ask->wants_bytes)
            part->buf = h->item[page];
    }
    return n;
}

static inline void host_answer(struct host *h, uint32_t at)
{
    struct wk_peer_ask *ask = h->held[at];

    h->held[at] = h->held[--h->n_held];
    h->n_lent++;
    ask->io.n_found = host_n_found(h, ask);
    wk_peers_answer(h->p, ask);
}

static inline void host_take(struct host *h)
{
    struct wk_tier_io *io;

    while ((io = wk_tier_take(&h->asks)) != NULL) {
        struct wk_peer_ask *ask = PS_CONTAINER(io, struct wk_peer_ask, io);

        if (ask->is_over) {
            assert_true(h->n_lent > 0);
            h->n_lent--;
            h->n_over++;
            wk_peers_ask_free(ask);
            continue;
        }
        assert_true(h->n_held < HELD);
        h->held[h->n_held++] = ask;
        h->n_asked++;
    }
}

static inline void host_stop(struct host *h)
{
    const uint32_t n_asked = h->n_asked;

    wk_peers_destroy(h->p);
    h->p = NULL;
    host_take(h);
    assert_int_equal(h->n_asked, n_asked); /* nothing new is left to be answered */
    assert_int_equal(h->n_lent, 0);        /* every one that was answered came back */
    while (h->n_held > 0)
        wk_peers_ask_free(h->held[--h->n_held]);
    assert_null(wk_tier_take(&h->inbox));
    wk_tier_inbox_fini(&h->inbox);
    wk_tier_inbox_fini(&h->asks);
    for (uint32_t i = 0; i < PAGES; i++)
        ps_free(h->item[i]);
}

static inline struct wk_tier *host_dial(struct host *from, const char *address)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_tier *t;

    assert_int_equal(wk_tier_peer_create(&t, from->p, address, &err), WK_TIER_OK);
    ps_buf_fini(&err);
    return t;
}

/* ---- the world ---- */

static inline void world_turn(struct world *w)
{
    for (uint32_t i = 0; i < w->n_hosts; i++) {
        struct host *h = w->host[i];
        struct wk_tier_io *io;

        (void)wk_peers_pump(h->p, 0);
        host_take(h);
        while (!h->is_mute && h->n_held > 0)
            host_answer(h, 0);
        while ((io = wk_tier_take(&h->inbox)) != NULL) {
            struct question *q = PS_CONTAINER(io, struct question, io);

            assert_false(q->is_back); /* exactly once */
            q->is_back = true;
        }
    }
}

/* The kernel may take its time between two sockets: a test waits for what it expects. */
#define WORLD_UNTIL(w, what) \
    do { \
        for (uint32_t turn_ = 0; !(what) && turn_ < TURNS_MAX; turn_++) \
            world_turn(w); \
        assert_true(what); \
    } while (0)

/* For what must not happen, and for what needs no other host. */
static inline void world_turns(struct world *w, uint32_t n)
{
    while (n-- > 0)
        world_turn(w);
}

/* ---- questions ---- */

static inline struct question *question_create(enum wk_tier_op op, uint32_t page, uint32_t n,
                                               uint32_t item_bytes)
{
    struct question *q = ps_calloc(1, sizeof(*q));

    q->io.op = op;
    q->io.n_part = n;
    q->io.part = q->part;
    for (uint32_t i = 0; i < n; i++) {
        page_key(page + i, &q->part[i].key);
        if (op == WK_TIER_GET)
            q->part[i].buf = ps_alloc_aligned(4096, item_bytes);
    }
    return q;
}

static inline void question_destroy(struct question *q)
{
    for (uint32_t i = 0; i < q->io.n_part; i++)
        ps_free(q->part[i].buf);
    ps_free(q);
}

static inline struct question *question_put(struct wk_tier *t, enum wk_tier_op op, uint32_t page,
                                            uint32_t n, uint32_t item_bytes)
{
    struct question *q = question_create(op, page, n, item_bytes);

    assert_int_equal(t->ops->submit(t, &q->io), WK_TIER_OK);
    return q;
}

static inline void question_wait(struct world *w, const struct question *q)
{
    WORLD_UNTIL(w, q->is_back);
}

/* The first n_done parts are right, the others have this status; q is gone after this. */
static inline void question_end(struct question *q, uint32_t n_done, enum wk_tier_status rest,
                                uint32_t item_bytes)
{
    for (uint32_t i = 0; i < q->io.n_part; i++) {
        assert_int_equal(q->part[i].status, i < n_done ? WK_TIER_DONE : rest);
        if (i < n_done && q->io.op == WK_TIER_GET)
            assert_true(
                page_is_right(q->part[i].key.first_pos / TOKENS, q->part[i].buf, item_bytes));
    }
    question_destroy(q);
}
