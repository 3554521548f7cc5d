/*
 * Which block should go first: replays request traces against orders of eviction.
 *
 *   evict_bench TRACE.jsonl ...
 *
 * A trace has a JSON object a line with "hash_ids": [..], one id per block of the prompt; an id stands
 * for the whole prefix up to its block. A request finds the leading blocks that are cached, computes
 * the others, and lets go of all of them, deepest first. Blocks are as in worker/kv/tree.h: a cached
 * block below one that is gone is of no use until that one is computed again.
 *
 * Prints hits as a share of all blocks, and of the avoidable ones (seen before in the trace). "order"
 * is worker/kv/order.c itself; "future" evicts what is needed last, and cannot be built.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/kv/order.h"

#define NONE UINT32_MAX

enum { N_LISTS = 4096, LINE_MAX_BYTES = 1 << 20 };

struct trace {
    uint32_t *ids;  /* of all requests, one after another */
    uint32_t *end;  /* [n_req] */
    uint32_t *next; /* [n_ids] index of the same block's next appearance, NONE: never */
    uint32_t n_ids, n_req, n_distinct, n_avoidable, n_longest;
};

struct sim {
    const struct trace *t;
    uint32_t cap, n_cached;
    uint8_t *cached; /* [n_distinct], and what follows */
    uint32_t *n_uses;
    uint32_t *prev, *links_next, *in; /* doubly linked lists; in: list + 1, 0: none */
    uint64_t *stamp;
    uint64_t *gone; /* when it was evicted, in evictions; 0: never */
    uint64_t n_gone, now;
    uint32_t head[N_LISTS], tail[N_LISTS], n[N_LISTS];
    double target;  /* of an adaptive policy: room of the protected */
    uint64_t floor; /* LFU: the age */
    uint8_t *freq, *held, *was_used;
    uint32_t *needed; /* future: index of the next appearance */
    struct wk_order *order;
};

struct policy {
    const char *name;
    void (*push)(struct sim *s, uint32_t id);
    void (*remove)(struct sim *s, uint32_t id); /* in use now */
    uint32_t (*evict)(struct sim *s);           /* chooses, and takes it out */
    double arg;
};

static const struct policy *policy; /* of the run */

/* ---- lists ---- */

static void list_add(struct sim *s, uint32_t l, uint32_t id)
{
    s->prev[id] = s->tail[l];
    s->links_next[id] = NONE;
    if (s->tail[l] != NONE)
        s->links_next[s->tail[l]] = id;
    else
        s->head[l] = id;
    s->tail[l] = id;
    s->in[id] = l + 1;
    s->n[l]++;
}

static void list_remove(struct sim *s, uint32_t id)
{
    uint32_t l = s->in[id] - 1;

    if (s->prev[id] != NONE)
        s->links_next[s->prev[id]] = s->links_next[id];
    else
        s->head[l] = s->links_next[id];
    if (s->links_next[id] != NONE)
        s->prev[s->links_next[id]] = s->prev[id];
    else
        s->tail[l] = s->prev[id];
    s->in[id] = 0;
    s->n[l]--;
}

static uint32_t evict_head(struct sim *s, uint32_t l)
{
    uint32_t id = s->head[l];

    PS_ASSERT(id != NONE);
    list_remove(s, id);
    return id;
}

/* ---- LRU ---- */

static void lru_push(struct sim *s, uint32_t id)
{
    list_add(s, 0, id);
}

static uint32_t lru_evict(struct sim *s)
{
    return evict_head(s, 0);
}

/* ---- LFU with ageing: uses count from the value of what was evicted last ---- */

static void lfu_push(struct sim *s, uint32_t id)
{
    uint64_t value = s->floor + ps_min_u32(s->n_uses[id], 1000);

    list_add(s, (uint32_t)(value % N_LISTS), id);
}

static uint32_t lfu_evict(struct sim *s)
{
    while (s->head[s->floor % N_LISTS] == NONE) /* values lie within 1,000 of the floor */
        s->floor++;
    return evict_head(s, (uint32_t)(s->floor % N_LISTS));
}

/* ---- S3-FIFO: a tenth for what is new, two more uses make it stay, ghosts come back as main ---- */

enum { SMALL, MAIN };

static bool is_ghost(const struct sim *s, uint32_t id)
{
    return s->gone[id] != 0 && s->n_gone - s->gone[id] < s->cap;
}

static void s3_push(struct sim *s, uint32_t id)
{
    s->held[id] = 0;
    if (s->in[id] != 0) {
        s->freq[id] = (uint8_t)ps_min_u32(3, s->freq[id] + 1u);
        return;
    }
    s->freq[id] = 0;
    list_add(s, is_ghost(s, id) ? MAIN : SMALL, id);
}

static void s3_remove(struct sim *s, uint32_t id)
{
    s->held[id] = 1; /* keeps its place */
}

static uint32_t s3_evict(struct sim *s)
{
    for (;;) {
        uint32_t l =
            s->n[SMALL] > 0 && (s->n[SMALL] >= s->cap / 10 || s->n[MAIN] == 0) ? SMALL : MAIN;
        uint32_t id = evict_head(s, l);

        if (s->held[id] != 0) {
            list_add(s, l, id);
        } else if (l == SMALL && s->freq[id] > 1) {
            s->freq[id] = 0;
            list_add(s, MAIN, id);
        } else if (l == MAIN && s->freq[id] > 0) {
            s->freq[id]--;
            list_add(s, MAIN, id);
        } else {
            return id;
        }
    }
}

/* ---- segments: what was used again is protected, up to a share of the room ---- */

enum { FRESH, PROTECTED };

static void demote(struct sim *s, double room)
{
    while (s->n[PROTECTED] > room)
        list_add(s, FRESH, evict_head(s, PROTECTED));
}

static void segment_push(struct sim *s, uint32_t id)
{
    list_add(s, s->n_uses[id] > 0 ? PROTECTED : FRESH, id);
    demote(s, policy->arg * s->cap);
}

static void segment_ghost_push(struct sim *s, uint32_t id)
{
    if (s->n_uses[id] == 0 && is_ghost(s, id))
        s->n_uses[id] = 1;
    segment_push(s, id);
}

static uint32_t segment_evict(struct sim *s)
{
    return evict_head(s, s->n[FRESH] > 0 ? FRESH : PROTECTED);
}

/* The same, and the share follows ghosts: a fresh one missed says that there was too little room for
 * what is fresh, a once protected one the contrary. */
static void adapt_push(struct sim *s, uint32_t id)
{
    if (s->n_uses[id] == 0 && is_ghost(s, id)) {
        double step = s->was_used[id] != 0 ? 1 : -1;

        s->target = s->target + step < 0 ? 0 : s->target + step;
        s->target = s->target > s->cap ? s->cap : s->target;
        s->gone[id] = 0;
        s->n_uses[id] = 1; /* its content is used for the second time */
    }
    list_add(s, s->n_uses[id] > 0 ? PROTECTED : FRESH, id);
    demote(s, s->target);
}

static uint32_t adapt_evict(struct sim *s)
{
    uint32_t id = segment_evict(s);

    s->was_used[id] = s->n_uses[id] > 0;
    return id;
}

/* ---- credit: each use, up to three, is worth `arg` times the room in turns of the LRU list ---- */

static void credit_push(struct sim *s, uint32_t id)
{
    s->stamp[id] = ++s->now;
    list_add(s, ps_min_u32(3, s->n_uses[id]), id);
}

static uint32_t credit_evict(struct sim *s)
{
    double best = 0;
    uint32_t from = NONE;

    for (uint32_t l = 0; l < 4; l++) {
        double at;

        if (s->head[l] == NONE)
            continue;
        at = (double)s->stamp[s->head[l]] + l * policy->arg * s->cap;
        if (from == NONE || at < best) {
            best = at;
            from = l;
        }
    }
    PS_ASSERT(from != NONE);
    return evict_head(s, from);
}

/* ---- ghosts remember: what comes back soon after it went is as good as used ---- */

static void ghost_credit_push(struct sim *s, uint32_t id)
{
    if (s->n_uses[id] == 0 && is_ghost(s, id))
        s->n_uses[id] = 1;
    credit_push(s, id);
}

/* ---- the tree's own, and the future ---- */

static uint64_t key_of(uint32_t id)
{
    return (id + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void order_push(struct sim *s, uint32_t id)
{
    wk_order_push(s->order, id, s->n_uses[id]);
}

static void order_remove(struct sim *s, uint32_t id)
{
    wk_order_remove(s->order, id);
}

static uint32_t order_evict(struct sim *s)
{
    uint32_t id = wk_order_first(s->order);

    PS_ASSERT(id != WK_ORDER_NONE);
    wk_order_remove(s->order, id);
    wk_order_remember(s->order, key_of(id));
    return id;
}

/* Exact but slow would be a heap; appearances are few enough for buckets of equal width. */
static void future_push(struct sim *s, uint32_t id)
{
    uint32_t width = s->t->n_ids / (N_LISTS - 2) + 1;

    list_add(s, s->needed[id] == NONE ? N_LISTS - 1 : s->needed[id] / width, id);
}

static uint32_t future_evict(struct sim *s)
{
    uint32_t l = N_LISTS - 1;

    while (s->head[l] == NONE)
        l--;
    return evict_head(s, l);
}

static const struct policy policies[] = {
    {"LRU", lru_push, list_remove, lru_evict, 0},
    {"LFU, ageing", lfu_push, list_remove, lfu_evict, 0},
    {"S3-FIFO", s3_push, s3_remove, s3_evict, 0},
    {"segments 50 %", segment_push, list_remove, segment_evict, 0.5},
    {"segments 80 %", segment_push, list_remove, segment_evict, 0.8},
    {"segments 25 %, ghosts", segment_ghost_push, list_remove, segment_evict, 0.25},
    {"segments 33 %, ghosts", segment_ghost_push, list_remove, segment_evict, 1.0 / 3},
    {"segments 50 %, ghosts", segment_ghost_push, list_remove, segment_evict, 0.5},
    {"segments by ghosts", adapt_push, list_remove, adapt_evict, 0},
    {"credit 0.5", credit_push, list_remove, credit_evict, 0.5},
    {"credit 1", credit_push, list_remove, credit_evict, 1},
    {"credit 2", credit_push, list_remove, credit_evict, 2},
    {"credit 1, ghosts", ghost_credit_push, list_remove, credit_evict, 1},
    {"order", order_push, order_remove, order_evict, 0},
    {"future", future_push, list_remove, future_evict, 0},
};

/* ---- replay ---- */

static void sim_init(struct sim *s, const struct trace *t, uint32_t cap)
{
    uint32_t n = t->n_distinct;

    *s = (struct sim){.t = t, .cap = cap, .order = wk_order_create(n, cap), .target = cap / 2.0};
    s->cached = ps_calloc(n, 1);
    s->n_uses = ps_calloc(n, sizeof(*s->n_uses));
    s->prev = ps_calloc(n, sizeof(*s->prev));
    s->links_next = ps_calloc(n, sizeof(*s->links_next));
    s->in = ps_calloc(n, sizeof(*s->in));
    s->stamp = ps_calloc(n, sizeof(*s->stamp));
    s->gone = ps_calloc(n, sizeof(*s->gone));
    s->freq = ps_calloc(n, 1);
    s->held = ps_calloc(n, 1);
    s->was_used = ps_calloc(n, 1);
    s->needed = ps_calloc(n, sizeof(*s->needed));
    memset(s->head, 0xff, sizeof(s->head));
    memset(s->tail, 0xff, sizeof(s->tail));
}

static void sim_fini(struct sim *s)
{
    wk_order_destroy(s->order);
    ps_free(s->cached);
    ps_free(s->n_uses);
    ps_free(s->prev);
    ps_free(s->links_next);
    ps_free(s->in);
    ps_free(s->stamp);
    ps_free(s->gone);
    ps_free(s->freq);
    ps_free(s->held);
    ps_free(s->was_used);
    ps_free(s->needed);
}

/* Blocks of one request that were found. */
static uint32_t request(struct sim *s, uint32_t from, uint32_t to)
{
    const uint32_t *ids = s->t->ids;
    uint32_t n_hit = 0;

    PS_ASSERT(to - from <= s->cap);
    while (from + n_hit < to && s->cached[ids[from + n_hit]] != 0)
        n_hit++;
    for (uint32_t i = from; i < to; i++) {
        if (s->cached[ids[i]] != 0)
            policy->remove(s, ids[i]);
    }
    for (uint32_t i = from; i < to; i++) {
        uint32_t id = ids[i];

        s->needed[id] = s->t->next[i];
        if (i < from + n_hit)
            s->n_uses[id]++;
        if (s->cached[id] != 0)
            continue;
        if (s->n_cached == s->cap) {
            uint32_t victim = policy->evict(s);

            s->cached[victim] = 0;
            s->gone[victim] = ++s->n_gone;
            s->n_cached--;
        }
        s->cached[id] = 1;
        /* As the tree does it: made again soon after it went is used, below what was used. */
        s->n_uses[id] = policy->push == order_push && wk_order_is_ghost(s->order, key_of(id)) &&
                        (i == from || s->n_uses[ids[i - 1]] > 0);
        s->n_cached++;
    }
    for (uint32_t i = to; i-- > from;)
        policy->push(s, ids[i]);
    return n_hit;
}

static uint32_t replay(const struct trace *t, uint32_t cap)
{
    struct sim *s = ps_alloc(sizeof(*s));
    uint32_t from = 0, n_hit = 0;

    sim_init(s, t, cap);
    for (uint32_t i = 0; i < t->n_req; i++) {
        n_hit += request(s, from, t->end[i]);
        from = t->end[i];
    }
    sim_fini(s);
    ps_free(s);
    return n_hit;
}

/* ---- traces ---- */

static void add_line(struct trace *t, const char *line, const char *path)
{
    const char *at = strstr(line, "\"hash_ids\"");
    char *end;

    at = at != NULL ? strchr(at, '[') : NULL;
    if (at == NULL) {
        (void)fprintf(stderr, "%s: a line has no hash_ids\n", path);
        exit(1);
    }
    for (at++;; at = end + (*end == ',')) {
        unsigned long id = strtoul(at, &end, 10);

        if (end == at)
            break;
        if (id >= 1u << 24) {
            (void)fprintf(stderr, "%s: ids are not numbered from 0 on\n", path);
            exit(1);
        }
        t->ids = (t->n_ids & (t->n_ids + 1)) == 0
                     ? ps_realloc(t->ids, ((size_t)t->n_ids * 2 + 2) * sizeof(*t->ids))
                     : t->ids;
        t->ids[t->n_ids++] = (uint32_t)id;
        t->n_distinct = ps_max_u32(t->n_distinct, (uint32_t)id + 1);
    }
    t->end = ps_realloc(t->end, (t->n_req + 1) * sizeof(*t->end));
    t->n_longest = ps_max_u32(t->n_longest, t->n_ids - (t->n_req > 0 ? t->end[t->n_req - 1] : 0));
    t->end[t->n_req++] = t->n_ids;
}

static void read_trace(struct trace *t, const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = ps_alloc(LINE_MAX_BYTES);
    uint32_t *later, n_seen = 0;

    if (f == NULL) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    *t = (struct trace){0};
    while (fgets(line, LINE_MAX_BYTES, f) != NULL)
        add_line(t, line, path);
    (void)fclose(f);
    ps_free(line);
    t->next = ps_alloc(t->n_ids * sizeof(*t->next));
    later = ps_alloc(t->n_distinct * sizeof(*later));
    memset(later, 0xff, t->n_distinct * sizeof(*later));
    for (uint32_t i = t->n_ids; i-- > 0;) {
        t->next[i] = later[t->ids[i]];
        n_seen += later[t->ids[i]] == NONE;
        later[t->ids[i]] = i;
    }
    t->n_avoidable = t->n_ids - n_seen;
    ps_free(later);
}

static void run(const char *path)
{
    static const uint32_t percent[] = {1, 2, 5, 10, 20};
    const char *name = strrchr(path, '/');
    struct trace t;

    read_trace(&t, path);
    printf("\n%s: %u requests, %u blocks, %u distinct, %.1f %% avoidable\n\n",
           name != NULL ? name + 1 : path, t.n_req, t.n_ids, t.n_distinct,
           100.0 * t.n_avoidable / t.n_ids);
    printf("| room, of distinct blocks |");
    for (uint32_t c = 0; c < PS_ARRAY_LEN(percent); c++)
        printf(" %u %% (%u) |", percent[c], t.n_distinct * percent[c] / 100);
    printf("\n|---|---:|---:|---:|---:|---:|\n");
    for (uint32_t p = 0; p < PS_ARRAY_LEN(policies); p++) {
        policy = &policies[p];
        printf("| %s |", policy->name);
        for (uint32_t c = 0; c < PS_ARRAY_LEN(percent); c++) {
            uint32_t cap = t.n_distinct * percent[c] / 100, n_hit;

            if (cap < t.n_longest) { /* a request would not fit */
                printf(" |");
                continue;
            }
            n_hit = replay(&t, cap);
            printf(" %.2f (%.1f) |", 100.0 * n_hit / t.n_ids, 100.0 * n_hit / t.n_avoidable);
        }
        printf("\n");
    }
    ps_free(t.ids);
    ps_free(t.end);
    ps_free(t.next);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "evict_bench TRACE.jsonl ...\n");
        return 2;
    }
    printf("Hits: %% of all blocks (%% of the avoidable ones)\n");
    for (int i = 1; i < argc; i++)
        run(argv[i]);
    return 0;
}
