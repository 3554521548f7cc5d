#pragma once

/*
 * Asking a running cluster questions: `penstock chat`, and the one question of `penstock demo`.
 */

#include "deploy/cli/client.h"

struct cli_chat_conf;

/* Interactive: reads questions from standard input until its end. Returns the exit status. */
int cli_chat(const struct cli_chat_conf *conf);
/* One question; the answer streams to standard output. Returns CLI_OK or an error that was told on stderr. */
PS_MUST int cli_ask(const struct cli_url *u, const struct cli_chat_conf *conf,
                    const char *question);
