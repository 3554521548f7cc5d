#pragma once

/*
 * Arena: memory that dies together, for example with a request or a step.
 *
 * Owned by one thread at a time. Allocation never fails (see ps_alloc) and is never undone one by
 * one: fini gives everything back. Everything is aligned to 16 bytes.
 */

#include "common/base.h"

struct ps_arena_chunk;

struct ps_arena {
    struct ps_arena_chunk *head;
    size_t chunk_bytes; /* size of an ordinary chunk */
};

void ps_arena_init(struct ps_arena *a, size_t chunk_bytes); /* 0: 4 KiB */
void ps_arena_fini(struct ps_arena *a);
void *ps_arena_alloc(struct ps_arena *a, size_t n_bytes);            /* not zeroed */
void *ps_arena_calloc(struct ps_arena *a, size_t n, size_t size);    /* zeroed */
char *ps_arena_strndup(struct ps_arena *a, const char *s, size_t n); /* NUL-terminated copy */
void *ps_arena_memdup(struct ps_arena *a, const void *p, size_t n_bytes);
