#include "kernels/sample.h"

#include "common/test.h"
#include "kernels/half.h"

#include <stdio.h>

enum { N_BIG = 151936, MAX_ROWS = 5, MAX_LIST = 64 };

static const char *const isas[] = {"scalar", "avx2", "avx512"};

struct lists { /* what a kn_samp points to */
    uint32_t bias_ids[MAX_LIST], ban_ids[MAX_LIST], hist[4 * MAX_LIST];
    float bias[MAX_LIST];
};

static struct kn_samp plain(uint32_t n_valid)
{
    return (struct kn_samp){.temperature = 1.0f,
                            .top_p = 1.0f,
                            .rep_penalty = 1.0f,
                            .n_vocab_valid = n_valid,
                            .n_top = -1};
}

static struct kn_dev *open_dev(const struct kn_backend *be, const char *isa, uint32_t n_threads)
{
    struct kn_dev_conf conf = {.n_threads = n_threads, .isa = isa};
    struct kn_dev *d = NULL;

    return be->open(&d, &conf) == KN_OK ? d : NULL;
}

static float normal(struct ps_rng *r)
{
    double u = 1.0 - ps_rng_unit(r), v = ps_rng_unit(r);

    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

static bool chance(struct ps_rng *r, uint32_t percent)
{
    return ps_rng_below(r, 100) < percent;
}

/* Rows like those of models and rows that no model makes. */
static void random_row(struct ps_rng *r, float *row, uint32_t n)
{
    static const float scales[] = {0.0f, 0.01f, 1.0f, 3.0f, 10.0f, 1000.0f};
    float scale = scales[ps_rng_below(r, PS_ARRAY_LEN(scales))];
    float shift = chance(r, 50) ? 0.0f : 50.0f * normal(r);
    bool ties = chance(r, 30), masked = chance(r, 20);
    uint32_t i;

    for (i = 0; i < n; i++) {
        row[i] = scale * normal(r);
        if (ties)
            row[i] = floorf(row[i]);
        if (shift != 0.0f && chance(r, 50)) /* else zeros of both signs stay */
            row[i] += shift / (float)n;
        if (masked && chance(r, 40))
            row[i] = -INFINITY;
    }
    if (chance(r, 5)) /* nothing, infinity or no number somewhere */
        row[ps_rng_below(r, n)] = chance(r, 30) ? INFINITY : chance(r, 50) ? NAN : -INFINITY;
    if (chance(r, 30)) /* one clear winner */
        row[ps_rng_below(r, n)] = 12.0f * scale;
}

static void random_samp(struct ps_rng *r, struct kn_samp *s, struct lists *l, uint32_t n)
{
    uint32_t i;

    *s = plain(chance(r, 70) ? n : 1 + (uint32_t)ps_rng_below(r, n + 3));
    s->temperature = chance(r, 20)   ? 0.0f
                     : chance(r, 10) ? 1e-4f
                                     : 0.05f + 2.0f * (float)ps_rng_unit(r);
    if (chance(r, 40))
        s->top_p = chance(r, 10) ? 0.0f : chance(r, 20) ? 0.5f : (float)ps_rng_unit(r);
    if (chance(r, 30))
        s->min_p = chance(r, 10) ? 1.0f : 0.3f * (float)ps_rng_unit(r);
    if (chance(r, 40))
        s->top_k = (int32_t)ps_rng_below(r, chance(r, 80) ? 30 : n + 2) - 1;
    if (chance(r, 25))
        s->rep_penalty = 0.5f + 1.5f * (float)ps_rng_unit(r);
    if (chance(r, 25))
        s->presence_penalty = 2.0f - 4.0f * (float)ps_rng_unit(r);
    if (chance(r, 25))
        s->frequency_penalty = 2.0f - 4.0f * (float)ps_rng_unit(r);
    s->n_bias = chance(r, 30) ? (uint32_t)ps_rng_below(r, 8) : 0;
    s->n_ban = chance(r, 30) ? (uint32_t)ps_rng_below(r, 8) : 0;
    s->n_hist = (uint32_t)ps_rng_below(r, PS_ARRAY_LEN(l->hist));
    s->n_prompt = (uint32_t)ps_rng_below(r, s->n_hist + 1);
    for (i = 0; i < MAX_LIST; i++) {
        l->bias_ids[i] = (uint32_t)ps_rng_below(r, n + 2); /* also ids that cannot be sampled */
        l->ban_ids[i] = (uint32_t)ps_rng_below(r, n + 2);
        l->bias[i] = chance(r, 20) ? -100.0f : 10.0f * normal(r);
    }
    for (i = 0; i < s->n_hist; i++)
        l->hist[i] = (uint32_t)ps_rng_below(r, n + 2);
    s->bias_ids = l->bias_ids;
    s->bias = l->bias;
    s->ban_ids = l->ban_ids;
    s->hist = l->hist;
    s->seed = ps_rng_u64(r);
    s->pos = (uint32_t)ps_rng_below(r, 1 << 20);
    s->n_top = (int32_t)ps_rng_below(r, KN_MAX_TOP + 2) - 1;
}

static void expect_same(const struct kn_samp_out *a, const struct kn_samp_out *b, const char *what)
{
    bool same = a->token == b->token && a->fault == b->fault && a->rank == b->rank &&
                a->n_top == b->n_top && kn_f32_bits(a->logprob) == kn_f32_bits(b->logprob);

    for (uint32_t i = 0; same && i < a->n_top; i++)
        same = a->top_id[i] == b->top_id[i] &&
               kn_f32_bits(a->top_logprob[i]) == kn_f32_bits(b->top_logprob[i]);
    if (!same)
        fail_msg("%s: token %u %u, fault %u %u, logprob %.9g %.9g, rank %u %u", what, a->token,
                 b->token, a->fault, b->fault, (double)a->logprob, (double)b->logprob, a->rank,
                 b->rank);
}

/* n_calls batches of random rows, by ref and by one instruction set with two threads. */
static void compare(const char *isa, uint64_t seed, uint32_t n_calls, uint32_t n_vocab_max,
                    float *rows)
{
    struct kn_dev *ref = open_dev(kn_backend_ref(), "", 1),
                  *dev = open_dev(kn_backend_cpu(), isa, 2);
    struct kn_samp s[MAX_ROWS];
    struct lists l[MAX_ROWS];
    struct kn_samp_out want[MAX_ROWS], got[MAX_ROWS];
    uint32_t target[MAX_ROWS];
    struct ps_rng r;

    ps_rng_seed(&r, seed);
    for (uint32_t call = 0; dev != NULL && call < n_calls; call++) {
        uint32_t n_vocab =
            n_vocab_max == N_BIG ? N_BIG : 1 + (uint32_t)ps_rng_below(&r, n_vocab_max);
        uint32_t n = 1 + (uint32_t)ps_rng_below(&r, MAX_ROWS);

        for (uint32_t i = 0; i < n; i++) {
            random_row(&r, rows + (size_t)i * n_vocab, n_vocab);
            random_samp(&r, &s[i], &l[i], n_vocab);
            target[i] = (uint32_t)ps_rng_below(&r, n_vocab);
        }
        assert_int_equal(kn_backend_ref()->ops->sample(ref, rows, n, n_vocab, s, want), KN_OK);
        assert_int_equal(kn_backend_cpu()->ops->sample(dev, rows, n, n_vocab, s, got), KN_OK);
        for (uint32_t i = 0; i < n; i++)
            expect_same(&want[i], &got[i], isa);
        assert_int_equal(kn_backend_ref()->ops->score(ref, rows, n, n_vocab, s[0].n_vocab_valid,
                                                      target, s[0].n_top, want),
                         KN_OK);
        assert_int_equal(kn_backend_cpu()->ops->score(dev, rows, n, n_vocab, s[0].n_vocab_valid,
                                                      target, s[0].n_top, got),
                         KN_OK);
        for (uint32_t i = 0; i < n; i++)
            expect_same(&want[i], &got[i], "score");
    }
    if (dev == NULL)
        print_message("# no %s on this machine\n", isa);
    kn_backend_ref()->close(ref);
    kn_backend_cpu()->close(dev);
}

static void every_isa_samples_the_bits_of_ref(void **state)
{
    float *rows = ps_calloc((size_t)MAX_ROWS * 1200, sizeof(*rows));

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(isas); i++) {
        compare(isas[i], 1, 700, 70, rows);
        compare(isas[i], 2, 300, 1200, rows);
    }
    ps_free(rows);
}

static void a_large_vocabulary_samples_the_bits_of_ref(void **state)
{
    float *rows = ps_calloc((size_t)MAX_ROWS * N_BIG, sizeof(*rows));

    (void)state;
    for (uint32_t i = 1; i < PS_ARRAY_LEN(isas); i++)
        compare(isas[i], 3 + i, 3, N_BIG, rows);
    ps_free(rows);
}

static struct kn_samp_out sample1(const float *row, uint32_t n, const struct kn_samp *s)
{
    struct kn_dev *d = open_dev(kn_backend_cpu(), "", 1);
    struct kn_samp_out out;

    assert_int_equal(kn_backend_cpu()->ops->sample(d, row, 1, n, s, &out), KN_OK);
    kn_backend_cpu()->close(d);
    return out;
}

static void rows_without_a_number_to_take_are_faults(void **state)
{
    float row[40];
    struct kn_samp s = plain(32);
    const uint32_t all[] = {0, 1, 2, 3};

    (void)state;
    for (uint32_t i = 0; i < 40; i++)
        row[i] = (float)i;
    row[35] = NAN; /* behind the tokenizer's vocabulary: nobody looks */
    assert_int_equal(sample1(row, 40, &s).fault, 0);
    row[17] = NAN;
    assert_int_equal(sample1(row, 40, &s).fault, 1);
    row[17] = INFINITY;
    assert_int_equal(sample1(row, 40, &s).fault, 1);
    for (uint32_t i = 0; i < 40; i++)
        row[i] = -INFINITY;
    assert_int_equal(sample1(row, 40, &s).fault, 1);
    for (uint32_t i = 0; i < 4; i++)
        row[i] = 1.0f;
    s.n_ban = 4;
    s.ban_ids = all; /* everything that was left */
    assert_int_equal(sample1(row, 40, &s).fault, 1);
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    float row[100] = {0};
    struct kn_samp s = plain(90);

    (void)state;
    s.temperature = 0.0f;
    s.top_k = 1;
    row[95] = 9.0f; /* not in the vocabulary */
    assert_int_equal(sample1(row, 100, &s).token, 0);
    row[71] = row[33] = row[88] = 5.0f;
    assert_int_equal(sample1(row, 100, &s).token, 33);
    row[33] = 4.0f;
    assert_int_equal(sample1(row, 100, &s).token, 71);
}

static void penalties_follow_their_definitions(void **state)
{
    const uint32_t hist[] = {0, 0, 1, 2, 2, 9, 3}; /* four of the prompt, then the output 2, 9, 3 */
    float row[10] = {4.0f, -4.0f, 4.0f, 1.0f, 0.5f, 0, 0, 0, 0, 2.0f};
    uint32_t count[10] = {0};
    struct kn_samp s = plain(10);

    (void)state;
    s.hist = hist;
    s.n_hist = 7;
    s.n_prompt = 4;
    s.rep_penalty = 2.0f;
    s.frequency_penalty = 0.25f;
    s.presence_penalty = 0.5f;
    kn_samp_adjust(&s, row, 10, count);
    assert_true(row[0] == 2.0f);                /* once, though twice in the prompt */
    assert_true(row[1] == -8.0f);               /* negative: away from zero */
    assert_true(row[2] == 2.0f - 0.25f - 0.5f); /* one of its two is output */
    assert_true(row[3] == 0.5f - 0.25f - 0.5f);
    assert_true(row[4] == 0.5f); /* never seen */
    assert_true(row[9] == 1.0f - 0.25f - 0.5f);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(count[i], 0); /* ready for the next row */
}

static void bias_of_minus_100_and_bans_exclude(void **state)
{
    const uint32_t ban[] = {5}, bias_ids[] = {4, 3, 77};
    const float bias[] = {-100.0f, 2.5f, 9.0f};
    float row[6] = {0, 0, 1.0f, 0, 50.0f, 60.0f};
    struct kn_samp s = plain(6);

    (void)state;
    s.temperature = 0.0f;
    s.n_ban = 1;
    s.ban_ids = ban;
    s.n_bias = 3;
    s.bias_ids = bias_ids;
    s.bias = bias;
    assert_int_equal(sample1(row, 6, &s).token, 3);
}

/* The exact distribution after the filters, in f64. */
static void exact(const float *row, uint32_t n, const struct kn_samp *s, double *p)
{
    double sum = 0, total = 0, top = 0;
    bool kept[16] = {false}, done = false;
    uint32_t i, k, best;

    for (i = 0; i < n; i++)
        sum += p[i] = exp((double)row[i] / (double)s->temperature);
    for (k = 0; k < n && !done; k++) {
        for (best = n, i = 0; i < n; i++) {
            if (!kept[i] && (best == n || p[i] > p[best]))
                best = i;
        }
        if ((s->top_k > 0 && k >= (uint32_t)s->top_k) || p[best] < top * (double)s->min_p)
            break;
        top = k == 0 ? p[best] : top;
        kept[best] = true;
        total += p[best];
        done = s->top_p < 1.0f && total >= (double)s->top_p * sum;
    }
    for (i = 0; i < n; i++)
        p[i] = kept[i] ? p[i] / total : 0.0;
}

/* Draws over positions of one seed, or over seeds at one position. */
static void chi_square(const struct kn_samp *conf, bool by_seed)
{
    static const float row[12] = {1.0f,  0.2f, -1.0f, 0.7f, -0.3f, 0.0f,
                                  -2.0f, 0.9f, 0.4f,  1.3f, -0.8f, 0.6f};
    enum { N = 12, DRAWS = 20000, BATCH = 100 };
    struct kn_dev *d = open_dev(kn_backend_cpu(), "", 1);
    struct kn_samp s[BATCH];
    struct kn_samp_out out[BATCH];
    float rows[BATCH * N];
    uint32_t seen[N] = {0}, i, df = 0;
    double p[N], chi = 0;

    exact(row, N, conf, p);
    for (i = 0; i < BATCH; i++)
        memcpy(rows + (size_t)i * N, row, sizeof(row));
    for (uint32_t first = 0; first < DRAWS; first += BATCH) {
        for (i = 0; i < BATCH; i++) {
            s[i] = *conf;
            s[i].seed = by_seed ? first + i : 77;
            s[i].pos = by_seed ? 5 : first + i;
        }
        assert_int_equal(kn_backend_cpu()->ops->sample(d, rows, BATCH, N, s, out), KN_OK);
        for (i = 0; i < BATCH; i++)
            seen[out[i].token]++;
    }
    for (i = 0; i < N; i++) {
        double want = p[i] * DRAWS;

        if (p[i] == 0.0) {
            assert_int_equal(seen[i], 0); /* filtered out means never */
            continue;
        }
        chi += (seen[i] - want) * (seen[i] - want) / want;
        df++;
    }
    /* Mean df - 1, deviation sqrt(2 (df - 1)): six deviations, with fixed seeds. */
    if (chi > df - 1 + 6.0 * sqrt(2.0 * df))
        fail_msg("chi-square %.1f with %u kept", chi, df);
    kn_backend_cpu()->close(d);
}

static void draws_follow_the_filtered_softmax(void **state)
{
    struct kn_samp confs[6];

    (void)state;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(confs); i++)
        confs[i] = plain(12);
    confs[1].temperature = 0.6f;
    confs[2].top_k = 5;
    confs[3].top_p = 0.7f;
    confs[4].min_p = 0.4f;
    confs[5].top_k = 8; /* together: top_p is over all here, and stops before the eighth */
    confs[5].temperature = 1.4f;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(confs); i++) {
        chi_square(&confs[i], false);
        chi_square(&confs[i], true);
    }
}

static void top_p_is_over_what_top_k_left(void **state)
{
    /* e^0 and three times e^-1: top_k 2 leaves 0.731 and 0.269, so top_p 0.7 keeps the first alone; over
     * all four the first has 0.475 and a second one would stay. */
    const float row[4] = {0.0f, -1.0f, -1.0f, -1.0f};
    struct kn_samp s = plain(4);

    (void)state;
    s.top_p = 0.7f;
    s.top_k = 2;
    for (s.pos = 0; s.pos < 200; s.pos++)
        assert_int_equal(sample1(row, 4, &s).token, 0);
}

static void equal_seed_position_and_logits_give_the_equal_token(void **state)
{
    float row[64] = {0};
    struct kn_samp s = plain(64);
    uint32_t first, n_other = 0;

    (void)state;
    s.seed = 12345;
    s.pos = 678;
    first = sample1(row, 64, &s).token;
    assert_int_equal(sample1(row, 64, &s).token, first);
    for (uint32_t i = 1; i <= 20; i++) {
        struct kn_samp t = s;

        t.seed ^= (uint64_t)1 << (3 * i); /* also bits of the upper half */
        n_other += sample1(row, 64, &t).token != first;
        t = s;
        t.pos += i;
        n_other += sample1(row, 64, &t).token != first;
    }
    assert_true(n_other > 35);
}

static void log_probabilities_are_those_of_the_raw_row(void **state)
{
    enum { N = 1000, VALID = 990 };
    float row[N];
    struct kn_samp s = plain(VALID);
    struct kn_samp_out out;
    double z = 0.0;
    struct ps_rng r;

    (void)state;
    ps_rng_seed(&r, 4);
    for (uint32_t i = 0; i < N; i++)
        row[i] = 5.0f * normal(&r);
    for (uint32_t i = 0; i < VALID; i++)
        z += exp((double)row[i]);
    s.temperature = 0.3f; /* neither it nor a filter changes what is reported */
    s.top_k = 3;
    s.n_top = KN_MAX_TOP;
    out = sample1(row, N, &s);
    assert_int_equal(out.n_top, KN_MAX_TOP);
    assert_true(fabs((double)out.logprob - ((double)row[out.token] - log(z))) < 1e-5);
    for (uint32_t i = 0; i < KN_MAX_TOP; i++) {
        uint32_t above = 0;

        for (uint32_t j = 0; j < VALID; j++)
            above += row[j] > row[out.top_id[i]];
        assert_int_equal(above, i);
        assert_true(fabs((double)out.top_logprob[i] - ((double)row[out.top_id[i]] - log(z))) <
                    1e-5);
        if (out.top_id[i] == out.token)
            assert_int_equal(out.rank, i + 1);
    }
}

static void a_token_without_probability_scores_minus_9999(void **state)
{
    float row[20] = {0};
    const uint32_t target[] = {3, 4, 19};
    struct kn_dev *d = open_dev(kn_backend_cpu(), "", 1);
    struct kn_samp_out out;

    (void)state;
    row[3] = -INFINITY;
    for (uint32_t i = 0; i < PS_ARRAY_LEN(target); i++) {
        assert_int_equal(kn_backend_cpu()->ops->score(d, row, 1, 20, 18, &target[i], 0, &out),
                         KN_OK);
        assert_true(i == 1 ? fabsf(out.logprob + logf(17.0f)) < 1e-6f
                           : out.logprob == KN_LOGPROB_MIN);
        assert_int_equal(out.rank, i == 0 ? 18 : i == 1 ? 1 : 19);
        assert_int_equal(out.n_top, 0);
    }
    kn_backend_cpu()->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_samples_the_bits_of_ref),
        cmocka_unit_test(a_large_vocabulary_samples_the_bits_of_ref),
        cmocka_unit_test(rows_without_a_number_to_take_are_faults),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(penalties_follow_their_definitions),
        cmocka_unit_test(bias_of_minus_100_and_bans_exclude),
        cmocka_unit_test(draws_follow_the_filtered_softmax),
        cmocka_unit_test(top_p_is_over_what_top_k_left),
        cmocka_unit_test(equal_seed_position_and_logits_give_the_equal_token),
        cmocka_unit_test(log_probabilities_are_those_of_the_raw_row),
        cmocka_unit_test(a_token_without_probability_scores_minus_9999),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
