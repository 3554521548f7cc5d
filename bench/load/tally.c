#include "bench/load/tally.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

void bn_tally_add(struct bn_tally *t, const struct bn_call *call)
{
    PS_ASSERT(call->error < BN_N_ERRORS);
    if (t->n[call->error]++ == 0)
        memcpy(t->said[call->error], call->said, sizeof(call->said));
}

void bn_tally_merge(struct bn_tally *t, const struct bn_tally *from)
{
    for (int e = 0; e < BN_N_ERRORS; e++) {
        t->n[e] += from->n[e];
        if (t->said[e][0] == '\0')
            memcpy(t->said[e], from->said[e], sizeof(t->said[e]));
    }
}

uint64_t bn_tally_failed(const struct bn_tally *t)
{
    uint64_t n = 0;

    for (int e = BN_OK + 1; e < BN_N_ERRORS; e++)
        n += t->n[e];
    return n;
}

void bn_tally_json(const struct bn_tally *t, struct ps_buf *out)
{
    bool first = true;

    ps_buf_addf(out, "\"requests\":{\"ok\":%llu,\"failed\":%llu},\"errors\":{",
                (unsigned long long)t->n[BN_OK], (unsigned long long)bn_tally_failed(t));
    for (int e = BN_OK + 1; e < BN_N_ERRORS; e++) {
        if (t->n[e] == 0)
            continue;
        ps_buf_addf(out, "%s\"%s\":%llu", first ? "" : ",", bn_error_name((enum bn_error)e),
                    (unsigned long long)t->n[e]);
        first = false;
    }
    ps_buf_add_byte(out, '}');
}

void bn_tally_lines(const struct bn_tally *t, struct ps_buf *out)
{
    for (int e = BN_OK + 1; e < BN_N_ERRORS; e++) {
        if (t->n[e] > 0)
            ps_buf_addf(out, "%llu x %s: %s\n", (unsigned long long)t->n[e],
                        bn_error_name((enum bn_error)e), t->said[e]);
    }
}

uint64_t bn_thread_cpu_us(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_THREAD, &u);
    return (uint64_t)((u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 + u.ru_utime.tv_usec +
                      u.ru_stime.tv_usec);
}

bool bn_write_file(const char *path, const struct ps_buf *b)
{
    FILE *f = fopen(path, "we");
    bool ok = f != NULL && fwrite(b->data, 1, b->len, f) == b->len;

    return f != NULL && fclose(f) == 0 && ok;
}

const char *bn_client_said(int r)
{
    return r == BN_CLIENT_E_ADDRESS ? "--target: expected HOST:PORT, numeric IPv4 or localhost"
           : r == BN_CLIENT_E_FILES ? "more streams than this process may open files"
                                    : strerror(r < 0 ? -r : r);
}
