#pragma once

/*
 * Byte buffer: grows at the end, is consumed at the front.
 *
 * Owned by one thread. data is NUL-terminated one byte past len whenever it is not NULL, so text can
 * be handed to C functions. Growth doubles; nothing shrinks before fini. Bounds are the caller's: a
 * buffer that input can grow has a limit checked by the code that appends.
 */

#include "common/base.h"

struct ps_buf {
    char *data;
    size_t len, cap;
};

#define PS_BUF_INIT \
    { \
        NULL, 0, 0 \
    }

void ps_buf_init(struct ps_buf *b);
void ps_buf_fini(struct ps_buf *b);
void ps_buf_clear(struct ps_buf *b); /* keeps the memory */
void ps_buf_reserve(struct ps_buf *b, size_t n_more_bytes);
char *ps_buf_grow(struct ps_buf *b, size_t n_bytes); /* room for n more, len raised; not zeroed */
void ps_buf_add(struct ps_buf *b, const void *p, size_t n_bytes);
void ps_buf_add_str(struct ps_buf *b, const char *s);
void ps_buf_add_byte(struct ps_buf *b, char c);
PS_PRINTF(2, 3) void ps_buf_addf(struct ps_buf *b, const char *fmt, ...);
void ps_buf_consume(struct ps_buf *b, size_t n_bytes); /* drops from the front, n <= len */
void ps_buf_truncate(struct ps_buf *b, size_t len);

/* Little-endian scalars, for our own files and wire. */
void ps_buf_add_u32(struct ps_buf *b, uint32_t v);
void ps_buf_add_u64(struct ps_buf *b, uint64_t v);
