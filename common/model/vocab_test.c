#include "common/model/vocab.h"

#include "common/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static char dir[] = "/tmp/penstock-vocab-XXXXXX";

static int count(const char *json, uint32_t *out_n, struct ps_buf *err)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    if (json == NULL) {
        (void)unlink(path);
    } else {
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, json, strlen(json)), strlen(json));
        (void)close(fd);
    }
    ps_buf_clear(err);
    return ps_vocab_n_ids(dir, out_n, err);
}

static void size_is_the_highest_id_of_vocabulary_and_added_tokens(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(count("{\"model\":{\"vocab\":{\"a\":0,\"b\":7,\"c\":3}},"
                           "\"added_tokens\":[{\"id\":5},{\"id\":9},3,{}]}",
                           &n, &err),
                     PS_VOCAB_OK);
    assert_int_equal(n, 10);
    assert_int_equal(count("{\"model\":{\"vocab\":{\"a\":0,\"b\":70000}}}", &n, &err), PS_VOCAB_OK);
    assert_int_equal(n, 70001);
    ps_buf_fini(&err);
}

static void ids_that_are_no_ids_do_not_count(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(
        count("{\"model\":{\"vocab\":{\"a\":1,\"b\":-1,\"c\":99999999999,\"d\":\"x\"}}}", &n, &err),
        PS_VOCAB_OK);
    assert_int_equal(n, 2);
    ps_buf_fini(&err);
}

static void a_directory_without_tokenizer_has_no_bound(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(count(NULL, &n, &err), PS_VOCAB_OK);
    assert_true(n == UINT32_MAX);
    ps_buf_fini(&err);
}

static void a_file_without_vocabulary_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "{", "[]", "{}", "{\"model\":[]}", "{\"model\":{\"vocab\":{}}}"};
    struct ps_buf err = PS_BUF_INIT;
    uint32_t n = 77;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        assert_int_equal(count(bad[i], &n, &err), PS_VOCAB_E_BAD);
        assert_non_null(strstr(err.data, "tokenizer.json: "));
        assert_int_equal(n, 77);
    }
    ps_buf_fini(&err);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int drop_dir(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    uint32_t n;

    (void)state;
    (void)!count(NULL, &n, &err);
    ps_buf_fini(&err);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_is_the_highest_id_of_vocabulary_and_added_tokens),
        cmocka_unit_test(ids_that_are_no_ids_do_not_count),
        cmocka_unit_test(a_directory_without_tokenizer_has_no_bound),
        cmocka_unit_test(a_file_without_vocabulary_is_refused),
    };

    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
