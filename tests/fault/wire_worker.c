/* A worker without a model: wire_worker UID STEP_US TABLE INJECT ROUTER... ; SIGTERM ends it. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "common/log.h"
#include "tests/fault/wire_fake.h"

int main(int argc, char **argv)
{
    struct wire_worker_conf c = {.secret_file = "", .server_key_file = ""};
    struct wire_worker *w;
    sigset_t term;
    int sig;

    if (argc < 6) {
        fprintf(stderr, "usage: wire_worker UID STEP_US TABLE INJECT ROUTER...\n");
        return 2;
    }
    ps_log_init("wire_worker", PS_LOG_WARN);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL); /* before threads start: only sigwait sees it */
    prctl(PR_SET_PDEATHSIG, SIGKILL);        /* the harness may die too */
    c.uid = strtoull(argv[1], NULL, 10);
    c.step_us = (uint32_t)strtoul(argv[2], NULL, 10);
    c.table_path = argv[3];
    c.inject = argv[4];
    c.routers = (const char **)(void *)(argv + 5);
    c.n_routers = (uint32_t)(argc - 5);
    w = wire_worker_start(&c);
    sigwait(&term, &sig);
    wire_worker_stop(w, false);
    return 0;
}
