#include "worker/exec/exec_dev.h"

#include "common/test.h"
#include "worker/model/tiny.h"

#include <poll.h>
#include <stdlib.h>

/*
 * The executor against the reference order: a second model on the ref backend computes the logits of a
 * whole sequence in one pass, and everything the executor says must be exactly what follows from them.
 */

enum {
    N_SLOTS = 4,
    N_TOK_MAX = 96,
    N_PAGES = 40,
    PAGE = 16,
    ROW_PAGES = 8,
    N_VOCAB = 150,
    N_VALID = 140
};
enum { WAIT_MS = 20000 };

struct world {
    char dir[64];
    struct wk_exec *exec;
    struct wk_plan_builder *b;
    uint64_t ticket;
    struct wk_model *oracle;
    struct kn_dev *dev; /* of the oracle, on the ref backend */
    uint8_t *arena;
    float *logits; /* [N_TOK_MAX + 1, N_VOCAB] of the last ask() */
};

struct seq {
    uint32_t ids[128], n, slot;
    uint32_t pages[ROW_PAGES];
};

static void open_exec(struct world *w, uint32_t n_threads)
{
    struct wk_exec_dev_conf conf = {.backend = kn_backend_cpu(),
                                    .dev = {.n_threads = n_threads, .isa = ""},
                                    .n_slots = N_SLOTS,
                                    .n_tok_max = N_TOK_MAX};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_model *m = NULL;

    assert_int_equal(wk_model_load(&m, w->dir, &err), WK_MODEL_OK);
    conf.kv_bytes = (uint64_t)N_PAGES * wk_model_layout(m)->group[0].item_bytes + 1000;
    if (wk_exec_dev_create(&w->exec, m, &conf, &err) != 0)
        fail_msg("%s", err.data);
    assert_int_equal(w->exec->n_pages, N_PAGES);
    ps_buf_fini(&err);
}

static void open_oracle(struct world *w)
{
    const struct kn_backend *be = kn_backend_ref();
    struct kn_dev_conf conf = {.isa = ""};
    struct ps_buf err = PS_BUF_INIT;

    assert_int_equal(wk_model_load(&w->oracle, w->dir, &err), WK_MODEL_OK);
    assert_int_equal(be->open(&w->dev, &conf), 0);
    assert_int_equal(
        be->mem_alloc(w->dev, (size_t)ROW_PAGES * wk_model_layout(w->oracle)->group[0].item_bytes,
                      (void **)&w->arena),
        0);
    assert_int_equal(wk_model_bind(w->oracle, be, w->dev, w->arena, ROW_PAGES * PAGE), 0);
    w->logits = ps_calloc((size_t)ROW_PAGES * PAGE * N_VOCAB, sizeof(float));
    ps_buf_fini(&err);
}

static int set_up_with(void **state, const struct tiny *t)
{
    struct world *w = ps_calloc(1, sizeof(*w));
    char text[64];
    int fd, n;

    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/penstock-exec-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    tiny_write(w->dir, t);
    fd = tiny_create(w->dir, "tokenizer.json");
    n = snprintf(text, sizeof(text), "{\"model\":{\"vocab\":{\"a\":%d}}}", N_VALID - 1);
    assert_int_equal(write(fd, text, (size_t)n), n);
    (void)close(fd);
    open_exec(w, 2);
    open_oracle(w);
    w->b = wk_plan_builder_create();
    *state = w;
    return 0;
}

static int set_up(void **state)
{
    const struct tiny t = TINY_QWEN3;

    return set_up_with(state, &t);
}

static int set_up_bf16(void **state)
{
    struct tiny t = TINY_QWEN3;

    t.dtype = KN_BF16;
    t.qwen3 = false;
    t.tied = false;
    return set_up_with(state, &t);
}

static int set_up_nan(void **state)
{
    struct tiny t = TINY_QWEN3;

    t.nan = true;
    return set_up_with(state, &t);
}

static int tear_down(void **state)
{
    struct world *w = *state;

    w->exec->ops->destroy(w->exec);
    wk_model_destroy(w->oracle);
    kn_backend_ref()->mem_free(w->dev, w->arena, 0);
    kn_backend_ref()->close(w->dev);
    wk_plan_builder_destroy(w->b);
    ps_free(w->logits);
    tiny_remove(w->dir);
    ps_free(w);
    return 0;
}

/* Logits of all n positions, in one pass on the ref backend. */
static const float *ask(struct world *w, const uint32_t *ids, uint32_t n)
{
    uint32_t table[ROW_PAGES], rows[ROW_PAGES * PAGE];
    const struct kn_seq seq = {.n_q = n};
    const struct wk_forward f = {.ids = ids,
                                 .n_tok = n,
                                 .seqs = &seq,
                                 .n_seq = 1,
                                 .table = table,
                                 .table_stride = ROW_PAGES,
                                 .out_rows = rows,
                                 .n_out = n};

    assert_true(n <= ROW_PAGES * PAGE);
    for (uint32_t i = 0; i < ROW_PAGES; i++)
        table[i] = i;
    for (uint32_t i = 0; i < n; i++)
        rows[i] = i;
    assert_int_equal(wk_model_forward(w->oracle, &f), 0);
    assert_int_equal(wk_model_logits(w->oracle, 0, n, w->logits), 0);
    return w->logits;
}

/* What sampling after `n` tokens gives, by the reference. */
static struct kn_samp_out ask_token(struct world *w, const uint32_t *ids, uint32_t n,
                                    struct kn_samp s)
{
    const float *logits = ask(w, ids, n) + (size_t)(n - 1) * N_VOCAB;
    struct kn_samp_out out;

    s.n_vocab_valid = N_VALID;
    s.pos = n;
    assert_int_equal(kn_backend_ref()->ops->sample(w->dev, logits, 1, N_VOCAB, &s, &out), 0);
    assert_int_equal(out.fault, 0);
    return out;
}

static const struct kn_samp greedy = {.top_p = 1.0f, .rep_penalty = 1.0f, .n_top = -1};

static struct wk_samp greedy_samp(uint32_t pos)
{
    return (struct wk_samp){
        .p = {.top_p = 1.0f, .rep_penalty = 1.0f, .n_top = -1, .n_prompt_top = -1}, .pos = pos};
}

/* A sequence of n random tokens; its pages lie in no order, apart from those of other slots. */
static struct seq make_seq(uint32_t slot, uint32_t n)
{
    struct seq q = {.n = n, .slot = slot};
    struct ps_rng r;

    ps_rng_seed(&r, slot + 100);
    for (uint32_t i = 0; i < n; i++)
        q.ids[i] = (uint32_t)ps_rng_below(&r, N_VOCAB);
    for (uint32_t i = 0; i < ROW_PAGES; i++)
        q.pages[i] = (slot + 5 * (ROW_PAGES - 1 - i)) % N_PAGES;
    return q;
}

static void begin(struct world *w)
{
    wk_plan_begin(w->b, ++w->ticket);
}

/* Tokens [from, to) of the sequence. */
static void add(struct world *w, const struct seq *q, uint32_t from, uint32_t to, uint32_t flags,
                const struct wk_samp *s)
{
    struct wk_row row = {.slot = q->slot,
                         .n_q = (uint16_t)(to - from),
                         .flags = flags,
                         .pos_lo = from,
                         .pos_hi = to,
                         .samp = wk_plan_add_samp(w->b, s)};

    (void)wk_plan_add_row(w->b, &row, q->ids + from, q->pages, (to + PAGE - 1) / PAGE);
}

static struct wk_done finish(struct world *w)
{
    struct pollfd fd = {.fd = w->exec->ops->wake_fd(w->exec), .events = POLLIN};
    const struct wk_plan *p = wk_plan_end(w->b);
    struct wk_done done;

    assert_int_equal(w->exec->ops->enqueue(w->exec, p), WK_EXEC_OK);
    assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
    assert_int_equal(w->exec->ops->poll(w->exec, &done), WK_EXEC_OK);
    assert_true(done.ticket == w->ticket && done.fault == 0 && done.n_row == p->n_row);
    return done;
}

/* One row alone: its greedy token. */
static uint32_t run_greedy(struct world *w, const struct seq *q, uint32_t from, uint32_t to,
                           uint32_t flags)
{
    struct wk_samp s = greedy_samp(to);
    struct wk_done done;

    begin(w);
    add(w, q, from, to, flags | WK_ROW_LAST_CHUNK, &s);
    done = finish(w);
    assert_int_equal(done.row[0].fault, 0);
    assert_int_equal(done.row[0].slot, q->slot);
    return done.row[0].token;
}

static void fill(struct world *w, const struct seq *q, uint32_t from, uint32_t to)
{
    struct wk_samp s = greedy_samp(to);

    begin(w);
    add(w, q, from, to, 0, &s);
    (void)finish(w);
}

static void decode_takes_the_token_from_its_slot(void **state)
{
    struct world *w = *state;
    struct seq q = make_seq(1, 37);

    q.ids[q.n] = run_greedy(w, &q, 0, q.n, 0);
    assert_int_equal(q.ids[q.n], ask_token(w, q.ids, q.n, greedy).token);
    for (uint32_t i = 0; i < 12; i++) {
        uint32_t token = q.ids[q.n++];

        q.ids[q.n - 1] = 0; /* what the plan says is not looked at */
        q.ids[q.n] = run_greedy(w, &q, q.n - 1, q.n, WK_ROW_TOK_FROM_SLOT);
        q.ids[q.n - 1] = token;
        assert_int_equal(q.ids[q.n], ask_token(w, q.ids, q.n, greedy).token);
    }
}

static void a_prompt_in_chunks_gives_what_it_gives_at_once(void **state)
{
    static const uint32_t cuts[] = {1, 16, 17, 40, 63, 64, 70};
    struct world *w = *state;
    struct seq q = make_seq(2, 70);
    uint32_t from = 0, want = ask_token(w, q.ids, q.n, greedy).token;

    for (size_t i = 0; i + 1 < PS_ARRAY_LEN(cuts); from = cuts[i++])
        fill(w, &q, from, cuts[i]);
    assert_int_equal(run_greedy(w, &q, from, q.n, 0), want);
    q.slot = 3; /* the same once more, in one chunk, on other pages */
    memcpy(q.pages, make_seq(3, 1).pages, sizeof(q.pages));
    assert_int_equal(run_greedy(w, &q, 0, q.n, 0), want);
}

/* Everything a request can ask of sampling, through the plan's pool. */
static struct wk_samp full_samp(struct world *w, const struct seq *q, uint32_t n, struct kn_samp *k)
{
    static const uint32_t bias_ids[] = {3, 77}, ban[] = {5, 6, 7};
    static const float bias[] = {1.5f, -2.0f};
    struct wk_samp s = {.p = {.temperature = 0.8f,
                              .top_p = 0.9f,
                              .min_p = 0.01f,
                              .rep_penalty = 1.2f,
                              .presence_penalty = 0.3f,
                              .frequency_penalty = 0.2f,
                              .top_k = 50,
                              .seed = 4242 + q->slot,
                              .n_top = 4,
                              .n_prompt_top = -1},
                        .pos = n,
                        .n_bias = 2,
                        .n_ban = 3,
                        .n_hist = n,
                        .n_hist_prompt = n - 5};

    s.bias_off = wk_plan_add_pool(w->b, bias_ids, 2);
    (void)wk_plan_add_pool(w->b, bias, 2);
    s.ban_off = wk_plan_add_pool(w->b, ban, 3);
    s.hist_off = wk_plan_add_pool(w->b, q->ids, n);
    *k = (struct kn_samp){.temperature = 0.8f,
                          .top_p = 0.9f,
                          .min_p = 0.01f,
                          .rep_penalty = 1.2f,
                          .presence_penalty = 0.3f,
                          .frequency_penalty = 0.2f,
                          .top_k = 50,
                          .seed = 4242 + q->slot,
                          .n_top = 4,
                          .n_bias = 2,
                          .bias_ids = bias_ids,
                          .bias = bias,
                          .n_ban = 3,
                          .ban_ids = ban,
                          .n_hist = n,
                          .n_prompt = n - 5,
                          .hist = q->ids};
    return s;
}

static void expect_out(const struct wk_row_out *got, const struct kn_samp_out *want)
{
    assert_int_equal(got->token, want->token);
    assert_int_equal(got->logprob.rank, want->rank);
    assert_int_equal(got->logprob.n_top, want->n_top);
    assert_memory_equal(&got->logprob.logprob, &want->logprob, 4);
    for (uint32_t i = 0; i < want->n_top; i++) {
        assert_int_equal(got->logprob.top[i].id, want->top_id[i]);
        assert_memory_equal(&got->logprob.top[i].logprob, &want->top_logprob[i], 4);
    }
}

static void rows_of_one_step_do_not_see_each_other(void **state)
{
    struct world *w = *state;
    struct seq a = make_seq(0, 20), b = make_seq(1, 33), c = make_seq(2, 31);
    struct kn_samp k[3];
    struct wk_samp s[3];
    struct wk_done done;

    a.ids[20] = run_greedy(w, &a, 0, 20, 0);
    a.n++;
    begin(w); /* a decode, a part of a prompt that samples nothing, and a whole prompt */
    s[0] = full_samp(w, &a, a.n, &k[0]);
    s[1] = greedy_samp(25);
    s[2] = full_samp(w, &c, c.n, &k[2]);
    add(w, &a, 20, 21, WK_ROW_TOK_FROM_SLOT | WK_ROW_LAST_CHUNK | WK_ROW_LOGPROBS, &s[0]);
    add(w, &b, 0, 25, 0, &s[1]);
    add(w, &c, 0, c.n, WK_ROW_LAST_CHUNK | WK_ROW_LOGPROBS, &s[2]);
    done = finish(w);
    k[1] = k[0];
    expect_out(&done.row[0], &(struct kn_samp_out[]){ask_token(w, a.ids, a.n, k[0])}[0]);
    expect_out(&done.row[2], &(struct kn_samp_out[]){ask_token(w, c.ids, c.n, k[2])}[0]);
    assert_int_equal(done.row[1].slot, 1);
    assert_int_equal(run_greedy(w, &b, 25, 33, 0), ask_token(w, b.ids, 33, greedy).token);
}

static void a_row_that_must_not_write_leaves_its_pages(void **state)
{
    struct world *w = *state;
    struct seq q = make_seq(1, 32), other = q;
    uint32_t want = ask_token(w, q.ids, 32, greedy).token;

    assert_int_equal(run_greedy(w, &q, 0, 32, 0), want);
    /* All of the prompt is cached: its last token is only computed again. */
    assert_int_equal(run_greedy(w, &q, 31, 32, WK_ROW_NO_KV_WRITE), want);
    other.ids[31] = (q.ids[31] + 1) % N_VOCAB;
    (void)run_greedy(w, &other, 31, 32, WK_ROW_NO_KV_WRITE); /* would be seen below if it wrote */
    q.ids[32] = 9;
    assert_int_equal(run_greedy(w, &q, 32, 33, 0), ask_token(w, q.ids, 33, greedy).token);
    (void)run_greedy(w, &other, 31, 32, 0); /* and this one is */
    assert_int_equal(run_greedy(w, &q, 32, 33, 0),
                     (other.ids[32] = 9, ask_token(w, other.ids, 33, greedy).token));
}

static void a_copied_tail_goes_its_own_way(void **state)
{
    struct world *w = *state;
    struct seq q = make_seq(1, 24), fork = q;
    struct wk_copy c = {.src = q.pages[1], .n_tok = 8};
    struct wk_samp s = greedy_samp(25);
    struct wk_done done;

    (void)run_greedy(w, &q, 0, 24, 0);
    fork.slot = 2;
    fork.pages[1] = c.dst = make_seq(2, 1).pages[1];
    fork.ids[24] = 11;
    q.ids[24] = 12;
    begin(w); /* the copy runs before the step that writes into both */
    wk_plan_add_copy(w->b, &c);
    add(w, &fork, 24, 25, WK_ROW_LAST_CHUNK, &s);
    add(w, &q, 24, 25, WK_ROW_LAST_CHUNK, &s);
    done = finish(w);
    assert_int_equal(done.row[0].token, ask_token(w, fork.ids, 25, greedy).token);
    assert_int_equal(done.row[1].token, ask_token(w, q.ids, 25, greedy).token);
    fork.ids[25] = q.ids[25] = 13;
    assert_int_equal(run_greedy(w, &q, 25, 26, 0), ask_token(w, q.ids, 26, greedy).token);
    assert_int_equal(run_greedy(w, &fork, 25, 26, 0), ask_token(w, fork.ids, 26, greedy).token);
}

/* Scores of positions [from, to): of the tokens that follow them. */
static void expect_scores(struct world *w, const struct seq *q, uint32_t from, uint32_t to,
                          const struct pb_logprob *got)
{
    struct kn_samp_out want[ROW_PAGES * PAGE];

    (void)ask(w, q->ids, q->n);
    assert_int_equal(kn_backend_ref()->ops->score(w->dev, w->logits, q->n - 1, N_VOCAB, N_VALID,
                                                  q->ids + 1, 3, want),
                     0);
    for (uint32_t i = from; i < to; i++) {
        assert_memory_equal(&got[i - from].logprob, &want[i].logprob, 4);
        assert_int_equal(got[i - from].rank, want[i].rank);
        assert_int_equal(got[i - from].n_top, 3);
        assert_int_equal(got[i - from].top[2].id, want[i].top_id[2]);
        assert_memory_equal(&got[i - from].top[2].logprob, &want[i].top_logprob[2], 4);
    }
}

static void prompt_scores_are_those_of_the_full_logits(void **state)
{
    struct world *w = *state;
    struct seq q = make_seq(1, 75), other = make_seq(2, 12);
    struct wk_samp s = greedy_samp(75), t = greedy_samp(12);
    struct wk_done done;

    s.p.n_prompt_top = 3;
    begin(w); /* more positions than logits are computed at a time */
    s.next_off = wk_plan_add_pool(w->b, q.ids + 1, 50);
    add(w, &other, 0, 12, WK_ROW_LAST_CHUNK, &t);
    add(w, &q, 0, 50, WK_ROW_PROMPT_SCORES, &s);
    done = finish(w);
    assert_int_equal(done.row[1].n_scores, 50);
    expect_scores(w, &q, 0, 50, done.row[1].scores);
    assert_int_equal(done.row[0].token, ask_token(w, other.ids, 12, greedy).token);
    begin(w); /* the last position has no next token: it is sampled */
    s.next_off = wk_plan_add_pool(w->b, q.ids + 51, 24);
    add(w, &q, 50, 75, WK_ROW_PROMPT_SCORES | WK_ROW_LAST_CHUNK, &s);
    done = finish(w);
    expect_scores(w, &q, 50, 74, done.row[0].scores);
    assert_int_equal(done.row[0].token, ask_token(w, q.ids, 75, greedy).token);
}

static void scored_rows_side_by_side_keep_their_own_tokens(void **state)
{
    struct world *w = *state;
    struct seq a = make_seq(0, 12), b = make_seq(1, 9);
    struct wk_samp s = greedy_samp(12), t = greedy_samp(9);
    struct wk_done done;

    s.p.n_prompt_top = t.p.n_prompt_top = 3;
    begin(w);
    t.next_off = wk_plan_add_pool(w->b, b.ids + 1, 8); /* not in the order of the rows */
    s.next_off = wk_plan_add_pool(w->b, a.ids + 1, 11);
    add(w, &a, 0, 11, WK_ROW_PROMPT_SCORES, &s);
    add(w, &b, 0, 8, WK_ROW_PROMPT_SCORES, &t);
    done = finish(w);
    expect_scores(w, &a, 0, 11, done.row[0].scores);
    expect_scores(w, &b, 0, 8, done.row[1].scores);
}

static void one_step_is_in_flight_and_results_come_once(void **state)
{
    struct world *w = *state;
    struct seq q = make_seq(1, 90);
    struct wk_samp s = greedy_samp(90);
    struct pollfd fd = {.fd = w->exec->ops->wake_fd(w->exec), .events = POLLIN};
    struct wk_done done;
    const struct wk_plan *p;

    assert_int_equal(w->exec->ops->poll(w->exec, &done), WK_EXEC_E_NONE);
    begin(w);
    add(w, &q, 0, 90, WK_ROW_LAST_CHUNK, &s);
    p = wk_plan_end(w->b);
    assert_int_equal(w->exec->ops->enqueue(w->exec, p), WK_EXEC_OK);
    assert_int_equal(w->exec->ops->enqueue(w->exec, p), WK_EXEC_E_FULL);
    assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
    assert_int_equal(w->exec->ops->enqueue(w->exec, p), WK_EXEC_E_FULL); /* until it is polled */
    assert_int_equal(w->exec->ops->poll(w->exec, &done), WK_EXEC_OK);
    assert_int_equal(w->exec->ops->poll(w->exec, &done), WK_EXEC_E_NONE);
    assert_int_equal(poll(&fd, 1, 0), 0);
    assert_int_equal(w->exec->ops->enqueue(w->exec, p), WK_EXEC_OK); /* destroyed in flight */
}

static void numbers_that_are_none_fault_their_row_alone(void **state)
{
    struct world *w = *state;
    struct seq a = make_seq(0, 5), b = make_seq(1, 5);
    struct wk_samp s = greedy_samp(5), t = greedy_samp(5);
    struct wk_done done;

    t.p.n_prompt_top = 0;
    begin(w);
    t.next_off = wk_plan_add_pool(w->b, b.ids + 1, 3);
    add(w, &a, 0, 5, WK_ROW_LAST_CHUNK, &s);
    add(w, &b, 0, 3, WK_ROW_PROMPT_SCORES, &t);
    done = finish(w); /* the step is not a fault of the device */
    assert_int_equal(done.row[0].fault, 1);
    assert_int_equal(done.row[1].fault, 1);
    begin(w);
    add(w, &b, 3, 4, 0, &s);
    done = finish(w);
    assert_int_equal(done.row[0].fault, 0); /* nobody asked for its logits */
}

static void what_cannot_be_created_leaves_the_model_to_the_caller(void **state)
{
    struct world *w = *state;
    struct wk_exec_dev_conf conf = {.backend = kn_backend_cpu(),
                                    .dev = {.n_threads = 1, .isa = ""},
                                    .kv_bytes = 1,
                                    .n_slots = 1,
                                    .n_tok_max = 1};
    struct ps_buf err = PS_BUF_INIT;
    struct wk_model *m = NULL;
    struct wk_exec *e = NULL;

    assert_int_equal(wk_model_load(&m, w->dir, &err), WK_MODEL_OK);
    assert_true(wk_exec_dev_create(&e, m, &conf, &err) < 0);
    assert_non_null(strstr(err.data, "KV budget of 1 bytes"));
    ps_buf_clear(&err);
    conf.kv_bytes = 1 << 20;
    conf.dev.isa = "mmx";
    assert_true(wk_exec_dev_create(&e, m, &conf, &err) < 0);
    assert_non_null(strstr(err.data, "isa 'mmx'"));
    ps_buf_clear(&err);
    conf.dev.isa = "";
    conf.kv_bytes = 1ull << 60;
    assert_true(wk_exec_dev_create(&e, m, &conf, &err) < 0);
    assert_non_null(strstr(err.data, "has no room"));
    conf.kv_bytes = 1 << 20;
    assert_int_equal(wk_exec_dev_create(&e, m, &conf, &err), 0);
    e->ops->destroy(e);
    ps_buf_fini(&err);
}

#define TEST(name)      cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_BF16(name) cmocka_unit_test_setup_teardown(name, set_up_bf16, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(decode_takes_the_token_from_its_slot),
        TEST_BF16(decode_takes_the_token_from_its_slot),
        TEST(a_prompt_in_chunks_gives_what_it_gives_at_once),
        TEST_BF16(a_prompt_in_chunks_gives_what_it_gives_at_once),
        TEST(rows_of_one_step_do_not_see_each_other),
        TEST_BF16(rows_of_one_step_do_not_see_each_other),
        TEST(a_row_that_must_not_write_leaves_its_pages),
        TEST(a_copied_tail_goes_its_own_way),
        TEST(prompt_scores_are_those_of_the_full_logits),
        TEST_BF16(prompt_scores_are_those_of_the_full_logits),
        TEST(scored_rows_side_by_side_keep_their_own_tokens),
        TEST(one_step_is_in_flight_and_results_come_once),
        cmocka_unit_test_setup_teardown(numbers_that_are_none_fault_their_row_alone, set_up_nan,
                                        tear_down),
        TEST(what_cannot_be_created_leaves_the_model_to_the_caller),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
