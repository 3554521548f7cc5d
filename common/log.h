#pragma once

/*
 * Log: one logfmt line per event on stderr, written with a single write().
 *
 * Any thread. The message comes first and is stable: `msg="worker joined" worker=3 model=demo`.
 * Format: `ts=2026-01-01T00:00:00.000Z level=info prog=router msg="..." k=v ...`. The format string
 * is the k=v part; values that hold spaces or quotes are the caller's to quote with PS_Q.
 * common and kernels never log above debug. Each call site is limited to 10 lines a second; what was
 * dropped is told with the next line (`suppressed=N`). Prompt and output text, keys and token ids
 * are never logged.
 */

#include "common/base.h"

enum ps_log_level { PS_LOG_ERROR, PS_LOG_WARN, PS_LOG_INFO, PS_LOG_DEBUG };

struct ps_log_site { /* one static object per call site, for the rate limit */
    _Atomic uint64_t window_s;
    _Atomic uint32_t n_in_window, n_suppressed;
};

/* s as a quoted, escaped value; cut with "..." when out is too small. Returns out (>= 16 bytes). */
const char *ps_log_quote(const char *s, char *out, size_t out_bytes);
#define PS_Q(s) ps_log_quote((s), (char[160]){0}, 160)

void ps_log_init(const char *prog, enum ps_log_level level); /* before threads start */
bool ps_log_on(enum ps_log_level level);
PS_PRINTF(4, 5)
void ps_log_line(struct ps_log_site *site, enum ps_log_level level, const char *msg,
                 const char *fmt, ...);

#define PS_LOG_AT(level, msg, ...) \
    do { \
        static struct ps_log_site ps_site_; \
        if (ps_log_on(level)) \
            ps_log_line(&ps_site_, (level), (msg), __VA_ARGS__); \
    } while (0)

/* fmt may be "" when there is nothing to add. */
#define ps_error(msg, ...) PS_LOG_AT(PS_LOG_ERROR, msg, __VA_ARGS__)
#define ps_warn(msg, ...)  PS_LOG_AT(PS_LOG_WARN, msg, __VA_ARGS__)
#define ps_info(msg, ...)  PS_LOG_AT(PS_LOG_INFO, msg, __VA_ARGS__)
#define ps_debug(msg, ...) PS_LOG_AT(PS_LOG_DEBUG, msg, __VA_ARGS__)
