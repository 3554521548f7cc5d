#include "common/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/hash.h"
#include "common/json/json.h"
#include "common/model/file.h"

/* The format's own limit on the header, and ours on the index. */
enum {
    MAX_HEADER_BYTES = 100 << 20,
    MAX_INDEX_BYTES = 64 << 20,
    MAX_SHARDS = 1024,
    MAX_TENSORS = 1 << 20
};

/* A header's values: name, dtype, shape and two offsets a tensor. */
static const struct ps_json_limits json_limits = {.max_depth = 8, .max_values = 8 << 20};

struct shard {
    const char *name;
    uint8_t *map;
    size_t n_bytes;
};

struct ps_st {
    struct ps_arena arena;
    struct shard *shards;
    uint32_t n_shards;
    struct ps_tensor *tensors; /* sorted by name */
    uint32_t n_tensors, cap_tensors;
    uint64_t identity;
};

static const struct {
    const char *name;
    uint8_t bytes;
} dtypes[] = {
    [PS_ST_F64] = {"F64", 8},         [PS_ST_F32] = {"F32", 4},
    [PS_ST_F16] = {"F16", 2},         [PS_ST_BF16] = {"BF16", 2},
    [PS_ST_I64] = {"I64", 8},         [PS_ST_I32] = {"I32", 4},
    [PS_ST_I16] = {"I16", 2},         [PS_ST_I8] = {"I8", 1},
    [PS_ST_U64] = {"U64", 8},         [PS_ST_U32] = {"U32", 4},
    [PS_ST_U16] = {"U16", 2},         [PS_ST_U8] = {"U8", 1},
    [PS_ST_BOOL] = {"BOOL", 1},       [PS_ST_F8_E4M3] = {"F8_E4M3", 1},
    [PS_ST_F8_E5M2] = {"F8_E5M2", 1}, [PS_ST_F8_E8M0] = {"F8_E8M0", 1},
};

/* what: a tensor's name, which may hold anything; the message stays one readable line. */
static int refuse(struct ps_buf *err, const char *file, const char *what, const char *why)
{
    size_t i = err->len;

    ps_buf_addf(err, "%s: %.200s%s%s", file, what, what[0] != '\0' ? " " : "", why);
    for (; i < err->len; i++) {
        if ((uint8_t)err->data[i] < ' ' || (uint8_t)err->data[i] >= 0x7f)
            err->data[i] = '?';
    }
    return PS_ST_E_BAD;
}

static int read_dtype(const struct ps_json *v, enum ps_st_dtype *out)
{
    size_t i, len;
    const char *s;

    if (v == NULL || ps_json_type(v) != PS_JSON_STR)
        return -1;
    s = ps_json_str(v, &len);
    for (i = 0; i < PS_ARRAY_LEN(dtypes); i++) {
        if (strcmp(s, dtypes[i].name) == 0) {
            *out = (enum ps_st_dtype)i;
            return 0;
        }
    }
    return -1;
}

static bool read_size(const struct ps_json *v, uint64_t *out)
{
    if (v == NULL || ps_json_type(v) != PS_JSON_INT || ps_json_int(v) < 0)
        return false;
    *out = (uint64_t)ps_json_int(v);
    return true;
}

static bool read_shape(const struct ps_json *v, struct ps_tensor *t)
{
    uint64_t n = dtypes[t->dtype].bytes;
    uint32_t i;

    if (v == NULL || ps_json_type(v) != PS_JSON_ARR || ps_json_n(v) > PS_ST_MAX_RANK)
        return false;
    t->rank = (uint32_t)ps_json_n(v);
    for (i = 0; i < t->rank; i++) {
        if (!read_size(ps_json_at(v, i), &t->shape[i]) ||
            __builtin_mul_overflow(n, t->shape[i], &n))
            return false;
    }
    t->n_bytes = n;
    return true;
}

/* One header entry. data is where the shard's data begins, n_data its length. */
static int read_tensor(struct ps_st *s, const char *file, const char *name, const struct ps_json *v,
                       const uint8_t *data, uint64_t n_data, struct ps_buf *err)
{
    struct ps_tensor t = {0};
    const struct ps_json *off;
    uint64_t begin, end;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return refuse(err, file, name, "is not described by an object");
    if (read_dtype(ps_json_get(v, "dtype"), &t.dtype) != 0)
        return refuse(err, file, name, "has no known dtype");
    if (!read_shape(ps_json_get(v, "shape"), &t))
        return refuse(err, file, name, "has no valid shape");
    off = ps_json_get(v, "data_offsets");
    if (off == NULL || ps_json_type(off) != PS_JSON_ARR || ps_json_n(off) != 2 ||
        !read_size(ps_json_at(off, 0), &begin) || !read_size(ps_json_at(off, 1), &end) ||
        begin > end || end > n_data)
        return refuse(err, file, name, "has data_offsets outside the file");
    if (end - begin != t.n_bytes)
        return refuse(err, file, name, "has a shape that does not fit its data_offsets");
    if (s->n_tensors == MAX_TENSORS)
        return refuse(err, file, name, "is one tensor too many");
    t.name = ps_arena_strndup(&s->arena, name, strlen(name));
    t.data = data + begin;
    if (s->n_tensors == s->cap_tensors) {
        s->cap_tensors = s->cap_tensors != 0 ? 2 * s->cap_tensors : 256;
        s->tensors = ps_realloc(s->tensors, s->cap_tensors * sizeof(s->tensors[0]));
    }
    s->tensors[s->n_tensors++] = t;
    return PS_ST_OK;
}

static int by_data(const void *a, const void *b)
{
    const struct ps_tensor *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ps_tensor *)a)->name, ((const struct ps_tensor *)b)->name);
}

/* The tensors of one shard, together, cover its data without overlap and without a hole. */
static int check_cover(struct ps_tensor *t, uint32_t n, const uint8_t *data, uint64_t n_data,
                       const char *file, struct ps_buf *err)
{
    const uint8_t *at = data;
    uint32_t i;

    if (n > 1)
        qsort(t, n, sizeof(*t), by_data);
    for (i = 0; i < n; i++) {
        if (t[i].data != at)
            return refuse(err, file, t[i].name,
                          t[i].data < at ? "overlaps another tensor" : "leaves a hole before it");
        at += t[i].n_bytes;
    }
    if (at != data + n_data)
        return refuse(err, file, "", "has bytes after the last tensor");
    return PS_ST_OK;
}

/* Members of the outermost object of valid JSON, as written: the parser keeps one of equal keys. */
static size_t count_members(const char *json, size_t len)
{
    size_t i, depth = 0, n = 0;
    bool in_string = false;

    for (i = 0; i < len; i++) {
        char ch = json[i];

        if (in_string && ch == '\\')
            i++;
        else if (ch == '"')
            in_string = !in_string;
        else if (!in_string && (ch == '{' || ch == '['))
            depth++;
        else if (!in_string && (ch == '}' || ch == ']'))
            depth--;
        else if (!in_string && ch == ':' && depth == 1)
            n++;
    }
    return n;
}

static int read_header(struct ps_st *s, const struct shard *sh, struct ps_buf *err)
{
    struct ps_json_doc *doc = NULL;
    const struct ps_json *root, *v;
    uint32_t first = s->n_tensors;
    const uint8_t *data;
    uint64_t n_head, n_data;
    const char *name;
    void *it = NULL;
    size_t off = 0;
    int r;

    if (sh->n_bytes < 8)
        return refuse(err, sh->name, "", "is shorter than a header");
    memcpy(&n_head, sh->map, 8); /* little-endian, as is every machine this runs on */
    if (n_head > MAX_HEADER_BYTES || n_head > sh->n_bytes - 8)
        return refuse(err, sh->name, "", "has a header longer than the file or than 100 MiB");
    if (n_head == 0 || sh->map[8] != '{')
        return refuse(err, sh->name, "", "has a header that is not a JSON object");
    if (ps_json_parse(&doc, (const char *)sh->map + 8, (size_t)n_head, &json_limits, &off) !=
        PS_JSON_OK)
        return refuse(err, sh->name, "", "has a header that is not valid JSON");
    root = ps_json_root(doc);
    data = sh->map + 8 + n_head;
    n_data = sh->n_bytes - 8 - n_head;
    r = ps_json_type(root) == PS_JSON_OBJ
            ? PS_ST_OK
            : refuse(err, sh->name, "", "has a header that is not an object");
    if (r == PS_ST_OK &&
        count_members((const char *)sh->map + 8, (size_t)n_head) != ps_json_n(root))
        r = refuse(err, sh->name, "", "has a header that names a tensor twice");
    while (r == PS_ST_OK && (v = ps_json_next(root, &it, &name)) != NULL) {
        if (strcmp(name, "__metadata__") != 0)
            r = read_tensor(s, sh->name, name, v, data, n_data, err);
    }
    ps_json_free(doc);
    if (r == PS_ST_OK)
        r = check_cover(s->tensors + first, s->n_tensors - first, data, n_data, sh->name, err);
    return r;
}

static int map_shard(struct ps_st *s, struct shard *sh, const char *dir, struct ps_buf *err)
{
    PS_AUTO(ps_close_fd) int fd = -1;
    char path[PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof(path), "%s/%s", dir, sh->name);
    void *p;

    if (n < 0 || (size_t)n >= sizeof(path))
        return refuse(err, sh->name, "", "has too long a path");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return refuse(err, sh->name, "", "cannot be opened");
    if (st.st_size < 8)
        return refuse(err, sh->name, "", "is shorter than a header");
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return PS_FAULT(-errno);
    sh->map = p;
    sh->n_bytes = (size_t)st.st_size;
    s->identity =
        ps_hash64((const uint64_t[]){st.st_dev, st.st_ino, (uint64_t)st.st_size,
                                     (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec},
                  5 * sizeof(uint64_t), s->identity);
    return PS_ST_OK;
}

static bool is_plain_name(const char *s)
{
    return s[0] != '\0' && strchr(s, '/') == NULL && strchr(s, '\\') == NULL &&
           strstr(s, "..") == NULL;
}

static int add_shard(struct ps_st *s, const char *name, struct ps_buf *err)
{
    uint32_t i;

    for (i = 0; i < s->n_shards; i++) {
        if (strcmp(s->shards[i].name, name) == 0)
            return PS_ST_OK;
    }
    if (!is_plain_name(name))
        return refuse(err, "model.safetensors.index.json", "",
                      "names a shard outside its directory");
    if (s->n_shards == MAX_SHARDS)
        return refuse(err, "model.safetensors.index.json", "", "names too many shards");
    s->shards[s->n_shards++] =
        (struct shard){.name = ps_arena_strndup(&s->arena, name, strlen(name))};
    return PS_ST_OK;
}

static int read_index(struct ps_st *s, const char *json, size_t len, struct ps_buf *err)
{
    static const char file[] = "model.safetensors.index.json";
    struct ps_json_doc *doc = NULL;
    const struct ps_json *map, *v;
    void *it = NULL;
    const char *key;
    size_t off, n;
    int r = PS_ST_OK;

    if (ps_json_parse(&doc, json, len, &json_limits, &off) != PS_JSON_OK)
        return refuse(err, file, "", "is not valid JSON");
    map = ps_json_type(ps_json_root(doc)) == PS_JSON_OBJ
              ? ps_json_get(ps_json_root(doc), "weight_map")
              : NULL;
    if (map == NULL || ps_json_type(map) != PS_JSON_OBJ || ps_json_n(map) == 0)
        r = refuse(err, file, "", "has no weight_map");
    while (r == PS_ST_OK && (v = ps_json_next(map, &it, &key)) != NULL) {
        r = ps_json_type(v) == PS_JSON_STR ? add_shard(s, ps_json_str(v, &n), err)
                                           : refuse(err, file, key, "names no file");
    }
    ps_json_free(doc);
    return r;
}

static int find_shards(struct ps_st *s, const char *dir, struct ps_buf *err)
{
    struct ps_buf index = PS_BUF_INIT;
    int r = ps_file_read(dir, "model.safetensors.index.json", MAX_INDEX_BYTES, &index);

    s->shards = ps_arena_calloc(&s->arena, MAX_SHARDS, sizeof(s->shards[0]));
    if (r == PS_FILE_OK)
        r = read_index(s, index.data != NULL ? index.data : "", index.len, err);
    else if (r == PS_FILE_E_NONE)
        r = add_shard(s, "model.safetensors", err);
    else
        r = refuse(err, "model.safetensors.index.json", "", "cannot be read");
    ps_buf_fini(&index);
    return r;
}

int ps_st_open(struct ps_st **out, const char *dir, struct ps_buf *err)
{
    struct ps_st *s = ps_calloc(1, sizeof(*s));
    uint32_t i;
    int r;

    PS_ASSERT(out != NULL && dir != NULL && err != NULL);
    ps_arena_init(&s->arena, 64 << 10);
    r = find_shards(s, dir, err);
    for (i = 0; r == PS_ST_OK && i < s->n_shards; i++) {
        r = map_shard(s, &s->shards[i], dir, err);
        if (r == PS_ST_OK)
            r = read_header(s, &s->shards[i], err);
    }
    if (r == PS_ST_OK && s->n_tensors == 0)
        r = refuse(err, dir, "", "holds no tensors");
    if (r != PS_ST_OK) {
        ps_st_close(s);
        return r;
    }
    qsort(s->tensors, s->n_tensors, sizeof(s->tensors[0]), by_name);
    for (i = 1; i < s->n_tensors; i++) {
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0) {
            r = refuse(err, dir, s->tensors[i].name, "occurs twice");
            ps_st_close(s);
            return r;
        }
    }
    *out = s;
    return PS_ST_OK;
}

void ps_st_close(struct ps_st *s)
{
    uint32_t i;

    if (s == NULL)
        return;
    for (i = 0; i < s->n_shards; i++) {
        if (s->shards[i].map != NULL)
            munmap(s->shards[i].map, s->shards[i].n_bytes);
    }
    ps_free(s->tensors);
    ps_arena_fini(&s->arena);
    ps_free(s);
}

const struct ps_tensor *ps_st_find(const struct ps_st *s, const char *name)
{
    struct ps_tensor key = {.name = name};

    return bsearch(&key, s->tensors, s->n_tensors, sizeof(s->tensors[0]), by_name);
}

uint64_t ps_st_identity(const struct ps_st *s)
{
    return s->identity;
}

uint64_t ps_st_digest(const struct ps_st *s)
{
    uint64_t h = 0;
    uint32_t i;

    for (i = 0; i < s->n_tensors; i++) {
        const struct ps_tensor *t = &s->tensors[i];

        h = ps_hash64(t->name, strlen(t->name) + 1, h);
        h = ps_hash64(t->shape, t->rank * sizeof(t->shape[0]), h + (uint64_t)t->dtype);
        h = ps_hash64(t->data, t->n_bytes, h);
    }
    return h;
}

uint32_t ps_st_n(const struct ps_st *s)
{
    return s->n_tensors;
}

const struct ps_tensor *ps_st_at(const struct ps_st *s, uint32_t i)
{
    PS_ASSERT(i < s->n_tensors);
    return &s->tensors[i];
}
