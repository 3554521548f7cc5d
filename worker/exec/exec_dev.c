#include "worker/exec/exec_dev.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/*
 * One job at a time: the scheduler's thread hands a copied plan over (state EMPTY -> FULL), the
 * executor's thread runs it (FULL -> DONE), the scheduler polls the result (DONE -> EMPTY). The results
 * belong to the executor until the next enqueue, so poll hands out pointers without copying.
 */
enum job_state { JOB_EMPTY, JOB_FULL, JOB_DONE };

/* Rows of logits computed at once; bounds the logits buffer to this many vocabularies. */
enum { LOGIT_ROWS = 32 };

struct slot {
    uint32_t last_token;
    bool has_token;
};

struct score_dst {  /* where a wanted position's result goes */
    uint32_t row;   /* plan row */
    uint32_t index; /* entry in its scores; SAMPLED: this is the position to sample */
};
#define SAMPLED UINT32_MAX

struct exec_dev {
    struct wk_exec base;
    struct wk_exec_dev_conf conf;
    struct wk_model *model;
    struct kn_dev *dev;
    const struct kn_backend *be;
    uint8_t *arena;
    size_t arena_bytes;
    uint32_t item_bytes;
    float *logits; /* [LOGIT_ROWS, n_vocab] */
    size_t logits_bytes;
    struct slot *slots;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    enum job_state state;
    bool quit, started;
    int done_fd;

    uint8_t *plan; /* copy of the plan in flight */
    size_t plan_cap;

    /* Scratch of one step, sized by n_tok_max and n_slots. */
    uint32_t *ids, *out_rows;
    struct score_dst *dst;
    struct kn_seq *seqs;
    struct wk_row_out *outs;
    struct pb_logprob *scores; /* [n_tok_max], made when first needed */
    struct wk_done done;
};

static const struct wk_plan *plan_of(const struct exec_dev *e)
{
    return (const struct wk_plan *)(const void *)e->plan;
}

/* Tail copy-on-write. The whole page is copied: what lies behind the shared tokens is overwritten later. */
static int run_copies(struct exec_dev *e, const struct wk_plan *p)
{
    const struct wk_copy *c = wk_plan_copies(p);
    uint32_t i;
    int r = 0;

    for (i = 0; i < p->n_copy && r == 0; i++) {
        PS_ASSERT(c[i].group == 0 && c[i].when == WK_COPY_BEFORE);
        PS_ASSERT(c[i].src < e->base.n_pages && c[i].dst < e->base.n_pages);
        r = e->be->copy(e->dev, e->arena + (size_t)c[i].dst * e->item_bytes,
                        e->arena + (size_t)c[i].src * e->item_bytes, e->item_bytes);
    }
    return r;
}

/* Fills ids, seqs and the list of rows whose logits are wanted; returns how many. */
static uint32_t gather_inputs(struct exec_dev *e, const struct wk_plan *p)
{
    const struct wk_row *rows = wk_plan_rows(p);
    const uint32_t *toks = wk_plan_toks(p);
    uint32_t i, k, n_scored, n_out = 0;

    memcpy(e->ids, toks, p->n_tok * sizeof(toks[0]));
    for (i = 0; i < p->n_row; i++) {
        const struct wk_row *row = &rows[i];

        PS_ASSERT(row->slot < e->base.n_slots && row->n_q > 0 &&
                  row->tok_off + row->n_q <= p->n_tok);
        if (row->flags & WK_ROW_TOK_FROM_SLOT) {
            PS_ASSERT(e->slots[row->slot].has_token && row->n_q == 1);
            e->ids[row->tok_off] = e->slots[row->slot].last_token;
        }
        e->seqs[i] =
            (struct kn_seq){.tok_off = row->tok_off,
                            .n_q = row->n_q,
                            .pos0 = row->pos_lo,
                            .table_row = i,
                            .flags = row->flags & WK_ROW_NO_KV_WRITE ? KN_SEQ_NO_KV_WRITE : 0};
        /* The last position of a prompt is sampled, not scored: no token follows it yet. */
        n_scored = row->flags & WK_ROW_PROMPT_SCORES
                       ? row->n_q - (row->flags & WK_ROW_LAST_CHUNK ? 1u : 0u)
                       : 0;
        for (k = 0; k < n_scored; k++) {
            e->dst[n_out] = (struct score_dst){i, k};
            e->out_rows[n_out++] = row->tok_off + k;
        }
        if (row->flags & WK_ROW_LAST_CHUNK) {
            e->dst[n_out] = (struct score_dst){i, SAMPLED};
            e->out_rows[n_out++] = row->tok_off + row->n_q - 1;
        }
    }
    return n_out;
}

static void fill_samp(const struct exec_dev *e, const struct wk_plan *p, const struct wk_row *row,
                      struct kn_samp *k)
{
    const struct wk_samp *s = &wk_plan_samps(p)[row->samp];
    const uint32_t *pool = wk_plan_pool(p);

    PS_ASSERT(row->samp < p->n_samp);
    *k = (struct kn_samp){.temperature = s->p.temperature,
                          .top_p = s->p.top_p,
                          .min_p = s->p.min_p,
                          .rep_penalty = s->p.rep_penalty,
                          .presence_penalty = s->p.presence_penalty,
                          .frequency_penalty = s->p.frequency_penalty,
                          .top_k = s->p.top_k,
                          .pos = s->pos,
                          .seed = s->p.seed,
                          .n_bias = s->n_bias,
                          .bias_ids = pool + s->bias_off,
                          .bias = (const float *)(const void *)(pool + s->bias_off + s->n_bias),
                          .n_ban = s->n_ban,
                          .ban_ids = pool + s->ban_off,
                          .n_hist = s->n_hist,
                          .n_prompt = s->n_hist_prompt,
                          .hist = pool + s->hist_off,
                          .n_vocab_valid = wk_model_n_vocab_valid(e->model),
                          .n_top = row->flags & WK_ROW_LOGPROBS ? s->p.n_top : -1};
}

static void keep_logprob(struct pb_logprob *dst, const struct kn_samp_out *o)
{
    uint32_t i;

    dst->logprob = o->logprob;
    dst->rank = o->rank;
    dst->n_top = o->n_top;
    for (i = 0; i < o->n_top; i++) {
        dst->top[i].id = o->top_id[i];
        dst->top[i].logprob = o->top_logprob[i];
    }
}

/* Rows that follow each other are sampled by one call, so that the device's threads share them. */
static int sample_rows(struct exec_dev *e, const struct wk_plan *p, const struct score_dst *d,
                       uint32_t n, const float *logits)
{
    struct kn_samp s[LOGIT_ROWS];
    struct kn_samp_out o[LOGIT_ROWS];
    uint32_t i;
    int r;

    for (i = 0; i < n; i++)
        fill_samp(e, p, &wk_plan_rows(p)[d[i].row], &s[i]);
    r = e->be->ops->sample(e->dev, logits, n, wk_model_config(e->model)->n_vocab, s, o);
    if (r == 0)
        r = e->be->sync(e->dev);
    for (i = 0; i < n && r == 0; i++) {
        const struct wk_row *row = &wk_plan_rows(p)[d[i].row];
        struct wk_row_out *out = &e->outs[d[i].row];

        out->token = o[i].token;
        out->fault |= o[i].fault;
        if (row->flags & WK_ROW_LOGPROBS)
            keep_logprob(&out->logprob, &o[i]);
        e->slots[row->slot] = (struct slot){.last_token = o[i].token, .has_token = true};
    }
    return r;
}

/* Positions of one row: each predicts the token that follows it in the prompt. */
static int score_rows(struct exec_dev *e, const struct wk_plan *p, const struct score_dst *d,
                      uint32_t n, const float *logits)
{
    const struct wk_row *row = &wk_plan_rows(p)[d->row];
    const struct wk_samp *s = &wk_plan_samps(p)[row->samp];
    const uint32_t *next = wk_plan_pool(p) + s->next_off + d->index;
    uint32_t n_vocab = wk_model_config(e->model)->n_vocab, i;
    struct kn_samp_out o[LOGIT_ROWS];
    int r;

    for (i = 0; i < n; i++)
        PS_ASSERT(next[i] < n_vocab);
    r = e->be->ops->score(e->dev, logits, n, n_vocab, wk_model_n_vocab_valid(e->model), next,
                          s->p.n_prompt_top, o);
    if (r == 0)
        r = e->be->sync(e->dev);
    for (i = 0; i < n && r == 0; i++) {
        keep_logprob(&e->scores[row->tok_off + d->index + i], &o[i]);
        e->outs[d->row].fault |= o[i].fault;
    }
    return r;
}

/* How many from d on go into one call: sampled ones, or positions of one row. */
static uint32_t run_of(const struct score_dst *d, uint32_t n)
{
    uint32_t i = 1;

    while (i < n && (d[0].index == SAMPLED ? d[i].index == SAMPLED
                                           : d[i].index != SAMPLED && d[i].row == d[0].row))
        i++;
    return i;
}

static int run_outputs(struct exec_dev *e, const struct wk_plan *p, uint32_t n_out)
{
    size_t n_vocab = wk_model_config(e->model)->n_vocab;
    uint32_t first, i, k, n;
    int r = 0;

    for (first = 0; first < n_out && r == 0; first += n) {
        n = ps_min_u32(n_out - first, LOGIT_ROWS);
        r = wk_model_logits(e->model, first, n, e->logits);
        for (i = 0; i < n && r == 0; i += k) {
            const struct score_dst *d = &e->dst[first + i];
            const float *logits = e->logits + i * n_vocab;

            k = run_of(d, n - i);
            r = d->index == SAMPLED ? sample_rows(e, p, d, k, logits)
                                    : score_rows(e, p, d, k, logits);
        }
    }
    return r;
}

static int run_step(struct exec_dev *e, const struct wk_plan *p)
{
    const struct wk_row *rows = wk_plan_rows(p);
    uint32_t i, n_out;
    struct wk_forward f;
    int r;

    PS_ASSERT(p->n_row <= e->base.n_slots && p->n_tok <= e->conf.n_tok_max);
    for (i = 0; i < p->n_row; i++) {
        e->outs[i] = (struct wk_row_out){.slot = rows[i].slot, .flags = rows[i].flags};
        if (rows[i].flags & WK_ROW_PROMPT_SCORES) {
            if (e->scores == NULL)
                e->scores = ps_calloc(e->conf.n_tok_max, sizeof(e->scores[0]));
            memset(&e->scores[rows[i].tok_off], 0, rows[i].n_q * sizeof(e->scores[0]));
            e->outs[i].scores = &e->scores[rows[i].tok_off];
            e->outs[i].n_scores = rows[i].n_q;
        }
    }
    r = run_copies(e, p);
    if (r != 0 || p->n_tok == 0)
        return r;
    n_out = gather_inputs(e, p);
    f = (struct wk_forward){.ids = e->ids,
                            .n_tok = p->n_tok,
                            .seqs = e->seqs,
                            .n_seq = p->n_row,
                            .table = wk_plan_table(p),
                            .table_stride = p->table_stride,
                            .out_rows = e->out_rows,
                            .n_out = n_out};
    r = wk_model_forward(e->model, &f);
    return r != 0 ? r : run_outputs(e, p, n_out);
}

static uint64_t now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void *thread_main(void *ud)
{
    struct exec_dev *e = ud;
    const uint64_t one = 1;

    (void)prctl(PR_SET_NAME, "exec");
    (void)pthread_mutex_lock(&e->lock);
    for (;;) {
        const struct wk_plan *p;
        uint64_t t0;
        int fault;

        while (e->state != JOB_FULL && !e->quit)
            (void)pthread_cond_wait(&e->wake, &e->lock);
        if (e->quit)
            break;
        (void)pthread_mutex_unlock(&e->lock);
        p = plan_of(e);
        t0 = now_us();
        fault = run_step(e, p);
        (void)pthread_mutex_lock(&e->lock);
        e->done = (struct wk_done){.ticket = p->ticket,
                                   .n_row = p->n_row,
                                   .row = e->outs,
                                   .step_us = (uint32_t)(now_us() - t0),
                                   .fault = fault};
        e->state = JOB_DONE;
        if (write(e->done_fd, &one, sizeof(one)) != sizeof(one))
            PS_ASSERT(errno == EAGAIN);
    }
    (void)pthread_mutex_unlock(&e->lock);
    return NULL;
}

static int enqueue(struct wk_exec *x, const struct wk_plan *p)
{
    struct exec_dev *e = PS_CONTAINER(x, struct exec_dev, base);
    int r = WK_EXEC_E_FULL;

    (void)pthread_mutex_lock(&e->lock);
    if (e->state == JOB_EMPTY) {
        PS_ASSERT(e->done.fault == 0);
        if (e->plan_cap < p->bytes) {
            e->plan_cap = p->bytes;
            ps_free(e->plan);
            e->plan = ps_alloc_aligned(PS_CACHE_LINE, e->plan_cap);
        }
        memcpy(e->plan, p, p->bytes);
        e->state = JOB_FULL;
        (void)pthread_cond_signal(&e->wake);
        r = WK_EXEC_OK;
    }
    (void)pthread_mutex_unlock(&e->lock);
    return r;
}

static int poll_done(struct wk_exec *x, struct wk_done *out)
{
    struct exec_dev *e = PS_CONTAINER(x, struct exec_dev, base);
    int r = WK_EXEC_E_NONE;
    uint64_t n;

    (void)pthread_mutex_lock(&e->lock);
    if (e->state == JOB_DONE) {
        if (read(e->done_fd, &n, sizeof(n)) != sizeof(n))
            PS_ASSERT(errno == EAGAIN);
        *out = e->done;
        e->state = JOB_EMPTY;
        r = WK_EXEC_OK;
    }
    (void)pthread_mutex_unlock(&e->lock);
    return r;
}

static int wake_fd(struct wk_exec *x)
{
    return PS_CONTAINER(x, struct exec_dev, base)->done_fd;
}

static void destroy(struct wk_exec *x)
{
    struct exec_dev *e = PS_CONTAINER(x, struct exec_dev, base);

    if (e->started) {
        (void)pthread_mutex_lock(&e->lock);
        e->quit = true;
        (void)pthread_cond_signal(&e->wake);
        (void)pthread_mutex_unlock(&e->lock);
        (void)pthread_join(e->thread, NULL);
    }
    wk_model_destroy(e->model);
    if (e->dev != NULL) {
        if (e->arena != NULL)
            e->be->mem_free(e->dev, e->arena, e->arena_bytes);
        if (e->logits != NULL)
            e->be->mem_free(e->dev, e->logits, e->logits_bytes);
        e->be->close(e->dev);
    }
    if (e->done_fd >= 0)
        (void)close(e->done_fd);
    (void)pthread_mutex_destroy(&e->lock);
    (void)pthread_cond_destroy(&e->wake);
    ps_free(e->plan);
    ps_free(e->ids);
    ps_free(e->out_rows);
    ps_free(e->dst);
    ps_free(e->seqs);
    ps_free(e->outs);
    ps_free(e->scores);
    ps_free(e->slots);
    ps_free(e);
}

/* On cpu and ref the arena is host memory, so the mover's thread copies for itself. */
static int kv_read(struct wk_exec *x, uint32_t group, uint32_t item, void *host)
{
    const struct exec_dev *e = PS_CONTAINER(x, struct exec_dev, base);

    PS_ASSERT(group == 0 && item < e->base.n_pages);
    memcpy(host, e->arena + (size_t)item * e->item_bytes, e->item_bytes);
    return 0;
}

static int kv_write(struct wk_exec *x, uint32_t group, uint32_t item, const void *host)
{
    const struct exec_dev *e = PS_CONTAINER(x, struct exec_dev, base);

    PS_ASSERT(group == 0 && item < e->base.n_pages);
    memcpy(e->arena + (size_t)item * e->item_bytes, host, e->item_bytes);
    return 0;
}

static const struct wk_exec_ops ops = {.enqueue = enqueue,
                                       .poll = poll_done,
                                       .wake_fd = wake_fd,
                                       .kv_read = kv_read,
                                       .kv_write = kv_write,
                                       .destroy = destroy};

static int open_device(struct exec_dev *e, struct wk_model *m, struct ps_buf *err)
{
    const struct wk_kv_layout *layout = wk_model_layout(m);
    size_t n_vocab = wk_model_config(m)->n_vocab;
    uint64_t n_pages;
    int r;

    PS_ASSERT(layout->n_group == 1); /* dense families have rows only */
    e->item_bytes = layout->group[0].item_bytes;
    n_pages = ps_min_u64(e->conf.kv_bytes / e->item_bytes, UINT32_MAX - 1);
    if (n_pages < 2) {
        ps_buf_addf(err, "KV budget of %lu bytes holds no page of %u bytes",
                    (unsigned long)e->conf.kv_bytes, e->item_bytes);
        return PS_FAULT(-ENOMEM);
    }
    r = e->be->open(&e->dev, &e->conf.dev);
    if (r != 0) {
        ps_buf_addf(err, "device %s cannot be opened with isa '%s'", e->be->name, e->conf.dev.isa);
        return r < 0 ? r : PS_FAULT(-ENODEV);
    }
    e->base.n_pages = (uint32_t)n_pages;
    e->arena_bytes = (size_t)n_pages * e->item_bytes;
    e->logits_bytes = LOGIT_ROWS * n_vocab * sizeof(float);
    r = e->be->mem_alloc(e->dev, e->arena_bytes, (void **)&e->arena);
    if (r == 0)
        r = e->be->mem_alloc(e->dev, e->logits_bytes, (void **)&e->logits);
    if (r == 0)
        r = wk_model_bind(m, e->be, e->dev, e->arena, e->conf.n_tok_max);
    if (r != 0)
        ps_buf_addf(err, "device %s has no room for %zu bytes of KV pages and the activations",
                    e->be->name, e->arena_bytes);
    return r > 0 ? PS_FAULT(-ENOMEM) : r;
}

int wk_exec_dev_create(struct wk_exec **out, struct wk_model *move_m,
                       const struct wk_exec_dev_conf *conf, struct ps_buf *err)
{
    struct exec_dev *e = ps_calloc(1, sizeof(*e));
    int r;

    PS_ASSERT(move_m != NULL && conf->n_slots > 0 && conf->n_tok_max >= conf->n_slots);
    e->base = (struct wk_exec){.ops = &ops, .depth = 1, .n_slots = conf->n_slots};
    e->conf = *conf;
    e->be = conf->backend;
    e->model = move_m;
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_cond_init(&e->wake, NULL);
    e->slots = ps_calloc(conf->n_slots, sizeof(e->slots[0]));
    e->ids = ps_calloc(conf->n_tok_max, sizeof(e->ids[0]));
    e->out_rows = ps_calloc(conf->n_tok_max, sizeof(e->out_rows[0]));
    e->dst = ps_calloc(conf->n_tok_max, sizeof(e->dst[0]));
    e->seqs = ps_calloc(conf->n_slots, sizeof(e->seqs[0]));
    e->outs = ps_calloc(conf->n_slots, sizeof(e->outs[0]));
    e->done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r = e->done_fd < 0 ? PS_FAULT(-errno) : open_device(e, move_m, err);
    if (r != 0)
        goto fail;
    r = -pthread_create(&e->thread, NULL, thread_main, e);
    if (r != 0) {
        r = PS_FAULT(r);
        goto fail;
    }
    e->started = true;
    *out = &e->base;
    return 0;
fail:
    wk_model_unbind(move_m); /* it stays the caller's */
    e->model = NULL;
    destroy(&e->base);
    return r;
}
