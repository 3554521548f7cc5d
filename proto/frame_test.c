#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"

static const struct pb_head head = {
    .kind = PB_BEAT, .epoch = 7, .seq = 99, .rinc = 0x1122334455667788ULL, .winc = UINT64_MAX - 1};

static void make(struct ps_buf *b, size_t n_pb, size_t n_raw)
{
    size_t at = pb_frame_begin(b, &head);

    for (size_t i = 0; i < n_pb; i++)
        ps_buf_add_byte(b, 'p');
    pb_frame_end_head(b, at);
    for (size_t i = 0; i < n_raw; i++)
        ps_buf_add_byte(b, 'r');
}

static void header_comes_back_as_it_was_written(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct pb_head h;
    struct pb_raw pb, raw;

    (void)state;
    make(&b, 5, 12);
    assert_int_equal(b.len, PB_HEAD_BYTES + 17);
    assert_int_equal(pb_frame_split((uint8_t *)b.data, b.len, &h, &pb, &raw), PB_FRAME_OK);
    assert_int_equal(h.kind, head.kind);
    assert_int_equal(h.epoch, head.epoch);
    assert_int_equal(h.seq, head.seq);
    assert_true(h.rinc == head.rinc && h.winc == head.winc);
    assert_int_equal(pb.left, 5);
    assert_int_equal(raw.left, 12);
    assert_int_equal(raw.p[0], 'r');
    ps_buf_fini(&b);
}

static void frame_cut_inside_header_or_protobuf_is_refused(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    struct pb_head h;
    struct pb_raw pb, raw;

    (void)state;
    make(&b, 9, 0);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(pb_frame_split((uint8_t *)b.data, n, &h, &pb, &raw), PB_FRAME_E_BAD);
    ps_buf_fini(&b);
}

static void unknown_magic_version_or_flag_is_refused(void **state)
{
    struct pb_head h;
    struct pb_raw pb, raw;

    (void)state;
    for (size_t at = 0; at < 6; at++) {
        struct ps_buf b = PS_BUF_INIT;

        if (at == 3) /* the kind: judged by the codec */
            continue;
        make(&b, 3, 0);
        b.data[at] = (char)(b.data[at] ^ 0x10);
        assert_int_equal(pb_frame_split((uint8_t *)b.data, b.len, &h, &pb, &raw), PB_FRAME_E_BAD);
        ps_buf_fini(&b);
    }
}

static void raw_reader_never_passes_the_end(void **state)
{
    uint8_t bytes[10] = {1, 0, 0, 0, 2, 0, 0, 0, 9, 9};
    struct pb_raw r = {bytes, sizeof(bytes)};
    uint32_t v[3], x;
    const uint8_t *p;

    (void)state;
    assert_false(pb_raw_u32s(&r, v, 3));
    assert_true(pb_raw_u32(&r, &x) && x == 1);
    assert_true(pb_raw_u32(&r, &x) && x == 2);
    assert_false(pb_raw_u32(&r, &x));
    assert_int_equal(r.left, 2);
    assert_false(pb_raw_skip(&r, UINT64_MAX / 2, 8, &p)); /* the product would wrap */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_comes_back_as_it_was_written),
        cmocka_unit_test(frame_cut_inside_header_or_protobuf_is_refused),
        cmocka_unit_test(unknown_magic_version_or_flag_is_refused),
        cmocka_unit_test(raw_reader_never_passes_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
