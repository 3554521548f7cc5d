/*
 * penstock: the front door on one host.
 */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "deploy/cli/chat.h"
#include "deploy/cli/conf_def.h"
#include "deploy/cli/demo.h"
#include "deploy/cli/serve.h"

static const char usage[] =
    "penstock COMMAND [options]\n"
    "\n"
    "  serve   one router and N workers on this host, supervised, in the foreground\n"
    "  chat    talk to a running cluster from the terminal\n"
    "  demo    start a cluster on the bundled model, ask it two questions, stop it\n"
    "\n"
    "penstock COMMAND --help lists a command's options; penstock --version tells the version.\n";

/* Returns the exit status when loading already answered or failed, else -1. */
static int load(const struct ps_conf_table *t, int argc, char **argv, void *conf)
{
    struct ps_buf err = PS_BUF_INIT;
    int r = ps_conf_load(t, argc, argv, conf, NULL, NULL, &err);

    if (r == PS_CONF_E_BAD)
        (void)fprintf(stderr, "penstock %s: %s\n", t->prog, err.data);
    ps_buf_fini(&err);
    return r == PS_CONF_OK ? -1 : r == PS_CONF_E_DONE ? 0 : 2;
}

static int serve(int argc, char **argv)
{
    static const struct ps_conf_table table = {
        .prog = "serve",
        .usage = "penstock serve [options]",
        .about = "Runs one router and N workers on this host. Ready when GET "
                 "/ready says 200. Ctrl-C drains.",
        .opts = cli_serve_opts,
        .n_opts = PS_ARRAY_LEN(cli_serve_opts)};
    struct cli_serve_conf conf;
    struct cli_cluster *c;
    int status = load(&table, argc, argv, &conf);

    if (status >= 0)
        return status;
    c = cli_cluster_start(&conf);
    return c != NULL ? cli_cluster_run(c) : 1;
}

static int chat(int argc, char **argv)
{
    static const struct ps_conf_table table = {
        .prog = "chat",
        .usage = "penstock chat [options]",
        .about = "Reads questions from the terminal or standard input and "
                 "streams the answers. Ctrl-D ends.",
        .opts = cli_chat_opts,
        .n_opts = PS_ARRAY_LEN(cli_chat_opts)};
    struct cli_chat_conf conf;
    int status = load(&table, argc, argv, &conf);

    return status >= 0 ? status : cli_chat(&conf);
}

int main(int argc, char **argv)
{
    const char *cmd = argc > 1 ? argv[1] : "";

    ps_log_init("penstock", strcmp(cmd, "demo") == 0 ? PS_LOG_WARN : PS_LOG_INFO);
    if (strcmp(cmd, "serve") == 0)
        return serve(argc - 1, argv + 1);
    if (strcmp(cmd, "chat") == 0)
        return chat(argc - 1, argv + 1);
    if (strcmp(cmd, "demo") == 0)
        return cli_demo();
    if (strcmp(cmd, "--version") == 0) {
        (void)printf("penstock %s (%s)\n", ps_version(), ps_commit());
        return 0;
    }
    (void)fputs(usage, strcmp(cmd, "--help") == 0 || strcmp(cmd, "-h") == 0 ? stdout : stderr);
    return strcmp(cmd, "--help") == 0 || strcmp(cmd, "-h") == 0 ? 0 : 2;
}
