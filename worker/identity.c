#include "worker/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/model/block.h"
#include "common/model/file.h"
#include "common/rng.h"

enum {
    TOKENIZER_BYTES_MAX = 256 << 20,
    UID_HEX_DIGITS = 16,
    KV_RAW = 1, /* rows as the kernels write them; the ids of other formats are added to it */
};

int wk_tokenizer_digest(const char *model_dir, uint8_t out[PS_SHA256_BYTES], struct ps_buf *err)
{
    struct ps_buf text = PS_BUF_INIT;
    int r = ps_file_read(model_dir, "tokenizer.json", TOKENIZER_BYTES_MAX, &text);

    if (r == PS_FILE_OK) {
        ps_sha256(text.data, text.len, out);
    } else {
        ps_buf_addf(err, "tokenizer.json: %s",
                    r == PS_FILE_E_NONE  ? "is missing"
                    : r == PS_FILE_E_BIG ? "is larger than 256 MiB"
                                         : strerror(-r));
        r = WK_IDENTITY_E_BAD;
    }
    ps_buf_fini(&text);
    return r;
}

uint64_t wk_space_id(uint64_t weights_digest, const uint8_t tokenizer[PS_SHA256_BYTES],
                     const struct ps_model_config *c, const struct wk_kv_layout *l,
                     uint64_t format_id)
{
    float *freq = ps_calloc(c->d_head / 2 + 1, sizeof(*freq));
    float scale = 0;
    uint32_t d_rot = 0;
    uint64_t words[4] = {weights_digest, l->layout_id, KV_RAW + format_id, PS_BLOCK_TOKENS};
    uint64_t h = ps_hash64("space 1", 7, 0);

    ps_rope_frequencies(c, freq, &d_rot, &scale);
    h = ps_hash64(words, sizeof(words), h);
    h = ps_hash64(tokenizer, PS_SHA256_BYTES, h);
    h = ps_hash64(&d_rot, sizeof(d_rot), h);
    h = ps_hash64(&scale, sizeof(scale), h);
    h = ps_hash64(freq, d_rot / 2 * sizeof(*freq), h);
    ps_free(freq);
    return h;
}

uint64_t wk_arith_id(uint64_t device_arith_id, const struct wk_kv_layout *l)
{
    /* Parallel shape TP, EP, CP: one rank. The layout names the type of cached rows. */
    uint64_t words[6] = {device_arith_id, 1, 1, 1, KV_RAW, l->layout_id};

    return ps_hash64(words, sizeof(words), ps_hash64("arith 1", 7, 0));
}

static bool parse_uid(const char *hex, size_t len, uint64_t *out)
{
    char *end, text[UID_HEX_DIGITS + 1] = "";

    if (len == 0 || len > UID_HEX_DIGITS || strspn(hex, "0123456789abcdefABCDEF") < len)
        return false;
    memcpy(text, hex, len);
    *out = strtoull(text, &end, 16);
    return *out != 0;
}

static uint64_t draw_uid(void)
{
    uint64_t u = 0;

    while (u == 0)
        ps_random_bytes(&u, sizeof(u));
    return u;
}

/* Written to a file of its own first, so that a crash leaves no half identity. */
static int write_uid(const char *file, uint64_t u)
{
    struct ps_buf path = PS_BUF_INIT, text = PS_BUF_INIT;
    PS_AUTO(ps_close_fd) int fd = -1;
    int r = 0;

    ps_buf_addf(&path, "%s.%d", file, (int)getpid());
    ps_buf_addf(&text, "%016lx\n", (unsigned long)u);
    fd = open(path.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len ||
        rename(path.data, file) < 0) {
        r = -errno;
        if (fd >= 0)
            (void)unlink(path.data);
    }
    ps_buf_fini(&path);
    ps_buf_fini(&text);
    return r;
}

int wk_uid(const char *hex, const char *file, uint64_t *out, struct ps_buf *err)
{
    struct ps_buf text = PS_BUF_INIT;
    int r;

    if (hex[0] != '\0') {
        if (parse_uid(hex, strlen(hex), out))
            return WK_IDENTITY_OK;
        ps_buf_add_str(err, "--uid: needs 1 to 16 hex digits, not all 0");
        return WK_IDENTITY_E_BAD;
    }
    *out = draw_uid();
    if (file[0] == '\0')
        return WK_IDENTITY_OK;
    r = ps_file_read(file[0] == '/' ? "" : ".", file, 64, &text);
    if (r == PS_FILE_OK && !parse_uid(text.data, strcspn(text.data, "\n"), out)) {
        ps_buf_addf(err, "--uid-file: %s does not hold 1 to 16 hex digits", file);
        r = WK_IDENTITY_E_BAD;
    } else if (r == PS_FILE_E_NONE) {
        r = write_uid(file, *out);
        if (r < 0)
            ps_buf_addf(err, "--uid-file: %s cannot be written: %s", file, strerror(-r));
    } else if (r != PS_FILE_OK) {
        ps_buf_addf(err, "--uid-file: %s cannot be read", file);
    }
    ps_buf_fini(&text);
    return r == 0 ? WK_IDENTITY_OK : WK_IDENTITY_E_BAD;
}
