/*
 * A router without HTTP: wire_drive PORT SEED STREAMS TABLE INJECT. Keeps STREAMS requests open and
 * checks each token; SIGTERM lets the open ones finish and ends it: 0 when none was wrong or stuck.
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "common/buf.h"
#include "common/log.h"
#include "tests/fault/wire_fake.h"

enum { FINISH_US = 60000000 };

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
    (void)sig;
    ended = 1;
}

static int report(struct wire_drive *d)
{
    struct wire_table *t = wire_drive_table(d);
    uint32_t n_open = wire_drive_n_open(d);

    if (n_open > 0)
        wire_drive_describe(d);
    fprintf(stderr,
            "completed=%" PRIu64 " tokens=%" PRIu64 " wrong=%" PRIu64 " lost=%" PRIu64
            " rejected=%" PRIu64 " cancelled=%" PRIu64 " stuck=%u\n",
            t->n_completed, t->n_tokens, t->n_wrong, t->n_lost, t->n_rejected, t->n_cancelled,
            n_open);
    return t->n_wrong == 0 && n_open == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct wire_drive_conf c = {.secret_file = "", .allow_file = ""};
    struct sigaction sa = {.sa_handler = on_term};
    struct ps_buf err = PS_BUF_INIT;
    struct ps_clock clock;
    struct wire_drive *d;
    uint64_t until;
    int r;

    if (argc != 6) {
        fprintf(stderr, "usage: wire_drive PORT SEED STREAMS TABLE INJECT\n");
        return 2;
    }
    ps_log_init("wire_drive", PS_LOG_ERROR);
    sigaction(SIGTERM, &sa, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the harness may die too */
    c.port = (uint16_t)strtoul(argv[1], NULL, 10);
    c.seed = strtoull(argv[2], NULL, 10);
    c.n_streams = (uint32_t)strtoul(argv[3], NULL, 10);
    c.n_long = 4;
    c.table_path = argv[4];
    c.inject = argv[5];
    d = wire_drive_start(&c, &err);
    if (d == NULL) {
        fprintf(stderr, "%s\n", err.data);
        return 2;
    }
    while (!ended)
        wire_drive_turn(d, true);
    ps_clock_real(&clock);
    until = ps_now_us(&clock) + FINISH_US;
    while (wire_drive_n_open(d) > 0 && ps_now_us(&clock) < until)
        wire_drive_turn(d, false);
    r = report(d);
    wire_drive_stop(d);
    return r;
}
