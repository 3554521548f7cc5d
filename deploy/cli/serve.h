#pragma once

/*
 * `penstock serve`: one router and N workers on this host, supervised.
 *
 * Invariants
 *   S1 a child that dies while the cluster is up is started again, after 0.1 s, doubling to 5 s while
 *      it keeps dying young.
 *   S2 the first SIGINT or SIGTERM drains: the router first, then the workers; the second one, or the
 *      drain timeout, kills. When this process is gone, so are its children (PR_SET_PDEATHSIG).
 *   S3 nothing blocks: one poll loop over signalfd.
 */

#include "common/base.h"

struct cli_serve_conf;

struct cli_cluster;

/* A loopback port that nobody uses now. */
PS_MUST int cli_free_port(uint16_t *out);
/* Starts the children. NULL after a message on stderr. */
struct cli_cluster *cli_cluster_start(const struct cli_serve_conf *conf);
/*
 * Supervises until told to stop, then drains.
 * Returns the exit status: 0, or 1 when children had to be killed or could not be kept alive.
 */
int cli_cluster_run(struct cli_cluster *c);
/* One round of supervision, waiting at most wait_ms; false once the cluster is told to stop or gave up. */
bool cli_cluster_step(struct cli_cluster *c, int wait_ms);
int cli_cluster_stop(struct cli_cluster *c); /* drains, reaps, frees; the exit status */
