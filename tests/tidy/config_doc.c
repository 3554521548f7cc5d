/*
 * config_doc: prints docs/config.md from the programs' option tables.
 *
 * With a file name as argument it compares instead, and fails when the file is out of date.
 */

#include <stdio.h>
#include <string.h>

#include "deploy/cli/conf_def.h"
#include "router/conf_def.h"
#include "worker/conf_def.h"

static void add(struct ps_buf *out, const char *prog, const char *usage, const char *about,
                const struct ps_conf_opt *opts, size_t n)
{
    const struct ps_conf_table t = {
        .prog = prog, .usage = usage, .about = about, .opts = opts, .n_opts = (uint32_t)n};

    ps_conf_write_markdown(&t, out);
    ps_buf_add_byte(out, '\n');
}

int main(int argc, char **argv)
{
    struct ps_buf want = PS_BUF_INIT, have = PS_BUF_INIT;
    bool same = true;
    char tmp[4096];
    size_t n;
    FILE *f;

    ps_buf_add_str(
        &want,
        "# Configuration\n\nMade from the programs' option tables; do not edit. Precedence: flag, "
        "environment, file (--config), default.\n\n");
    add(&want, "router", "penstock-router [options]", "HTTP in front, workers behind.",
        rt_conf_opts, PS_ARRAY_LEN(rt_conf_opts));
    add(&want, "worker", "penstock-worker [options]", "Runs a model for the routers it dials.",
        wk_conf_opts, PS_ARRAY_LEN(wk_conf_opts));
    add(&want, "serve", "penstock serve [options]",
        "One router and N workers on this host, supervised.", cli_serve_opts,
        PS_ARRAY_LEN(cli_serve_opts));
    add(&want, "chat", "penstock chat [options]", "Talks to a running cluster.", cli_chat_opts,
        PS_ARRAY_LEN(cli_chat_opts));
    if (argc == 1) {
        (void)fwrite(want.data, 1, want.len, stdout);
    } else {
        f = fopen(argv[1], "rb");
        while (f != NULL && (n = fread(tmp, 1, sizeof(tmp), f)) > 0)
            ps_buf_add(&have, tmp, n);
        if (f != NULL)
            (void)fclose(f);
        same = have.len == want.len && memcmp(have.data, want.data, want.len) == 0;
        if (!same)
            (void)fprintf(stderr, "%s is out of date: run this program without arguments into it\n",
                          argv[1]);
    }
    ps_buf_fini(&want);
    ps_buf_fini(&have);
    return same ? 0 : 1;
}
