#include "worker/exec/exec_sim.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/log.h"

enum {
    PT = WK_SIM_PAGE_TOKENS,
    STAMP_EVERY = 4096, /* each block of a full item ends with its digest: torn moves show */
    DEPTH_MAX = 2,
};

/* Digest of the empty prefix, and what separates the uses of one hash function. */
#define SEED_CHAIN   UINT64_C(0x73696d2063686169)
#define SEED_TOKEN   UINT64_C(0x73696d20746f6b65)
#define SEED_LOGPROB UINT64_C(0x73696d206c6f6770)
#define SEED_STATE   UINT64_C(0x73696d2073746174)

struct sim_item { /* what an item begins with */
    uint32_t n_tok, unused;
    uint32_t ids[PT];
    uint64_t before, after; /* digest of everything before the page; at its last token */
};
_Static_assert(sizeof(struct sim_item) == 88, "items live in tiers");

struct sim_state { /* what an item of group 1 begins with */
    uint32_t n_tok, unused;
    uint64_t digest; /* running, of all tokens before n_tok */
};
_Static_assert(sizeof(struct sim_state) == 16, "items live in tiers");

struct slot {
    uint32_t pos; /* tokens whose pages have been verified or written by this slot */
    uint64_t run; /* with states: the running digest of these tokens */
    uint32_t last_token;
    bool has_token;
    uint64_t
        *after; /* [cap] digest at the end of each page of these tokens, the last maybe partial */
    uint32_t cap;
};

struct flight {
    struct wk_plan *plan; /* copy */
    size_t cap;
    uint64_t due_us;
    uint32_t step_us;
};

struct exec_sim {
    struct wk_exec base;
    struct wk_exec_sim_conf conf;
    uint8_t *arena;
    size_t arena_bytes;
    uint64_t *heads; /* [n_pages] `after` of each item, dense: one cache line checks eight pages */
    struct slot *slots;
    struct flight flights[DEPTH_MAX]; /* ring */
    uint32_t first, n;
    struct wk_row_out *outs;   /* [n_slots] */
    struct pb_logprob *scores; /* [cap_scores] of the step */
    uint32_t cap_scores;
    int timer_fd;
};

/* ---- the definition ---- */

static uint64_t chain(uint64_t before, const uint32_t *ids, uint32_t n)
{
    return n == 0 ? before : ps_hash64(ids, n * sizeof(*ids), before);
}

uint64_t wk_exec_sim_digest(const uint32_t *ids, uint32_t n)
{
    uint64_t h = SEED_CHAIN;

    for (; n > PT; n -= PT, ids += PT)
        h = chain(h, ids, PT);
    return chain(h, ids, n);
}

static bool is_in(uint32_t id, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

uint32_t wk_exec_sim_token(const struct wk_sim_vocab *v, uint64_t digest,
                           const struct pb_sampling *p, uint32_t pos, const uint32_t *ban,
                           uint32_t n_ban)
{
    /* A greedy answer is the same whatever the seed. */
    uint64_t words[3] = {digest, p->temperature > 0 ? p->seed : 0, pos};
    uint64_t h = ps_hash64(words, sizeof(words), SEED_TOKEN);
    uint32_t first = (uint32_t)(h % v->n_ids);

    if (v->n_eos > 0 && (double)(h >> 11) * 0x1p-53 < v->p_eos && !is_in(v->eos[0], ban, n_ban))
        return v->eos[0];
    for (uint32_t k = 0; k < v->n_ids; k++) {
        uint32_t id = (uint32_t)(((uint64_t)first + k) % v->n_ids);

        if (!is_in(id, ban, n_ban) && !is_in(id, v->eos, v->n_eos))
            return id;
    }
    return first; /* everything is banned */
}

float wk_exec_sim_logprob(uint64_t digest, uint32_t token)
{
    return -(float)(ps_hash64(&token, sizeof(token), digest ^ SEED_LOGPROB) % 4096) / 512;
}

static void add_rows(struct wk_kv_layout *l, uint32_t item_bytes)
{
    PS_ASSERT(item_bytes >= WK_SIM_ITEM_BYTES_MIN && item_bytes % WK_SIM_ITEM_BYTES_MIN == 0);
    wk_kv_layout_init(l);
    /* K and V of one head: 2 * 16 tokens * d * 2 bytes fill the item. */
    (void)wk_kv_layout_add_attn(l, 1, 1, item_bytes / (2 * PT * 2), KN_BF16, PT);
}

void wk_exec_sim_layout(struct wk_kv_layout *l, uint32_t item_bytes)
{
    add_rows(l, item_bytes);
    wk_kv_layout_seal(l);
    PS_ASSERT(l->group[0].item_bytes == item_bytes);
}

void wk_exec_sim_layout_state(struct wk_kv_layout *l, uint32_t item_bytes, uint32_t state_bytes)
{
    enum { RING_ROWS = 8, REWIND = 2 };

    PS_ASSERT(state_bytes > 0 && state_bytes % (2 * WK_SIM_ITEM_BYTES_MIN) == 0);
    add_rows(l, item_bytes);
    (void)wk_kv_layout_add_ring(l, "raw", 1, 1, state_bytes / 2 / RING_ROWS, RING_ROWS - REWIND,
                                REWIND);
    (void)wk_kv_layout_add_state(l, "gdn_s", 1, state_bytes / 2);
    wk_kv_layout_seal(l);
    PS_ASSERT(l->group[0].item_bytes == item_bytes && l->group[1].item_bytes == state_bytes);
}

/* ---- pages ---- */

static struct sim_item *item_of(const struct exec_sim *e, uint32_t page)
{
    PS_ASSERT(page < e->base.n_pages);
    return (struct sim_item *)(void *)(e->arena + (size_t)page * e->conf.item_bytes);
}

static uint64_t *stamp_of(void *item, uint32_t block)
{
    return (uint64_t *)(void *)((uint8_t *)item + (size_t)(block + 1) * STAMP_EVERY) - 1;
}

/* The item's tokens changed. */
static void seal_item(struct exec_sim *e, uint32_t page, struct sim_item *it)
{
    it->after = chain(it->before, it->ids, it->n_tok);
    e->heads[page] = it->after;
    if (it->n_tok == PT) {
        for (uint32_t i = 0; i < e->conf.item_bytes / STAMP_EVERY; i++)
            *stamp_of(it, i) = it->after;
    }
}

static bool item_is_sound(const struct exec_sim *e, uint32_t page, struct sim_item *it)
{
    if (it->n_tok == 0 || it->n_tok > PT || it->after != chain(it->before, it->ids, it->n_tok) ||
        it->after != e->heads[page])
        return false;
    for (uint32_t i = 0; i < e->conf.item_bytes / STAMP_EVERY && it->n_tok == PT; i++) {
        if (*stamp_of(it, i) != it->after)
            return false;
    }
    return true;
}

static int bad_page(const struct wk_row *row, uint32_t i, uint32_t page, const char *why)
{
    ps_error("a page does not hold what its sequence wrote",
             "why=\"%s\" slot=%u page=%u index=%u position=%u", why, row->slot, page, i,
             row->pos_lo);
    return PS_FAULT(-EIO);
}

/* ---- states ---- */

static struct sim_state *state_of(const struct exec_sim *e, uint32_t item)
{
    PS_ASSERT(e->conf.state_bytes > 0 && item < e->arena_bytes / e->conf.state_bytes);
    return (struct sim_state *)(void *)(e->arena + (size_t)item * e->conf.state_bytes);
}

static uint64_t run_on(uint64_t digest, const uint32_t *toks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        digest = ps_hash64(&toks[i], sizeof(toks[i]), digest);
    return digest;
}

/* What had been written into these bytes as pages is no more. */
static void forget_pages(struct exec_sim *e, uint32_t item)
{
    uint64_t at = (uint64_t)item * e->conf.state_bytes, end = at + e->conf.state_bytes;

    for (uint64_t p = at / e->conf.item_bytes; p * e->conf.item_bytes < end; p++)
        e->heads[p] = 0;
}

static void write_state(struct exec_sim *e, uint32_t item, uint32_t n_tok, uint64_t digest)
{
    struct sim_state *st = state_of(e, item);

    *st = (struct sim_state){.n_tok = n_tok, .digest = digest};
    for (uint32_t i = 0; i < e->conf.state_bytes / STAMP_EVERY; i++)
        *stamp_of(st, i) = digest;
    forget_pages(e, item);
}

static bool state_is(const struct exec_sim *e, uint32_t item, uint32_t n_tok)
{
    struct sim_state *st = state_of(e, item);
    bool ok = st->n_tok == n_tok;

    for (uint32_t i = 0; i < e->conf.state_bytes / STAMP_EVERY; i++)
        ok &= *stamp_of(st, i) == st->digest;
    return ok;
}

static int bad_state(uint32_t item, uint32_t pos, const char *why)
{
    ps_error("a state is not that of its sequence", "why=\"%s\" item=%u position=%u", why, item,
             pos);
    return PS_FAULT(-EIO);
}

/* The row's tokens enter its state. */
static int advance_state(struct exec_sim *e, const struct wk_row *row, const uint32_t *toks)
{
    struct slot *s = &e->slots[row->slot];

    if (row->flags & WK_ROW_NO_KV_WRITE)
        return bad_state(row->state, row->pos_lo, "a token would enter it twice");
    if (row->pos_lo == 0)
        s->run = SEED_STATE;
    else if (!state_is(e, row->state, row->pos_lo))
        return bad_state(row->state, row->pos_lo, "it is of another position, or torn");
    else if (state_of(e, row->state)->digest != s->run)
        return bad_state(row->state, row->pos_lo, "it is of other tokens");
    s->run = run_on(s->run, toks, row->n_q);
    write_state(e, row->state, row->pos_lo + row->n_q, s->run);
    return 0;
}

static int copy_state(struct exec_sim *e, const struct wk_copy *c)
{
    if (!state_is(e, c->src, c->n_tok))
        return bad_state(c->src, c->n_tok, "what is copied is of another position, or torn");
    write_state(e, c->dst, c->n_tok, state_of(e, c->src)->digest);
    return 0;
}

/* ---- rows ---- */

static uint32_t pages_of(uint32_t n_tok)
{
    return (n_tok + PT - 1) / PT;
}

static void reserve_pages(struct slot *s, uint32_t n)
{
    if (n > s->cap) {
        s->cap = ps_max_u32(n, s->cap * 2);
        s->after = ps_realloc(s->after, s->cap * sizeof(*s->after));
    }
}

/* A sequence begins in this slot: everything it reads is walked, token by token. */
static int walk_history(struct exec_sim *e, const struct wk_row *row, const uint32_t *table)
{
    struct slot *s = &e->slots[row->slot];
    uint64_t before = SEED_CHAIN;

    s->run = SEED_STATE;
    for (uint32_t i = 0; i < pages_of(row->pos_lo); i++) {
        struct sim_item *it = item_of(e, table[i]);
        uint32_t n = ps_min_u32(PT, row->pos_lo - i * PT);

        if (!item_is_sound(e, table[i], it))
            return bad_page(row, i, table[i], "its digest is not that of its tokens");
        if (it->before != before)
            return bad_page(row, i, table[i], "it does not follow the page before it");
        if (it->n_tok < n)
            return bad_page(row, i, table[i], "it has too few tokens");
        /* Only the last page may have more tokens than the row has read so far. */
        s->after[i] = before = n == it->n_tok ? it->after : chain(before, it->ids, n);
        if (e->conf.state_bytes > 0)
            s->run = run_on(s->run, it->ids, n);
    }
    s->pos = row->pos_lo;
    s->has_token = false;
    return 0;
}

/* Later steps: the same pages, or others with the same content, and nothing in between. */
static int check_history(const struct exec_sim *e, const struct wk_row *row, const uint32_t *table)
{
    const struct slot *s = &e->slots[row->slot];

    if (row->pos_lo != s->pos)
        return bad_page(row, 0, table[0], "the slot was elsewhere");
    for (uint32_t i = 0, n = pages_of(row->pos_lo); i < n; i++) {
        PS_ASSERT(table[i] < e->base.n_pages);
        if (PS_UNLIKELY(e->heads[table[i]] != s->after[i]))
            return bad_page(row, i, table[i], "its digest changed");
    }
    return 0;
}

/* The row's tokens go to their pages, or are compared with what is there. */
static int append(struct exec_sim *e, const struct wk_row *row, const uint32_t *table,
                  const uint32_t *toks)
{
    struct slot *s = &e->slots[row->slot];
    uint32_t k = 0;

    while (k < row->n_q) {
        uint32_t pos = row->pos_lo + k, i = pos / PT, off = pos % PT;
        uint32_t n = ps_min_u32(PT - off, row->n_q - k);
        struct sim_item *it = item_of(e, table[i]);

        if (row->flags & WK_ROW_NO_KV_WRITE) {
            if (it->n_tok < off + n || memcmp(it->ids + off, toks + k, n * sizeof(*toks)) != 0)
                return bad_page(row, i, table[i], "it has other tokens than those it stands for");
        } else {
            if (off == 0)
                *it = (struct sim_item){.before = i == 0 ? SEED_CHAIN : s->after[i - 1]};
            else if (it->n_tok != off)
                return bad_page(row, i, table[i], "its end is not where the row begins");
            memcpy(it->ids + off, toks + k, n * sizeof(*toks));
            it->n_tok = off + n;
            seal_item(e, table[i], it);
        }
        s->after[i] = it->n_tok == off + n ? it->after : chain(it->before, it->ids, off + n);
        k += n;
    }
    s->pos = row->pos_lo + row->n_q;
    return 0;
}

static void copy_page(struct exec_sim *e, const struct wk_copy *c)
{
    const struct sim_item *src = item_of(e, c->src);
    struct sim_item *dst = item_of(e, c->dst);

    PS_ASSERT(c->src != c->dst && c->n_tok <= PT);
    *dst = (struct sim_item){.before = src->before, .n_tok = ps_min_u32(c->n_tok, src->n_tok)};
    memcpy(dst->ids, src->ids, dst->n_tok * sizeof(*dst->ids));
    seal_item(e, c->dst, dst);
}

static int run_copies(struct exec_sim *e, const struct wk_plan *p, enum wk_copy_when when)
{
    const struct wk_copy *c = wk_plan_copies(p);
    int r = 0;

    for (uint32_t i = 0; i < p->n_copy && r == 0; i++) {
        if (c[i].when != (uint32_t)when)
            continue;
        if (c[i].group == 0)
            copy_page(e, &c[i]);
        else
            r = copy_state(e, &c[i]);
    }
    return r;
}

/* ---- outputs ---- */

static void fill_logprob(struct pb_logprob *out, uint64_t digest, uint32_t token, int32_t n_top,
                         uint32_t n_ids)
{
    *out = (struct pb_logprob){.logprob = wk_exec_sim_logprob(digest, token), .rank = 1};
    out->n_top = n_top > 0 ? ps_min_u32((uint32_t)n_top, ps_min_u32(n_ids, PB_MAX_TOP)) : 0;
    for (uint32_t i = 0; i < out->n_top; i++) {
        out->top[i].id = (uint32_t)(((uint64_t)token + i) % n_ids);
        out->top[i].logprob = out->logprob - (float)i;
    }
}

static void score(struct exec_sim *e, const struct wk_plan *p, const struct wk_row *row,
                  const uint32_t *table, struct wk_row_out *out)
{
    const struct wk_samp *s = &wk_plan_samps(p)[row->samp];
    const uint32_t *next = wk_plan_pool(p) + s->next_off;
    uint32_t n = row->n_q - (row->flags & WK_ROW_LAST_CHUNK ? 1u : 0u);

    out->scores = &e->scores[row->tok_off];
    out->n_scores = row->n_q;
    memset(&e->scores[row->tok_off], 0, row->n_q * sizeof(*e->scores));
    for (uint32_t k = 0; k < n; k++) {
        uint32_t pos = row->pos_lo + k;
        const struct sim_item *it = item_of(e, table[pos / PT]);

        fill_logprob(&e->scores[row->tok_off + k], chain(it->before, it->ids, pos % PT + 1),
                     next[k], s->p.n_prompt_top, e->conf.vocab.n_ids);
    }
}

static void sample(struct exec_sim *e, const struct wk_plan *p, const struct wk_row *row,
                   struct wk_row_out *out)
{
    const struct wk_samp *s = &wk_plan_samps(p)[row->samp];
    struct slot *slot = &e->slots[row->slot];
    uint64_t digest = slot->after[(slot->pos - 1) / PT];

    PS_ASSERT(row->samp < p->n_samp && s->pos == slot->pos);
    out->token = wk_exec_sim_token(&e->conf.vocab, digest, &s->p, s->pos,
                                   wk_plan_pool(p) + s->ban_off, s->n_ban);
    if (row->flags & WK_ROW_LOGPROBS)
        fill_logprob(&out->logprob, digest, out->token, s->p.n_top, e->conf.vocab.n_ids);
    slot->last_token = out->token;
    slot->has_token = true;
}

static int run_row(struct exec_sim *e, const struct wk_plan *p, uint32_t i)
{
    const struct wk_row *row = &wk_plan_rows(p)[i];
    const uint32_t *table = wk_plan_table(p) + (size_t)i * p->table_stride;
    const uint32_t *toks = wk_plan_toks(p) + row->tok_off;
    struct slot *s = &e->slots[row->slot];
    int r;

    PS_ASSERT(row->slot < e->base.n_slots && row->n_q > 0 && row->tok_off + row->n_q <= p->n_tok);
    PS_ASSERT(pages_of(row->pos_lo + row->n_q) <= p->table_stride);
    e->outs[i] = (struct wk_row_out){.slot = row->slot, .flags = row->flags};
    reserve_pages(s, pages_of(row->pos_lo + row->n_q));
    r = row->flags & WK_ROW_FIRST ? walk_history(e, row, table) : check_history(e, row, table);
    if (r != 0)
        return r;
    if (row->flags & WK_ROW_TOK_FROM_SLOT) {
        PS_ASSERT(s->has_token && row->n_q == 1);
        toks = &s->last_token;
    } else if (s->has_token && toks[0] != s->last_token) {
        return bad_page(row, row->pos_lo / PT, table[row->pos_lo / PT],
                        "the row's token is not the one sampled for it");
    }
    r = append(e, row, table, toks);
    if (r == 0 && e->conf.state_bytes > 0)
        r = advance_state(e, row, toks);
    if (r != 0)
        return r;
    if (row->flags & WK_ROW_PROMPT_SCORES)
        score(e, p, row, table, &e->outs[i]);
    s->has_token = false;
    if (row->flags & WK_ROW_LAST_CHUNK)
        sample(e, p, row, &e->outs[i]);
    return 0;
}

static int run_step(struct exec_sim *e, const struct wk_plan *p)
{
    int r = 0;

    PS_ASSERT(p->n_row <= e->base.n_slots);
    if (e->cap_scores < p->n_tok) {
        e->cap_scores = p->n_tok;
        ps_free(e->scores);
        e->scores = ps_calloc(e->cap_scores, sizeof(*e->scores));
    }
    r = run_copies(e, p, WK_COPY_BEFORE);
    for (uint32_t i = 0; i < p->n_row && r == 0; i++)
        r = run_row(e, p, i);
    return r == 0 ? run_copies(e, p, WK_COPY_AFTER) : r;
}

/* ---- the table of exec.h ---- */

static uint32_t step_us(const struct exec_sim *e, const struct wk_plan *p)
{
    const struct wk_row *rows = wk_plan_rows(p);
    struct wk_step_work w = {0};

    for (uint32_t i = 0; i < p->n_row; i++)
        wk_step_work_add(&w, rows[i].pos_lo, rows[i].n_q);
    return (uint32_t)(wk_cost_us(&e->conf.cost, &w) + 0.5);
}

/* The timer tells when the oldest step in flight is done; none: it is off. */
static void arm(const struct exec_sim *e)
{
    struct itimerspec t = {0};
    uint64_t due = wk_exec_sim_next_due(&e->base);

    if (e->timer_fd < 0)
        return;
    if (due != UINT64_MAX) {
        due = ps_max_u64(due, 1); /* 0 would turn it off */
        t.it_value.tv_sec = (time_t)(due / 1000000);
        t.it_value.tv_nsec = (long)(due % 1000000) * 1000;
    }
    PS_ASSERT(timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &t, NULL) == 0);
}

static int enqueue(struct wk_exec *x, const struct wk_plan *p)
{
    struct exec_sim *e = PS_CONTAINER(x, struct exec_sim, base);
    const struct flight *last = &e->flights[(e->first + e->n + DEPTH_MAX - 1) % DEPTH_MAX];
    struct flight *f = &e->flights[(e->first + e->n) % DEPTH_MAX];
    uint64_t begin = ps_now_us(e->conf.clock);

    if (e->n == e->base.depth)
        return WK_EXEC_E_FULL;
    if (f->cap < p->bytes) {
        f->cap = p->bytes;
        ps_free(f->plan);
        f->plan = ps_alloc_aligned(PS_CACHE_LINE, f->cap);
    }
    memcpy(f->plan, p, p->bytes);
    if (e->n > 0)
        begin = ps_max_u64(begin, last->due_us);
    f->step_us = step_us(e, p);
    f->due_us = begin + f->step_us;
    if (e->n++ == 0)
        arm(e);
    return WK_EXEC_OK;
}

static int poll_done(struct wk_exec *x, struct wk_done *out)
{
    struct exec_sim *e = PS_CONTAINER(x, struct exec_sim, base);
    struct flight *f = &e->flights[e->first];

    if (e->n == 0 || ps_now_us(e->conf.clock) < f->due_us)
        return WK_EXEC_E_NONE;
    *out = (struct wk_done){
        .ticket = f->plan->ticket, .n_row = f->plan->n_row, .row = e->outs, .step_us = f->step_us};
    out->fault = run_step(e, f->plan);
    e->first = (e->first + 1) % DEPTH_MAX;
    e->n--;
    arm(e);
    return WK_EXEC_OK;
}

static int wake_fd(struct wk_exec *x)
{
    return PS_CONTAINER(x, struct exec_sim, base)->timer_fd;
}

static int kv_read(struct wk_exec *x, uint32_t group, uint32_t item, void *host)
{
    const struct exec_sim *e = PS_CONTAINER(x, struct exec_sim, base);

    if (group == 0)
        memcpy(host, item_of(e, item), e->conf.item_bytes);
    else
        memcpy(host, state_of(e, item), e->conf.state_bytes);
    return 0;
}

/* The bytes are not judged here: whoever reads the page as a row does. */
static int kv_write(struct wk_exec *x, uint32_t group, uint32_t item, const void *host)
{
    struct exec_sim *e = PS_CONTAINER(x, struct exec_sim, base);
    struct sim_item *it;

    if (group != 0) {
        memcpy(state_of(e, item), host, e->conf.state_bytes);
        forget_pages(e, item);
        return 0;
    }
    it = item_of(e, item);
    memcpy(it, host, e->conf.item_bytes);
    e->heads[item] = it->after;
    return 0;
}

static void destroy(struct wk_exec *x)
{
    struct exec_sim *e = PS_CONTAINER(x, struct exec_sim, base);

    for (uint32_t i = 0; i < DEPTH_MAX; i++)
        ps_free(e->flights[i].plan);
    for (uint32_t i = 0; i < e->base.n_slots; i++)
        ps_free(e->slots[i].after);
    if (e->arena != NULL)
        (void)munmap(e->arena, e->arena_bytes);
    if (e->timer_fd >= 0)
        (void)close(e->timer_fd);
    ps_free(e->slots);
    ps_free(e->heads);
    ps_free(e->outs);
    ps_free(e->scores);
    ps_free(e);
}

static const struct wk_exec_ops ops = {.enqueue = enqueue,
                                       .poll = poll_done,
                                       .wake_fd = wake_fd,
                                       .kv_read = kv_read,
                                       .kv_write = kv_write,
                                       .destroy = destroy};

uint64_t wk_exec_sim_next_due(const struct wk_exec *x)
{
    const struct exec_sim *e = PS_CONTAINER((uintptr_t)x, struct exec_sim, base);

    return e->n > 0 ? e->flights[e->first].due_us : UINT64_MAX;
}

int wk_exec_sim_create(struct wk_exec **out, const struct wk_exec_sim_conf *conf,
                       struct ps_buf *err)
{
    struct exec_sim *e = ps_calloc(1, sizeof(*e));
    uint64_t n_pages = ps_min_u64(conf->kv_bytes / conf->item_bytes, UINT32_MAX - 1);
    void *arena;
    int r;

    PS_ASSERT(conf->depth >= 1 && conf->depth <= DEPTH_MAX && conf->n_slots > 0);
    PS_ASSERT(conf->vocab.n_ids > 0 && conf->item_bytes % WK_SIM_ITEM_BYTES_MIN == 0);
    e->base = (struct wk_exec){.ops = &ops, .depth = conf->depth, .n_slots = conf->n_slots};
    e->conf = *conf;
    e->timer_fd = -1;
    e->slots = ps_calloc(conf->n_slots, sizeof(*e->slots));
    e->outs = ps_calloc(conf->n_slots, sizeof(*e->outs));
    if (n_pages < 2) {
        ps_buf_addf(err, "KV budget of %llu bytes holds no page of %u bytes",
                    (unsigned long long)conf->kv_bytes, conf->item_bytes);
        r = PS_FAULT(-ENOMEM);
        goto fail;
    }
    e->base.n_pages = (uint32_t)n_pages;
    e->arena_bytes = (size_t)n_pages * conf->item_bytes;
    arena = mmap(NULL, e->arena_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) {
        r = PS_FAULT(-errno);
        ps_buf_addf(err, "no room for %zu bytes of KV pages", e->arena_bytes);
        goto fail;
    }
    e->arena = arena;
    e->heads = ps_calloc(n_pages, sizeof(*e->heads));
    if (conf->with_timer) {
        e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (e->timer_fd < 0) {
            r = PS_FAULT(-errno);
            ps_buf_addf(err, "no timer: %s", strerror(-r));
            goto fail;
        }
    }
    *out = &e->base;
    return 0;
fail:
    destroy(&e->base);
    return r;
}
