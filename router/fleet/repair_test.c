#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/fleet/repair.c"

enum { N = 4 };

struct fixture {
    struct rt_fleet f;
    struct rt_peer p;
    struct rt_att a[N];
    struct pb_beat b;
};

/* Four accepted attempts with 10, 11, 12, 13 tokens; the beat of a worker that agrees. */
static void agree(struct fixture *x)
{
    memset(x, 0, sizeof(*x)); /* epoch 0: nothing is sent */
    ps_map_init(&x->p.cancels.index, 1);
    x->b.applied = 100;
    for (uint32_t i = 0; i < N; i++) {
        struct rt_att *a = &x->a[i];

        *a = (struct rt_att){.req = 50 + i,
                             .attempt = 1 + i,
                             .dispatch_seq = 90 + i,
                             .accepted = true,
                             .accept_seq = 5,
                             .n_have = 10 + i,
                             .peer = &x->p};
        a->next = x->p.first;
        x->p.first = a;
        x->b.n_open++;
        x->b.digest_id ^= pb_digest_id(a->req, a->attempt);
        x->b.digest_n ^= pb_digest_n(a->req, a->attempt, a->n_have);
    }
}

static void fini(struct fixture *x)
{
    ps_map_fini(&x->p.cancels.index);
    ps_free(x->p.cancels.list);
    ps_buf_fini(&x->f.buf);
}

static void digest_sees_names_and_counts_of_tokens(void **state)
{
    struct fixture x;

    (void)state;
    agree(&x);
    assert_true(digest_equal(&x.p, &x.b, 9));
    x.a[2].n_have++;
    assert_false(digest_equal(&x.p, &x.b, 9));
    x.a[2].n_have--;
    x.a[2].attempt++;
    assert_false(digest_equal(&x.p, &x.b, 9));
    fini(&x);
}

static void attempt_is_judged_only_by_what_was_said_after_it(void **state)
{
    struct fixture x;

    (void)state;
    agree(&x);
    x.a[0].dispatch_seq = 101; /* not applied when the beat was made */
    assert_false(digest_equal(&x.p, &x.b, 9));
    x.b.n_open--;
    x.b.digest_id ^= pb_digest_id(x.a[0].req, x.a[0].attempt);
    x.b.digest_n ^= pb_digest_n(x.a[0].req, x.a[0].attempt, x.a[0].n_have);
    assert_true(digest_equal(&x.p, &x.b, 9));
    x.a[0].dispatch_seq = 99;
    x.a[0].accept_seq = 9; /* accepted by that frame or a later one: the beat was delayed */
    assert_true(digest_equal(&x.p, &x.b, 9));
    assert_false(digest_equal(&x.p, &x.b, 10));
    fini(&x);
}

static void pending_cancel_counts_as_open_and_hides_counts(void **state)
{
    struct fixture x;

    (void)state;
    agree(&x);
    rt_cancel_add(&x.f, &x.p, 70, 1, 95);
    rt_cancel_add(&x.f, &x.p, 70, 1, 95); /* once is enough */
    assert_int_equal(x.p.cancels.n, 1);
    assert_false(digest_equal(&x.p, &x.b, 9));
    x.b.n_open++;
    x.b.digest_id ^= pb_digest_id(70, 1);
    assert_true(digest_equal(&x.p, &x.b, 9));
    rt_cancel_del(&x.p, 70, 1);
    rt_cancel_del(&x.p, 70, 1);
    assert_int_equal(x.p.cancels.n, 0);
    fini(&x);
}

static void cancels_are_found_after_any_order_of_removal(void **state)
{
    struct fixture x;

    (void)state;
    agree(&x);
    for (uint32_t i = 0; i < 500; i++)
        rt_cancel_add(&x.f, &x.p, 1000 + i, 1 + i % 3, i);
    for (uint32_t i = 0; i < 500; i += 3)
        rt_cancel_del(&x.p, 1000 + i, 1 + i % 3);
    for (uint32_t i = 0; i < 500; i++) {
        uint64_t at;

        assert_int_equal(cancel_find(&x.p.cancels, 1000 + i, 1 + i % 3, &at), i % 3 != 0);
    }
    rt_cancel_clear(&x.p);
    assert_int_equal(x.p.cancels.n, 0);
    fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_sees_names_and_counts_of_tokens),
        cmocka_unit_test(attempt_is_judged_only_by_what_was_said_after_it),
        cmocka_unit_test(pending_cancel_counts_as_open_and_hides_counts),
        cmocka_unit_test(cancels_are_found_after_any_order_of_removal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
