#include "common/hash.h"

#include "common/test.h"

static void check_hex(const uint8_t *bytes, const char *want)
{
    char hex[2 * PS_SHA256_BYTES + 1];

    ps_hex(hex, bytes, PS_SHA256_BYTES);
    assert_string_equal(hex, want);
}

/* FIPS 180-2, appendix B. */
static void sha256_gives_the_published_vectors(void **state)
{
    uint8_t out[PS_SHA256_BYTES];

    (void)state;
    ps_sha256("abc", 3, out);
    check_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ps_sha256("", 0, out);
    check_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* RFC 4231, test case 2; and an empty key. */
static void hmac_gives_the_published_vectors(void **state)
{
    uint8_t out[PS_SHA256_BYTES];

    (void)state;
    ps_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out);
    check_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    ps_hmac_sha256(NULL, 0, "", 0, out);
    check_hex(out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

/* The vector of the empty input is in xxHash's own self-test. */
static void hash64_is_xxh3(void **state)
{
    (void)state;
    assert_true(ps_hash64("", 0, 0) == UINT64_C(0x2D06800538D394C2));
    assert_true(ps_hash64("a", 1, 0) != ps_hash64("a", 1, 1));
    assert_true(ps_hash64("a", 1, 0) != ps_hash64("b", 1, 0));
}

static void equality_looks_at_every_byte(void **state)
{
    char a[] = "secret", b[] = "secret";

    (void)state;
    assert_true(ps_equal_ct(a, b, 6));
    b[5] = 'x';
    assert_false(ps_equal_ct(a, b, 6));
    assert_true(ps_equal_ct(a, b, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_published_vectors),
        cmocka_unit_test(hmac_gives_the_published_vectors),
        cmocka_unit_test(hash64_is_xxh3),
        cmocka_unit_test(equality_looks_at_every_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
