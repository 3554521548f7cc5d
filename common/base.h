#pragma once

/*
 * The words every file uses: attributes, errors, assertions, host memory.
 *
 * Errors are ints of two classes. 0 is done. Negative is an errno that the callee did not expect,
 * made once by PS_FAULT and handed up unchanged. Positive is a case named in the callee's header:
 * handle or translate it, never forward it. Outputs are untouched on failure.
 *
 * Assertions are for our own mistakes and stay on in release; input is never checked with them.
 * Host allocation failure aborts: no input may choose a size without passing a named limit first.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PS_MUST                       __attribute__((warn_unused_result))
#define PS_PRINTF(f, a)               __attribute__((format(printf, f, a)))
#define PS_NORETURN                   __attribute__((noreturn))
#define PS_UNUSED                     __attribute__((unused))
#define PS_LIKELY(x)                  __builtin_expect(!!(x), 1)
#define PS_UNLIKELY(x)                __builtin_expect(!!(x), 0)
#define PS_ARRAY_LEN(a)               (sizeof(a) / sizeof((a)[0]))
#define PS_CACHE_LINE                 64
#define PS_AUTO(fn)                   __attribute__((cleanup(fn))) /* file descriptors and locks only */
#define PS_CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

/* Records where an unexpected errno was first seen; evaluates to its (negative) argument. */
#define PS_FAULT(neg_errno) ps_fault_at((neg_errno), __FILE__, __LINE__)

#define PS_ASSERT(x) (PS_LIKELY(x) ? (void)0 : ps_assert_failed(#x, __FILE__, __LINE__))

/* For hot loops: checked in sanitizer and debug builds only. */
#ifdef PS_DEBUG
#define PS_DASSERT(x) PS_ASSERT(x)
#else
#define PS_DASSERT(x) ((void)(0 && (x))) /* not evaluated, but compiled */
#endif

int ps_fault_at(int neg_errno, const char *file, int line);
/* "file:line" of this thread's last PS_FAULT, "" when there was none. */
const char *ps_fault_where(void);
PS_NORETURN void ps_assert_failed(const char *expr, const char *file, int line);

/* Host memory. All abort when there is none; n * size is checked for overflow. */
void *ps_alloc(size_t n_bytes);            /* not zeroed; n_bytes 0 gives a valid pointer */
void *ps_calloc(size_t n, size_t size);    /* zeroed */
void *ps_realloc(void *p, size_t n_bytes); /* p may be NULL */
void *ps_alloc_aligned(size_t align, size_t n_bytes); /* freed with ps_free */
char *ps_strdup(const char *s);
char *ps_strndup(const char *s, size_t n);
void ps_free(void *p); /* NULL is fine */

/* For PS_AUTO. */
void ps_close_fd(int *fd);

static inline uint32_t ps_min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}
static inline uint32_t ps_max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}
static inline uint64_t ps_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t ps_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
static inline size_t ps_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline uint64_t ps_div_up_u64(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}
