#include "router/keys.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/test.h"

static const uint8_t secret[32] = {1, 2, 3};
static const struct ps_conf_list none;
static char path[] = "/tmp/penstock-keys-XXXXXX";

static void write_file(const char *text)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static struct rt_keys *make(const struct ps_conf_list *list, const char *file)
{
    struct ps_buf err = PS_BUF_INIT;
    struct rt_keys *k = NULL;

    assert_int_equal(rt_keys_create(&k, list, file, secret, &err), RT_KEYS_LOADED);
    ps_buf_fini(&err);
    return k;
}

static int check(struct rt_keys *k, const char *bearer, struct rt_key *out)
{
    return rt_keys_check(k, bearer, NULL, NULL, out);
}

static void without_keys_everything_is_open(void **state)
{
    struct rt_keys *k = make(&none, "");
    struct rt_key key;

    (void)state;
    assert_false(rt_keys_configured(k));
    assert_int_equal(check(k, "Bearer whatever", &key), RT_KEYS_OPEN);
    rt_keys_destroy(k);
}

static void a_key_is_taken_from_the_first_header_that_is_there(void **state)
{
    const char *items[] = {"alpha,name=ann,admin", "beta"};
    const struct ps_conf_list list = {items, 2};
    struct rt_keys *k = make(&list, "");
    struct rt_key key;

    (void)state;
    assert_int_equal(check(k, "Bearer alpha", &key), RT_KEYS_OK);
    assert_string_equal(key.name, "ann");
    assert_true(key.admin);
    assert_int_equal(check(k, "bearer beta", &key), RT_KEYS_OK);
    assert_false(key.admin);
    assert_int_equal(rt_keys_check(k, NULL, "beta", NULL, &key), RT_KEYS_OK);
    assert_int_equal(rt_keys_check(k, NULL, NULL, "beta", &key), RT_KEYS_OK);
    assert_int_equal(rt_keys_check(k, NULL, "wrong", "beta", &key), RT_KEYS_BAD);
    assert_int_equal(rt_keys_check(k, NULL, NULL, NULL, &key), RT_KEYS_BAD);
    assert_int_equal(check(k, "Basic alpha", &key), RT_KEYS_BAD);
    assert_int_equal(check(k, "Bearer alph", &key), RT_KEYS_BAD);
    assert_int_equal(check(k, "Bearer ", &key), RT_KEYS_BAD);
    rt_keys_destroy(k);
}

static void tenants_have_different_salts(void **state)
{
    const char *items[] = {"a,tenant=t", "b,tenant=t", "c"};
    const struct ps_conf_list list = {items, 3};
    struct rt_keys *k = make(&list, "");
    struct rt_key a, b, c;

    (void)state;
    assert_int_equal(check(k, "Bearer a", &a), RT_KEYS_OK);
    assert_int_equal(check(k, "Bearer b", &b), RT_KEYS_OK);
    assert_int_equal(check(k, "Bearer c", &c), RT_KEYS_OK);
    assert_true(a.tenant_salt == b.tenant_salt);
    assert_false(a.tenant_salt == c.tenant_salt);
    rt_keys_destroy(k);
}

static void a_changed_file_is_taken_and_a_broken_one_is_not(void **state)
{
    struct rt_keys *k;
    struct rt_key key;

    (void)state;
    write_file("# people\n\none,name=first\r\n");
    k = make(&none, path);
    assert_int_equal(check(k, "Bearer one", &key), RT_KEYS_OK);
    write_file("two\nthree\n");
    rt_keys_reload(k, true);
    assert_int_equal(check(k, "Bearer one", &key), RT_KEYS_BAD);
    assert_int_equal(check(k, "Bearer three", &key), RT_KEYS_OK);
    write_file("four,colour=red\n");
    rt_keys_reload(k, true);
    assert_int_equal(check(k, "Bearer four", &key), RT_KEYS_BAD);
    assert_int_equal(check(k, "Bearer two", &key), RT_KEYS_OK);
    write_file("");
    rt_keys_reload(k, true); /* no key at all: everybody is refused, nothing opens */
    assert_int_equal(check(k, "Bearer two", &key), RT_KEYS_BAD);
    rt_keys_destroy(k);
}

static void a_file_that_everybody_can_read_is_refused(void **state)
{
    struct ps_buf err = PS_BUF_INIT;
    struct rt_keys *k = NULL;

    (void)state;
    write_file("one\n");
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(rt_keys_create(&k, &none, path, secret, &err), RT_KEYS_E_FILE);
    assert_non_null(strstr(err.data, "everybody"));
    ps_buf_fini(&err);
    assert_int_equal(chmod(path, 0600), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_keys_everything_is_open),
        cmocka_unit_test(a_key_is_taken_from_the_first_header_that_is_there),
        cmocka_unit_test(tenants_have_different_salts),
        cmocka_unit_test(a_changed_file_is_taken_and_a_broken_one_is_not),
        cmocka_unit_test(a_file_that_everybody_can_read_is_refused),
    };
    int fd = mkstemp(path), r;

    if (fd < 0)
        return 1;
    (void)close(fd);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return r;
}
