#include "worker/stats.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Weight of a new sample: a change of load shows within about 8 steps. */
#define SAMPLE_WEIGHT 0.125

/* The chunks of a step must be worth measuring: a handful of tokens says nothing of prefill speed. */
enum { PREFILL_SAMPLE_MIN = 16, RSS_PERIOD_US = 1000000, WAIT_MS_MAX = 3600000 };

/* Requests differ more than steps, and leave in crowds. */
#define GAP_WEIGHT (1.0 / 32)

static double blend(double mean, double sample)
{
    return mean > 0 ? mean + SAMPLE_WEIGHT * (sample - mean) : sample;
}

void wk_stats_step(struct wk_stats *s, uint32_t step_us, uint32_t n_prefill)
{
    double us = step_us > 0 ? step_us : 1;

    s->step_us = blend(s->step_us, us);
    if (n_prefill >= PREFILL_SAMPLE_MIN)
        s->prefill_tok_per_s = blend(s->prefill_tok_per_s, n_prefill * 1e6 / us);
}

void wk_stats_left(struct wk_stats *s, uint64_t now_us, bool others_wait)
{
    if (!others_wait) { /* a gap without demand says nothing of speed */
        s->left_us = 0;
        return;
    }
    if (s->left_us != 0) {
        double gap = (double)(now_us - s->left_us);

        s->left_gap_us =
            s->left_gap_us > 0 ? s->left_gap_us + GAP_WEIGHT * (gap - s->left_gap_us) : gap;
    }
    s->left_us = now_us > 0 ? now_us : 1;
}

uint32_t wk_stats_wait_ms(const struct wk_stats *s, uint64_t n_waiting, uint64_t n_prefill)
{
    double queue_ms = (double)n_waiting * s->left_gap_us / 1e3, prefill_ms = 0, ms;

    if (s->prefill_tok_per_s > 0)
        prefill_ms = (double)n_prefill * 1e3 / s->prefill_tok_per_s;
    ms = queue_ms > prefill_ms ? queue_ms : prefill_ms;
    return ms < WAIT_MS_MAX ? (uint32_t)ms : WAIT_MS_MAX;
}

uint64_t wk_stats_rss(struct wk_stats *s, uint64_t now_us)
{
    char text[128], *at = NULL;
    PS_AUTO(ps_close_fd) int fd = -1;
    ssize_t n;

    if (s->rss_read_us != 0 && now_us - s->rss_read_us < RSS_PERIOD_US)
        return s->rss_bytes;
    s->rss_read_us = now_us > 0 ? now_us : 1;
    fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n > 0) {
        text[n] = '\0';
        (void)strtoull(text, &at, 10); /* total size, then what is resident, in pages */
        s->rss_bytes = strtoull(at, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    return s->rss_bytes;
}
