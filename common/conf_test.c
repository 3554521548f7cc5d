#include "common/conf.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/arena.h"
#include "common/test.h"

struct conf {
    bool stream, quiet;
    int64_t port, any;
    double ratio;
    const char *name;
    struct ps_conf_list peers;
    int32_t policy;
};

static const struct ps_conf_opt opts[] = {
    {.name = "stream",
     .type = PS_CONF_BOOL,
     .offset = offsetof(struct conf, stream),
     .def = "true",
     .help = "Stream answers."},
    {.name = "quiet",
     .type = PS_CONF_BOOL,
     .offset = offsetof(struct conf, quiet),
     .help = "Hush."},
    {.name = "port",
     .type = PS_CONF_INT,
     .offset = offsetof(struct conf, port),
     .def = "8000",
     .min = 1,
     .max = 65535,
     .help = "Port to listen on."},
    {.name = "max-queue",
     .alias = "queue-limit",
     .type = PS_CONF_INT,
     .offset = offsetof(struct conf, any),
     .def = "0",
     .unit = "bytes",
     .help = "Any integer."},
    {.name = "ratio",
     .type = PS_CONF_FLOAT,
     .offset = offsetof(struct conf, ratio),
     .def = "0.5",
     .min = 0,
     .max = 1,
     .help = "A share."},
    {.name = "name", .type = PS_CONF_STR, .offset = offsetof(struct conf, name), .help = "A name."},
    {.name = "peer",
     .type = PS_CONF_LIST,
     .offset = offsetof(struct conf, peers),
     .help = "Addresses."},
    {.name = "policy",
     .type = PS_CONF_ENUM,
     .offset = offsetof(struct conf, policy),
     .def = "warm",
     .choices = "cold|warm|hot",
     .help = "How."},
};

static const struct ps_conf_table table = {
    .prog = "router",
    .usage = "penstock-router [options]",
    .about = "Routes requests.",
    .opts = opts,
    .n_opts = PS_ARRAY_LEN(opts),
};

struct run {
    struct conf conf;
    struct ps_conf_list rest;
    struct ps_buf err;
    int r;
};

/* Arguments live until exit, as argv does: list items point to them. */
static struct ps_arena arg_arena;

/* argv as one string, split at spaces; "~" stands for a space inside an argument. */
static struct run load(const char *args, bool with_rest,
                       bool (*check)(const void *conf, struct ps_buf *err))
{
    struct run run = {.err = PS_BUF_INIT};
    char *argv[64] = {(char *)(uintptr_t) "prog"}, *text, *save = NULL;
    int argc = 1;

    text = ps_arena_strndup(&arg_arena, args, strlen(args));
    for (char *a = strtok_r(text, " ", &save); a != NULL; a = strtok_r(NULL, " ", &save)) {
        for (char *p = a; *p != '\0'; p++)
            *p = *p == '~' ? ' ' : *p;
        assert_true(argc < 64);
        argv[argc++] = a;
    }
    ps_buf_reserve(&run.err, 1);
    run.r =
        ps_conf_load(&table, argc, argv, &run.conf, with_rest ? &run.rest : NULL, check, &run.err);
    return run;
}

static char file_path[] = "/tmp/penstock-conf-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(file_path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static struct run load_file(const char *text, const char *more_args)
{
    char args[512];

    write_file(text);
    snprintf(args, sizeof(args), "--config %s %s", file_path, more_args);
    return load(args, false, NULL);
}

static void check_ok(const struct run *run)
{
    if (run->r != PS_CONF_OK)
        fail_msg("case %d: %s", run->r, run->err.data);
}

static void check_bad(struct run run, const char *message)
{
    assert_int_equal(run.r, PS_CONF_E_BAD);
    assert_string_equal(run.err.data, message);
    ps_buf_fini(&run.err);
}

static void defaults_fill_every_member(void **state)
{
    struct run run = load("", false, NULL);

    (void)state;
    check_ok(&run);
    assert_true(run.conf.stream);
    assert_false(run.conf.quiet);
    assert_int_equal(run.conf.port, 8000);
    assert_true(run.conf.ratio == 0.5);
    assert_string_equal(run.conf.name, "");
    assert_int_equal(run.conf.peers.n, 0);
    assert_int_equal(run.conf.policy, 1);
    ps_buf_fini(&run.err);
}

static void each_type_has_its_flag_forms(void **state)
{
    struct run run =
        load("--no-stream --quiet=true --port 81 --queue-limit=-7 --ratio 1 --name=a=b "
             "--peer x:1 --peer y,z --policy hot",
             false, NULL);

    (void)state;
    check_ok(&run);
    assert_false(run.conf.stream);
    assert_true(run.conf.quiet);
    assert_int_equal(run.conf.port, 81);
    assert_int_equal(run.conf.any, -7);
    assert_true(run.conf.ratio == 1);
    assert_string_equal(run.conf.name, "a=b");
    assert_int_equal(run.conf.peers.n, 2);
    assert_string_equal(run.conf.peers.items[0], "x:1");
    assert_string_equal(run.conf.peers.items[1], "y,z"); /* a flag is one item, not split */
    assert_int_equal(run.conf.policy, 2);
    ps_buf_fini(&run.err);
}

static void flag_beats_environment_beats_file_beats_default(void **state)
{
    struct run run;

    (void)state;
    run = load_file("port = 1001\nname = file\nmax-queue = 5\npeer = a,b", "");
    check_ok(&run);
    assert_int_equal(run.conf.port, 1001);
    assert_int_equal(run.conf.peers.n, 2);
    ps_buf_fini(&run.err);
    setenv("PENSTOCK_ROUTER_PORT", "1002", 1);
    setenv("PENSTOCK_ROUTER_MAX_QUEUE", "6", 1);
    setenv("PENSTOCK_ROUTER_PEER", "c\\,d,e", 1);
    run = load_file("port = 1001\nname = file\nmax-queue = 5\npeer = a,b", "");
    check_ok(&run);
    assert_int_equal(run.conf.port, 1002);
    assert_int_equal(run.conf.any, 6);
    assert_string_equal(run.conf.name, "file");
    assert_int_equal(run.conf.peers.n, 2); /* replaced, not extended */
    assert_string_equal(run.conf.peers.items[0], "c,d");
    ps_buf_fini(&run.err);
    run = load_file("port = 1001", "--port 1003 --peer f");
    check_ok(&run);
    assert_int_equal(run.conf.port, 1003);
    assert_int_equal(run.conf.peers.n, 1);
    assert_string_equal(run.conf.peers.items[0], "f");
    ps_buf_fini(&run.err);
    unsetenv("PENSTOCK_ROUTER_PORT");
    unsetenv("PENSTOCK_ROUTER_MAX_QUEUE");
    unsetenv("PENSTOCK_ROUTER_PEER");
}

static void a_bad_value_names_option_source_and_range(void **state)
{
    struct ps_buf want = PS_BUF_INIT;

    (void)state;
    check_bad(load("--port 70000", false, NULL),
              "option port: \"70000\" (from --port) is not an integer from 1 to 65535");
    check_bad(load("--port=8080x", false, NULL),
              "option port: \"8080x\" (from --port) is not an integer from 1 to 65535");
    check_bad(load("--queue-limit 99999999999999999999", false, NULL),
              "option max-queue: \"99999999999999999999\" (from --queue-limit) is not an integer "
              "(bytes)");
    check_bad(load("--ratio nan", false, NULL),
              "option ratio: \"nan\" (from --ratio) is not a number from 0 to 1");
    check_bad(load("--policy tepid", false, NULL),
              "option policy: \"tepid\" (from --policy) is not one of cold|warm|hot");
    check_bad(load("--stream=maybe", false, NULL),
              "option stream: \"maybe\" (from --stream) is not true or false");
    setenv("PENSTOCK_ROUTER_PORT", "", 1);
    check_bad(load("", false, NULL),
              "option port: \"\" (from PENSTOCK_ROUTER_PORT) is not an integer from 1 to 65535");
    unsetenv("PENSTOCK_ROUTER_PORT");
    ps_buf_addf(&want, "option port: \"0\" (from %s:3) is not an integer from 1 to 65535",
                file_path);
    check_bad(load_file("# comment\n\nport = 0\n", ""), want.data);
    ps_buf_fini(&want);
}

static void a_bad_file_names_its_line(void **state)
{
    static const struct {
        const char *text, *message;
    } c[] = {
        {"port 1", ":1: expected \"key = value\""},
        {"\nprot = 1", ":2: unknown key \"prot\""},
        {"port=1\nport=2", ":2: option port is set twice"},
        {"name = \"x", ":1: option name: the quotes do not match"},
        {"name = \"x\" y", ":1: option name: the quotes do not match"},
    };

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(c); i++) {
        struct ps_buf want = PS_BUF_INIT;

        ps_buf_addf(&want, "%s%s", file_path, c[i].message);
        check_bad(load_file(c[i].text, ""), want.data);
        ps_buf_fini(&want);
    }
    check_bad(load("--config /nonexistent/x", false, NULL),
              "cannot open configuration file /nonexistent/x: No such file or directory");
}

static void what_is_no_option_is_refused_or_handed_on(void **state)
{
    struct run run;

    (void)state;
    check_bad(load("--nope", false, NULL), "unknown option --nope (see --help)");
    check_bad(load("-x", false, NULL), "unknown option -x (see --help)");
    check_bad(load("--no-port", false, NULL), "unknown option --no-port (see --help)");
    check_bad(load("--port", false, NULL), "option --port needs a value");
    check_bad(load("what", false, NULL), "unexpected argument \"what\" (see --help)");
    run = load("one --port 5 - -- --two", true, NULL);
    check_ok(&run);
    assert_int_equal(run.conf.port, 5);
    assert_int_equal(run.rest.n, 3);
    assert_string_equal(run.rest.items[0], "one");
    assert_string_equal(run.rest.items[1], "-");
    assert_string_equal(run.rest.items[2], "--two");
    ps_buf_fini(&run.err);
}

static bool port_is_even(const void *conf, struct ps_buf *err)
{
    const struct conf *c = conf;

    if (c->port % 2 != 0)
        ps_buf_add_str(err, "port must be even");
    return c->port % 2 == 0;
}

static void the_program_checks_last(void **state)
{
    struct run run = load("--port 8002", false, port_is_even);

    (void)state;
    check_ok(&run);
    ps_buf_fini(&run.err);
    check_bad(load("--port 8001", false, port_is_even), "port must be even");
    check_bad(load("--port 8001 --check-config", false, port_is_even), "port must be even");
}

/* Runs load with stdout in a file and returns what was printed; expects E_DONE. */
static char *printed(const char *args)
{
    static char text[16384];
    FILE *f = tmpfile();
    struct run run;
    int old;
    size_t n;

    assert_non_null(f);
    fflush(stdout);
    old = dup(STDOUT_FILENO);
    dup2(fileno(f), STDOUT_FILENO);
    run = load(args, false, NULL);
    fflush(stdout);
    dup2(old, STDOUT_FILENO);
    close(old);
    rewind(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    if (run.r != PS_CONF_E_DONE)
        fail_msg("%s: case %d: %s", args, run.r, run.err.data);
    ps_buf_fini(&run.err);
    return text;
}

static void the_common_questions_are_answered(void **state)
{
    char want[64];

    (void)state;
    snprintf(want, sizeof(want), "penstock-router %s (%s)\n", ps_version(), ps_commit());
    assert_string_equal(printed("--version"), want);
    assert_string_equal(printed("--check-config --port 5"), "configuration ok\n");
    assert_non_null(strstr(printed("--help --broken"), "Usage: penstock-router [options]\n"));
    assert_non_null(strstr(printed("-h"),
                           "  --port N\n      Port to listen on.\n      Range 1 to 65535. "
                           "Default 8000. Environment PENSTOCK_ROUTER_PORT.\n"));
    assert_non_null(strstr(printed("-h"), "  --[no-]stream\n"));
    assert_non_null(strstr(printed("-h"), "  --policy cold|warm|hot\n"));
    assert_non_null(strstr(printed("-h"), "--max-queue N, --queue-limit\n"));
    assert_int_equal(strlen(ps_version()), 5);
}

static void a_dump_loads_back_equal(void **state)
{
    static const char args[] =
        "--no-stream --quiet --port 9 --max-queue -3 --ratio 0.1 --policy cold "
        "--name=~\"q\\~x\nline~ --peer a,b --peer c\\d --peer ~e --dump-config";
    char first[4096], again[64];

    (void)state;
    snprintf(first, sizeof(first), "%s", printed(args));
    assert_non_null(strstr(first, "stream = false\nquiet = true\nport = 9\nmax-queue = -3\n"
                                  "ratio = 0.1\nname = \" \\\"q\\\\ x\\nline \"\n"));
    write_file(first);
    snprintf(again, sizeof(again), "--dump-config --config %s", file_path);
    assert_string_equal(printed(again), first);
    {
        struct run run = load_file(first, "");

        check_ok(&run);
        assert_string_equal(run.conf.name, " \"q\\ x\nline ");
        assert_int_equal(run.conf.peers.n, 3);
        assert_string_equal(run.conf.peers.items[0], "a,b");
        assert_string_equal(run.conf.peers.items[1], "c\\d");
        assert_string_equal(run.conf.peers.items[2], " e");
        ps_buf_fini(&run.err);
    }
}

static void the_default_dump_loads_back_equal(void **state)
{
    char first[4096], again[64];

    (void)state;
    snprintf(first, sizeof(first), "%s", printed("--dump-config"));
    write_file(first);
    snprintf(again, sizeof(again), "--dump-config --config %s", file_path);
    assert_string_equal(printed(again), first);
}

static void markdown_has_a_row_for_each_option(void **state)
{
    struct ps_buf out = PS_BUF_INIT;

    (void)state;
    ps_conf_write_markdown(&table, &out);
    assert_non_null(strstr(out.data, "| `--port` | `PENSTOCK_ROUTER_PORT` | integer | `8000` | "
                                     "1 to 65535 | Port to listen on. |\n"));
    assert_non_null(strstr(out.data, "| `--policy` | `PENSTOCK_ROUTER_POLICY` | choice | `warm` | "
                                     "cold\\|warm\\|hot | How. |\n"));
    ps_buf_fini(&out);
}

static int make_file(void **state)
{
    int fd = mkstemp(file_path);

    (void)state;
    ps_arena_init(&arg_arena, 0);
    ps_close_fd(&fd);
    return 0;
}

static int drop_file(void **state)
{
    (void)state;
    ps_arena_fini(&arg_arena);
    return unlink(file_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_member),
        cmocka_unit_test(each_type_has_its_flag_forms),
        cmocka_unit_test(flag_beats_environment_beats_file_beats_default),
        cmocka_unit_test(a_bad_value_names_option_source_and_range),
        cmocka_unit_test(a_bad_file_names_its_line),
        cmocka_unit_test(what_is_no_option_is_refused_or_handed_on),
        cmocka_unit_test(the_program_checks_last),
        cmocka_unit_test(the_common_questions_are_answered),
        cmocka_unit_test(a_dump_loads_back_equal),
        cmocka_unit_test(the_default_dump_loads_back_equal),
        cmocka_unit_test(markdown_has_a_row_for_each_option),
    };

    return cmocka_run_group_tests(tests, make_file, drop_file);
}
