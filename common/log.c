#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_BYTES_MAX = 2048, /* below PIPE_BUF, so that a line in a pipe is never torn */
    LINES_PER_SECOND = 10, /* of one call site */
};

static const char *prog = "penstock";
static enum ps_log_level level_max = PS_LOG_INFO;

void ps_log_init(const char *prog_name, enum ps_log_level level)
{
    PS_ASSERT(prog_name != NULL && level <= PS_LOG_DEBUG);
    prog = prog_name;
    level_max = level;
}

bool ps_log_on(enum ps_log_level level)
{
    return level <= level_max;
}

const char *ps_log_quote(const char *s, char *out, size_t out_bytes)
{
    size_t n = 0;

    PS_ASSERT(out_bytes >= 16);
    out[n++] = '"';
    for (; *s != '\0'; s++) {
        uint8_t c = (uint8_t)*s;

        if (n + 9 > out_bytes) { /* the longest escape, "...", the quote and the terminator */
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c < 0x20 || c == 0x7F) {
            n += (size_t)snprintf(out + n, 5, "\\x%02x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

/* False when this line is over the site's limit; *out_dropped: lines to confess with this one. */
static bool admit(struct ps_log_site *site, uint64_t now_s, uint32_t *out_dropped)
{
    uint64_t window_s = atomic_load(&site->window_s);

    *out_dropped = 0;
    /* now_s + 1: a site of the first second of an uptime must not look fresh for ever. */
    if (window_s != now_s + 1 &&
        atomic_compare_exchange_strong(&site->window_s, &window_s, now_s + 1))
        atomic_store(&site->n_in_window, 0);
    if (atomic_fetch_add(&site->n_in_window, 1) >= LINES_PER_SECOND) {
        atomic_fetch_add(&site->n_suppressed, 1);
        return false;
    }
    *out_dropped = atomic_exchange(&site->n_suppressed, 0);
    return true;
}

PS_PRINTF(3, 0) static size_t addf(char *line, size_t at, const char *fmt, va_list ap)
{
    int n = vsnprintf(line + at, LINE_BYTES_MAX - at, fmt, ap);

    return n < 0 ? at : ps_min_size(at + (size_t)n, LINE_BYTES_MAX - 1);
}

PS_PRINTF(3, 4) static size_t add(char *line, size_t at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    at = addf(line, at, fmt, ap);
    va_end(ap);
    return at;
}

static size_t add_head(char *line, enum ps_log_level level, const char *msg)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    struct timespec ts;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = strftime(line, LINE_BYTES_MAX, "ts=%Y-%m-%dT%H:%M:%S", &tm);
    return add(line, n, ".%03ldZ level=%s prog=%s msg=\"%s\"", ts.tv_nsec / 1000000, names[level],
               prog, msg);
}

void ps_log_line(struct ps_log_site *site, enum ps_log_level level, const char *msg,
                 const char *fmt, ...)
{
    char line[LINE_BYTES_MAX + 1]; /* one more for the newline */
    struct timespec now;
    uint32_t n_dropped;
    size_t n;
    va_list ap;

    PS_ASSERT(level <= PS_LOG_DEBUG);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!admit(site, (uint64_t)now.tv_sec, &n_dropped))
        return;
    n = add_head(line, level, msg);
    if (n_dropped > 0)
        n = add(line, n, " suppressed=%u", n_dropped);
    if (fmt[0] != '\0') {
        n = add(line, n, " ");
        va_start(ap, fmt);
        n = addf(line, n, fmt, ap);
        va_end(ap);
    }
    /* A value from outside must not be able to forge a line. */
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)line[i] < 0x20)
            line[i] = ' ';
    }
    line[n++] = '\n';
    while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR) {
    }
}
