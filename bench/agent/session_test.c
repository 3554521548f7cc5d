#include "bench/agent/session.h"

#include "bench/agent/answers.h"
#include "common/rng.h"
#include "common/test.h"

static const struct bn_sessions_conf conf = {.vocab = {.seed = 3, .first = 3, .n = 50},
                                             .n = 6,
                                             .n_groups = 2,
                                             .n_system = 10,
                                             .n_first = 20,
                                             .n_tool = 5};

static void a_history_grows_by_the_answer_and_a_tool_output(void **state)
{
    const uint32_t answer[] = {41, 42, 43};
    uint32_t before[30];
    struct bn_sessions s;
    struct bn_session *x;

    (void)state;
    bn_sessions_init(&s, &conf);
    x = &s.v[4];
    assert_int_equal(x->n, 30);
    assert_int_equal(bn_session_avoidable(&s, x), 0);
    assert_memory_equal(x->ids, s.v[2].ids,
                        10 * sizeof(x->ids[0])); /* one group, one system prompt */
    assert_memory_not_equal(x->ids, s.v[3].ids, 10 * sizeof(x->ids[0]));
    assert_memory_not_equal(x->ids + 10, s.v[2].ids + 10, 20 * sizeof(x->ids[0]));
    memcpy(before, x->ids, sizeof(before));
    bn_session_answered(&s, x, answer, 3);
    assert_int_equal(x->n, 38);
    assert_int_equal(x->turn, 1);
    assert_memory_equal(x->ids, before, sizeof(before));
    assert_memory_equal(x->ids + 30, answer, sizeof(answer));
    assert_int_equal(bn_session_avoidable(&s, x), 33);
    assert_int_equal(bn_session_avoidable(&s, &s.v[2]), 10); /* the group's was sent now */
    assert_int_equal(bn_session_avoidable(&s, &s.v[3]), 0);
    bn_sessions_fini(&s);
}

static void sessions_come_back_from_their_file_as_they_were(void **state)
{
    const uint32_t answer[] = {41, 42, 43};
    struct ps_buf file = PS_BUF_INIT, err = PS_BUF_INIT;
    struct bn_sessions s, t;

    (void)state;
    bn_sessions_init(&s, &conf);
    bn_sessions_init(&t, &conf);
    for (uint32_t i = 0; i < 5; i++)
        bn_session_answered(&s, &s.v[i], answer, 1 + i % 3);
    bn_sessions_write(&s, &file);
    assert_int_equal(bn_sessions_read(&t, file.data, file.len, &err), BN_SESSIONS_OK);
    bn_session_answered(&s, &s.v[0], answer, 3);
    bn_session_answered(&t, &t.v[0], answer, 3);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(s.v[i].n, t.v[i].n);
        assert_int_equal(s.v[i].turn, t.v[i].turn);
        assert_int_equal(bn_session_avoidable(&s, &s.v[i]), bn_session_avoidable(&t, &t.v[i]));
        assert_memory_equal(s.v[i].ids, t.v[i].ids, s.v[i].n * sizeof(s.v[i].ids[0]));
    }
    bn_sessions_fini(&s);
    bn_sessions_fini(&t);
    ps_buf_fini(&file);
    ps_buf_fini(&err);
}

static void a_damaged_or_foreign_file_is_refused(void **state)
{
    struct bn_sessions_conf other = conf;
    struct ps_buf file = PS_BUF_INIT, err = PS_BUF_INIT;
    struct bn_sessions s, t;
    struct ps_rng rng;

    (void)state;
    bn_sessions_init(&s, &conf);
    other.n_tool++;
    bn_sessions_init(&t, &other);
    bn_sessions_write(&s, &file);
    assert_int_equal(bn_sessions_read(&t, file.data, file.len, &err), BN_SESSIONS_E_OTHER);
    assert_string_equal(err.data, "made with other options");
    ps_rng_seed(&rng, 1);
    for (int i = 0; i < 300; i++) {
        size_t at = ps_rng_below(&rng, file.len);

        file.data[at] ^= 1;
        assert_int_equal(bn_sessions_read(&s, file.data, file.len, &err), BN_SESSIONS_E_OTHER);
        file.data[at] ^= 1;
        assert_int_equal(bn_sessions_read(&s, file.data, at, &err), BN_SESSIONS_E_OTHER);
    }
    assert_int_equal(bn_sessions_read(&s, file.data, file.len, &err), BN_SESSIONS_OK);
    bn_sessions_fini(&s);
    bn_sessions_fini(&t);
    ps_buf_fini(&file);
    ps_buf_fini(&err);
}

static void add(struct bn_answers *a, uint32_t session, uint32_t turn, uint32_t prompt, uint32_t id)
{
    const uint32_t ids[] = {id, id + 1};

    bn_answers_add(a, session, turn, &prompt, 1, ids, 2);
}

static struct bn_difference difference(struct bn_answers *a, struct bn_answers *b)
{
    struct ps_buf x = PS_BUF_INIT, y = PS_BUF_INIT;
    struct bn_difference d;

    bn_answers_write(a, &x);
    bn_answers_write(b, &y);
    bn_answers_compare(x.data, x.len, y.data, y.len, &d);
    ps_buf_fini(&x);
    ps_buf_fini(&y);
    return d;
}

static void answers_are_equal_in_whatever_order_they_came(void **state)
{
    struct bn_answers a = {0}, b = {0};
    struct bn_difference d;

    (void)state;
    for (uint32_t i = 0; i < 40; i++) {
        add(&a, i / 4, i % 4, i, i);
        add(&b, (39 - i) / 4, (39 - i) % 4, 39 - i, 39 - i);
    }
    d = difference(&a, &b);
    assert_true(d.n_turns == 40 && d.n_differ == 0 && d.n_followed == 0);
    bn_answers_fini(&a);
    bn_answers_fini(&b);
}

static void a_difference_is_told_once_and_what_follows_apart(void **state)
{
    struct bn_answers a = {0}, b = {0};
    struct bn_difference d;

    (void)state;
    add(&a, 0, 0, 1, 10);
    add(&b, 0, 0, 1, 10);
    add(&a, 1, 0, 1, 10);
    add(&b, 1, 0, 1, 11); /* differs */
    add(&a, 1, 1, 2, 12);
    add(&b, 1, 1, 3, 13); /* follows */
    add(&a, 1, 2, 2, 12); /* only one has it */
    add(&b, 2, 0, 2, 12); /* the same */
    d = difference(&a, &b);
    assert_int_equal(d.n_turns, 5);
    assert_int_equal(d.n_differ, 3);
    assert_int_equal(d.n_followed, 1);
    assert_string_equal(d.first, "session 1 turn 0: equal prompts, other answers");
    bn_answers_compare("0 0 x\n", 6, "", 0, &d);
    assert_int_equal(d.n_differ, 1);
    bn_answers_fini(&a);
    bn_answers_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_history_grows_by_the_answer_and_a_tool_output),
        cmocka_unit_test(sessions_come_back_from_their_file_as_they_were),
        cmocka_unit_test(a_damaged_or_foreign_file_is_refused),
        cmocka_unit_test(answers_are_equal_in_whatever_order_they_came),
        cmocka_unit_test(a_difference_is_told_once_and_what_follows_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
