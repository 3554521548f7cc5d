#include "worker/identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void a_uid_is_hex_and_never_zero(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    uint64_t u = 0;

    (void)state;
    assert_int_equal(wk_uid("00ab", "", &u, &err), WK_IDENTITY_OK);
    assert_true(u == 0xab);
    assert_int_equal(wk_uid("ffffffffffffffff", "", &u, &err), WK_IDENTITY_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(wk_uid("0", "", &u, &err), WK_IDENTITY_E_BAD);
    assert_int_equal(wk_uid("0x1", "", &u, &err), WK_IDENTITY_E_BAD);
    assert_int_equal(wk_uid("11111111111111111", "", &u, &err), WK_IDENTITY_E_BAD);
    assert_true(err.len > 0);
    ps_buf_fini(&err);
}

static void a_uid_file_keeps_the_identity(void **state)
{
    char path[] = "/tmp/penstock-uid-XXXXXX";
    struct ps_buf err = PS_BUF_INIT;
    uint64_t a = 0, b = 0, c = 0;
    FILE *f;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    (void)unlink(path);
    assert_int_equal(wk_uid("", path, &a, &err), WK_IDENTITY_OK);
    assert_int_equal(wk_uid("", path, &b, &err), WK_IDENTITY_OK);
    assert_int_equal(wk_uid("", "", &c, &err), WK_IDENTITY_OK);
    assert_true(a != 0 && a == b && a != c);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs("not hex\n", f);
    (void)fclose(f);
    assert_int_equal(wk_uid("", path, &b, &err), WK_IDENTITY_E_BAD);
    (void)unlink(path);
    ps_buf_fini(&err);
}

static void spaces_differ_when_bytes_could(void **state)
{
    struct ps_model_config c = {.d_head = 16, .rope = {.theta = 10000, .factor = 1, .partial = 1}},
                           d = c;
    struct wk_kv_layout l, m;
    uint8_t tok[PS_SHA256_BYTES] = {1}, other[PS_SHA256_BYTES] = {2};
    uint64_t id;

    (void)state;
    d.rope.theta = 1000000;
    wk_kv_layout_init(&l);
    wk_kv_layout_add_attn(&l, 2, 2, 16, KN_BF16, 16);
    wk_kv_layout_seal(&l);
    wk_kv_layout_init(&m);
    wk_kv_layout_add_attn(&m, 2, 2, 16, KN_F32, 16);
    wk_kv_layout_seal(&m);
    id = wk_space_id(1, tok, &c, &l, 0);
    assert_true(id == wk_space_id(1, tok, &c, &l, 0));
    assert_true(id != wk_space_id(2, tok, &c, &l, 0));
    assert_true(id != wk_space_id(1, other, &c, &l, 0));
    assert_true(id != wk_space_id(1, tok, &d, &l, 0));
    assert_true(id != wk_space_id(1, tok, &c, &m, 0));
    assert_true(id != wk_space_id(1, tok, &c, &l, 1));
    assert_true(wk_space_id(1, tok, &c, &l, 2) != wk_space_id(1, tok, &c, &l, 1));
    assert_true(wk_arith_id(1, &l) != wk_arith_id(2, &l));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_uid_is_hex_and_never_zero),
        cmocka_unit_test(a_uid_file_keeps_the_identity),
        cmocka_unit_test(spaces_differ_when_bytes_could),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
