#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "common/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static void fail_assertion(void *ud)
{
    (void)ud;
    PS_ASSERT(1 + 1 == 3);
}

static void a_failed_assertion_prints_one_line_and_aborts(void **state)
{
    char said[512];
    int status = ps_test_run(fail_assertion, NULL, said, sizeof(said));

    (void)state;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(said, "assertion failed: 1 + 1 == 3 at "));
    assert_non_null(strstr(said, "base_test.c:"));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

#if !SANITIZED /* a sanitizer's allocator ends the process before we see NULL */
static void exhaust(void *ud)
{
    void *p = ps_calloc(SIZE_MAX / 2, 4);

    (void)ud;
    ps_free(p);
}

static void an_overflowing_size_aborts(void **state)
{
    (void)state;
    ps_test_dies(exhaust, NULL, "out of memory");
}
#endif

static int deep(void)
{
    return PS_FAULT(-EIO);
}

static void a_fault_keeps_its_value_and_place(void **state)
{
    (void)state;
    assert_string_equal(ps_fault_where(), "");
    assert_int_equal(deep(), -EIO);
    assert_non_null(strstr(ps_fault_where(), "base_test.c:"));
}

static void zero_bytes_give_a_pointer(void **state)
{
    void *a = ps_alloc(0), *b = ps_calloc(0, 8), *c = ps_realloc(NULL, 0);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    ps_free(a);
    ps_free(b);
    ps_free(c);
    ps_free(NULL);
}

static void copies_are_terminated(void **state)
{
    char *a = ps_strdup("pen"), *b = ps_strndup("penstock", 3), *c = ps_strndup("pe", 9);

    (void)state;
    assert_string_equal(a, "pen");
    assert_string_equal(b, "pen");
    assert_string_equal(c, "pe");
    ps_free(a);
    ps_free(b);
    ps_free(c);
}

static void aligned_memory_is_aligned(void **state)
{
    void *p = ps_alloc_aligned(4096, 10);

    (void)state;
    assert_int_equal((uintptr_t)p % 4096, 0);
    ps_free(p);
}

static void a_descriptor_is_closed_once(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), old = fd;

    (void)state;
    ps_close_fd(&fd);
    assert_int_equal(fd, -1);
    assert_int_equal(fcntl(old, F_GETFD), -1);
    ps_close_fd(&fd);
}

static void division_rounds_up(void **state)
{
    (void)state;
    assert_int_equal(ps_div_up_u64(0, 16), 0);
    assert_int_equal(ps_div_up_u64(16, 16), 1);
    assert_int_equal(ps_div_up_u64(17, 16), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_assertion_prints_one_line_and_aborts),
#if !SANITIZED
        cmocka_unit_test(an_overflowing_size_aborts),
#endif
        cmocka_unit_test(a_fault_keeps_its_value_and_place),
        cmocka_unit_test(zero_bytes_give_a_pointer),
        cmocka_unit_test(copies_are_terminated),
        cmocka_unit_test(aligned_memory_is_aligned),
        cmocka_unit_test(a_descriptor_is_closed_once),
        cmocka_unit_test(division_rounds_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
