#include "common/model/safetensors.h"

#include "common/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

struct world {
    char dir[64];
    struct ps_buf err;
    struct ps_st *st;
};

static void write_file(const struct world *w, const char *name, const void *p, size_t n)
{
    PS_AUTO(ps_close_fd) int fd = -1;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
}

static void remove_file(const struct world *w, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    (void)unlink(path);
}

/* Header length, header, then n_data bytes 0, 1, 2, ... */
static void write_tensors(const struct world *w, const char *name, const char *header,
                          uint32_t n_data)
{
    struct ps_buf b = PS_BUF_INIT;

    ps_buf_add_u64(&b, strlen(header));
    ps_buf_add_str(&b, header);
    for (uint32_t i = 0; i < n_data; i++)
        ps_buf_add_byte(&b, (char)i);
    write_file(w, name, b.data, b.len);
    ps_buf_fini(&b);
}

static int open_dir(struct world *w)
{
    ps_st_close(w->st);
    w->st = NULL;
    ps_buf_clear(&w->err);
    return ps_st_open(&w->st, w->dir, &w->err);
}

static void must_open(struct world *w, const char *header, uint32_t n_data)
{
    write_tensors(w, "model.safetensors", header, n_data);
    if (open_dir(w) != PS_ST_OK)
        fail_msg("refused: %s", w->err.data);
}

static void must_refuse(struct world *w, const char *text)
{
    if (open_dir(w) != PS_ST_E_BAD)
        fail_msg("accepted; expected '%s'", text);
    if (strstr(w->err.data, text) == NULL || strchr(w->err.data, '\n') != NULL)
        fail_msg("expected '%s' in '%s'", text, w->err.data);
}

static void refuse_header(struct world *w, const char *header, uint32_t n_data, const char *text)
{
    write_tensors(w, "model.safetensors", header, n_data);
    must_refuse(w, text);
}

static int set_up(void **state)
{
    struct world *w = ps_calloc(1, sizeof(*w));

    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/penstock-st-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "a.safetensors", "b.safetensors"};
    struct world *w = *state;

    ps_st_close(w->st);
    ps_buf_fini(&w->err);
    for (size_t i = 0; i < PS_ARRAY_LEN(names); i++)
        remove_file(w, names[i]);
    (void)rmdir(w->dir);
    ps_free(w);
    return 0;
}

#define A "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"
#define B "\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[4,12]}"

static void tensors_are_found_by_name_with_shape_and_bytes(void **state)
{
    struct world *w = *state;
    const struct ps_tensor *t;

    must_open(w, "{\"__metadata__\":{\"format\":\"pt\"}," B "," A "}  ", 12);
    assert_int_equal(ps_st_n(w->st), 2);
    assert_string_equal(ps_st_at(w->st, 0)->name, "a");
    t = ps_st_find(w->st, "b");
    assert_non_null(t);
    assert_int_equal(t->dtype, PS_ST_F32);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[1], 2);
    assert_int_equal(t->n_bytes, 8);
    assert_int_equal(t->data[0], 4);
    assert_null(ps_st_find(w->st, "c"));
}

static void scalars_and_empty_tensors_are_allowed(void **state)
{
    struct world *w = *state;

    must_open(w,
              "{\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]},"
              "\"e\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[0,0]},"
              "\"f\":{\"dtype\":\"BF16\",\"shape\":[3,0],\"data_offsets\":[2,2]}}",
              2);
    assert_int_equal(ps_st_find(w->st, "s")->rank, 0);
    assert_int_equal(ps_st_find(w->st, "e")->n_bytes, 0);
}

static void ranges_that_overlap_or_leave_holes_are_refused(void **state)
{
    struct world *w = *state;

    refuse_header(w, "{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", 7,
                  "b overlaps another tensor");
    refuse_header(w, "{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", 9,
                  "b leaves a hole");
    refuse_header(w, "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5,
                  "b leaves a hole");
    refuse_header(w, "{" A "," B "}", 13, "has bytes after the last tensor");
    refuse_header(w, "{" A "," B "}", 11, "outside the file");
    refuse_header(w, "{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
                  "overlaps another tensor");
}

static void shapes_and_offsets_that_lie_are_refused(void **state)
{
    static const struct {
        const char *tensor, *text;
    } cases[] = {
        {"\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,4]", "does not fit its data_offsets"},
        {"\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,4]", "does not fit its data_offsets"},
        {"\"dtype\":\"U8\",\"shape\":[4294967296,4294967297],\"data_offsets\":[0,4]",
         "valid shape"},
        {"\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"U8\",\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]", "valid shape"},
        {"\"dtype\":\"F4\",\"shape\":[8],\"data_offsets\":[0,4]", "no known dtype"},
        {"\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]", "no known dtype"},
        {"\"shape\":[4],\"data_offsets\":[0,4]", "no known dtype"},
        {"\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]", "outside the file"},
        {"\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]", "outside the file"},
        {"\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-1,3]", "outside the file"},
        {"\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,18446744073709551615]",
         "outside the file"},
        {"\"dtype\":\"U8\",\"shape\":[4]", "outside the file"},
    };
    struct world *w = *state;
    char header[256];

    for (size_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        (void)snprintf(header, sizeof(header), "{\"a\":{%s}}", cases[i].tensor);
        refuse_header(w, header, 4, cases[i].text);
    }
    must_open(w, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]}}",
              4);
}

static void headers_that_are_no_table_are_refused(void **state)
{
    struct world *w = *state;
    const uint64_t lies[] = {0, 1ull << 40, UINT64_MAX, 13};

    refuse_header(w, "[]", 0, "not a JSON object");
    refuse_header(w, " {}", 0, "not a JSON object");
    refuse_header(w, "{", 0, "not valid JSON");
    refuse_header(w, "{\"a\":\xff\xff}", 0, "not valid JSON");
    refuse_header(w, "{\"a\":[1]}", 0, "a is not described by an object");
    refuse_header(w, "{\"__metadata__\":{}}", 0, "holds no tensors");
    for (size_t i = 0; i < PS_ARRAY_LEN(lies); i++) {
        uint8_t file[20] = {0};

        memcpy(file, &lies[i], 8);
        memcpy(file + 8, "{}          ", 12);
        write_file(w, "model.safetensors", file, sizeof(file));
        must_refuse(w, "header");
    }
    write_file(w, "model.safetensors", "1234567", 7);
    must_refuse(w, "shorter than a header");
    remove_file(w, "model.safetensors");
    must_refuse(w, "model.safetensors: cannot be opened");
}

static void a_name_twice_is_refused(void **state)
{
    struct world *w = *state;

    refuse_header(w, "{" A "," A "}", 4, "names a tensor twice");
    /* Braces and colons inside names do not confuse the count. */
    must_open(w, "{\"x\\\":{[\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
}

static void an_error_stays_one_line_whatever_the_name(void **state)
{
    struct world *w = *state;

    refuse_header(w, "{\"x\\n\\u001b[31m\\u00e9\":{}}", 0,
                  "model.safetensors: x??[31m?? has no known");
}

static void shards_of_an_index_are_one_table(void **state)
{
    static const char index[] =
        "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"a.safetensors\","
        "\"b\":\"b.safetensors\"}}";
    struct world *w = *state;

    write_tensors(w, "a.safetensors", "{" A "}", 4);
    write_tensors(w, "b.safetensors",
                  "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    write_file(w, "model.safetensors.index.json", index, sizeof(index) - 1);
    assert_int_equal(open_dir(w), PS_ST_OK);
    assert_int_equal(ps_st_n(w->st), 2);
    assert_int_equal(ps_st_find(w->st, "b")->n_bytes, 3);
    write_tensors(w, "b.safetensors", "{" A "}", 4);
    must_refuse(w, "a occurs twice");
    remove_file(w, "b.safetensors");
    must_refuse(w, "b.safetensors: cannot be opened");
}

static void an_index_may_not_leave_its_directory(void **state)
{
    static const char *const bad[] = {"../a.safetensors", "/etc/passwd", "x/y", "a\\\\b", "..", ""};
    struct world *w = *state;
    char text[128];

    for (size_t i = 0; i < PS_ARRAY_LEN(bad); i++) {
        int n = snprintf(text, sizeof(text), "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);

        write_file(w, "model.safetensors.index.json", text, (size_t)n);
        must_refuse(w, "names a shard outside its directory");
    }
    write_file(w, "model.safetensors.index.json", "{\"weight_map\":{\"a\":3}}", 22);
    must_refuse(w, "a names no file");
    write_file(w, "model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    must_refuse(w, "has no weight_map");
    write_file(w, "model.safetensors.index.json", "x", 1);
    must_refuse(w, "is not valid JSON");
}

static void digest_sees_every_byte_and_identity_the_file(void **state)
{
    struct world *w = *state;
    uint64_t digest, identity;

    must_open(w, "{" A "," B "}", 12);
    digest = ps_st_digest(w->st);
    identity = ps_st_identity(w->st);
    assert_int_equal(open_dir(w), PS_ST_OK);
    assert_true(ps_st_digest(w->st) == digest && ps_st_identity(w->st) == identity);
    must_open(w, "{\"__metadata__\":{}," A "," B "}", 12);
    assert_true(ps_st_digest(w->st) == digest); /* the same tensors in another file */
    assert_true(ps_st_identity(w->st) != identity);
    must_open(w, "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[4,12]}}", 12);
    assert_true(ps_st_digest(w->st) != digest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tensors_are_found_by_name_with_shape_and_bytes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(scalars_and_empty_tensors_are_allowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ranges_that_overlap_or_leave_holes_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(shapes_and_offsets_that_lie_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(headers_that_are_no_table_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_twice_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_error_stays_one_line_whatever_the_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(shards_of_an_index_are_one_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_index_may_not_leave_its_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(digest_sees_every_byte_and_identity_the_file, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
