#include "common/conf.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/arena.h"
#include "common/json/json.h"
#include "common/version.h"

enum {
    FILE_BYTES_MAX = 1 << 20,
    LIST_ITEMS_MAX = 4096,
};

enum action { ACT_RUN, ACT_HELP, ACT_VERSION, ACT_CHECK, ACT_DUMP };

/* Where a value came from, for messages: "--port", "PENSTOCK_ROUTER_PORT", "x.conf:3". */
struct load {
    const struct ps_conf_table *t;
    char *conf;
    struct ps_buf *err;
    enum action action;
    const char *file;                /* --config */
    const char **flag_values;        /* per option: text of the flag, NULL when it was not given */
    const char **flag_names;         /* per option: as the user wrote it */
    struct ps_conf_list *flag_lists; /* per option: LIST flags, which may be repeated */
};

/* Strings and lists that the program's struct points to: they live until exit. */
static struct ps_arena text_arena;

static void *keep(size_t n_bytes)
{
    if (text_arena.chunk_bytes == 0)
        ps_arena_init(&text_arena, 0);
    return ps_arena_alloc(&text_arena, n_bytes);
}

static const char *keep_str(const char *s, size_t n)
{
    char *p = keep(n + 1);

    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

const char *ps_version(void)
{
    return PS_VERSION;
}

const char *ps_commit(void)
{
    return PS_COMMIT;
}

/* ---- one value ---- */

static void add_range(struct ps_buf *out, const struct ps_conf_opt *o)
{
    if (o->type == PS_CONF_INT)
        ps_buf_addf(out, "%.0f to %.0f", o->min, o->max);
    else
        ps_buf_addf(out, "%.15g to %.15g", o->min, o->max);
}

static bool has_range(const struct ps_conf_opt *o)
{
    return (o->type == PS_CONF_INT || o->type == PS_CONF_FLOAT) && !(o->min == 0 && o->max == 0);
}

static bool in_range(const struct ps_conf_opt *o, double v)
{
    return !has_range(o) || (v >= o->min && v <= o->max);
}

static bool parse_bool(const char *s, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

    for (size_t i = 0; i < PS_ARRAY_LEN(words); i++) {
        if (strcmp(s, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static bool parse_int(const struct ps_conf_opt *o, const char *s, int64_t *out)
{
    char *end;
    long long v;

    if (*s != '-' && !isdigit((unsigned char)*s)) /* strtoll would skip spaces and take a plus */
        return false;
    errno = 0;
    v = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || errno == ERANGE || !in_range(o, (double)v))
        return false;
    *out = v;
    return true;
}

static bool parse_float(const struct ps_conf_opt *o, const char *s, double *out)
{
    char *end;
    double v;

    if (*s != '-' && *s != '.' && !isdigit((unsigned char)*s))
        return false;
    v = strtod(s, &end);
    if (end == s || *end != '\0' || !isfinite(v) || !in_range(o, v))
        return false;
    *out = v;
    return true;
}

static bool parse_enum(const struct ps_conf_opt *o, const char *s, int32_t *out)
{
    size_t len = strlen(s);
    int32_t i = 0;

    for (const char *p = o->choices;; i++) {
        size_t n = strcspn(p, "|");

        if (n == len && memcmp(p, s, n) == 0) {
            *out = i;
            return true;
        }
        if (p[n] == '\0')
            return false;
        p += n + 1;
    }
}

static void list_push(struct ps_conf_list *l, const char *item)
{
    const char **items;

    /* Grown at powers of two; the arena keeps the old arrays, which together are as large again. */
    if ((l->n & (l->n - 1)) == 0) {
        items = keep((l->n > 0 ? l->n * (size_t)2 : 1) * sizeof(*items));
        if (l->n > 0)
            memcpy(items, l->items, l->n * sizeof(*items));
        l->items = items;
    }
    l->items[l->n++] = item;
}

/* Splits at commas; "\," and "\\" stand for the plain characters. Empty items are left out. */
static bool parse_list(const char *s, struct ps_conf_list *out)
{
    struct ps_conf_list l = {NULL, 0};
    struct ps_buf item = PS_BUF_INIT;
    bool ok = true;

    for (;; s++) {
        if (*s == '\\' && (s[1] == ',' || s[1] == '\\')) {
            ps_buf_add_byte(&item, *++s);
        } else if (*s != ',' && *s != '\0') {
            ps_buf_add_byte(&item, *s);
        } else {
            if (item.len > 0)
                list_push(&l, keep_str(item.data, item.len));
            ps_buf_clear(&item);
            ok = l.n <= LIST_ITEMS_MAX;
            if (*s == '\0' || !ok)
                break;
        }
    }
    ps_buf_fini(&item);
    *out = l;
    return ok;
}

static void say_bad_value(struct load *ld, const struct ps_conf_opt *o, const char *text,
                          const char *source)
{
    struct ps_buf *e = ld->err;

    ps_buf_addf(e, "option %s: \"%s\" (from %s) is not ", o->name, text, source);
    switch (o->type) {
    case PS_CONF_BOOL:
        ps_buf_add_str(e, "true or false");
        break;
    case PS_CONF_INT:
        ps_buf_add_str(e, "an integer");
        break;
    case PS_CONF_FLOAT:
        ps_buf_add_str(e, "a number");
        break;
    case PS_CONF_ENUM:
        ps_buf_addf(e, "one of %s", o->choices);
        break;
    case PS_CONF_LIST:
        ps_buf_addf(e, "a list of at most %d items", LIST_ITEMS_MAX);
        break;
    case PS_CONF_STR:
        ps_buf_add_str(e, "a string");
        break;
    }
    if (has_range(o)) {
        ps_buf_add_str(e, " from ");
        add_range(e, o);
    }
    if (o->unit != NULL)
        ps_buf_addf(e, " (%s)", o->unit);
}

static bool set(struct load *ld, const struct ps_conf_opt *o, const char *text, const char *source)
{
    char *to = ld->conf + o->offset;
    bool ok = false;

    switch (o->type) {
    case PS_CONF_BOOL:
        ok = parse_bool(text, (bool *)(void *)to);
        break;
    case PS_CONF_INT:
        ok = parse_int(o, text, (int64_t *)(void *)to);
        break;
    case PS_CONF_FLOAT:
        ok = parse_float(o, text, (double *)(void *)to);
        break;
    case PS_CONF_ENUM:
        ok = parse_enum(o, text, (int32_t *)(void *)to);
        break;
    case PS_CONF_LIST:
        ok = parse_list(text, (struct ps_conf_list *)(void *)to);
        break;
    case PS_CONF_STR:
        *(const char **)(void *)to = keep_str(text, strlen(text));
        ok = true;
        break;
    }
    if (!ok)
        say_bad_value(ld, o, text, source);
    return ok;
}

static const char *def_of(const struct ps_conf_opt *o)
{
    if (o->def != NULL)
        return o->def;
    return o->type == PS_CONF_BOOL ? "false" : "";
}

/* ---- flags ---- */

/* The option whose name (or alias) is the n characters at s. */
static const struct ps_conf_opt *find_flag(const struct ps_conf_table *t, const char *s, size_t n)
{
    for (uint32_t i = 0; i < t->n_opts; i++) {
        const struct ps_conf_opt *o = &t->opts[i];

        if ((strlen(o->name) == n && memcmp(o->name, s, n) == 0) ||
            (o->alias != NULL && strlen(o->alias) == n && memcmp(o->alias, s, n) == 0))
            return o;
    }
    return NULL;
}

/* --help and the like. Returns false when name is none of them. */
static bool take_action(struct load *ld, const char *name)
{
    static const struct {
        const char *name;
        enum action action;
    } actions[] = {
        {"help", ACT_HELP},
        {"version", ACT_VERSION},
        {"check-config", ACT_CHECK},
        {"dump-config", ACT_DUMP},
    };

    for (size_t i = 0; i < PS_ARRAY_LEN(actions); i++) {
        if (strcmp(name, actions[i].name) == 0) {
            ld->action = actions[i].action;
            return true;
        }
    }
    return false;
}

static void take_flag(struct load *ld, const struct ps_conf_opt *o, const char *name,
                      const char *value)
{
    size_t i = (size_t)(o - ld->t->opts);

    if (o->type == PS_CONF_LIST)
        list_push(&ld->flag_lists[i], value);
    ld->flag_values[i] = value;
    ld->flag_names[i] = name;
}

/* One "--name", "--name=value" or "--name value"; *i is the last argument used. */
static bool parse_flag(struct load *ld, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    const char *eq = strchr(name, '=');
    size_t n = eq != NULL ? (size_t)(eq - name) : strlen(name);
    bool is_config = n == strlen("config") && memcmp(name, "config", n) == 0;
    const struct ps_conf_opt *o = find_flag(ld->t, name, n);
    const char *value = eq != NULL ? eq + 1 : NULL;

    if (o == NULL && eq == NULL && take_action(ld, name))
        return true;
    if (o == NULL && eq == NULL && strncmp(name, "no-", 3) == 0) {
        o = find_flag(ld->t, name + 3, n - 3);
        if (o != NULL && o->type == PS_CONF_BOOL) {
            take_flag(ld, o, argv[*i], "false");
            return true;
        }
        o = NULL;
    }
    if (o == NULL && !is_config) {
        ps_buf_addf(ld->err, "unknown option --%.*s (see --help)", (int)ps_min_size(n, 64), name);
        return false;
    }
    if (o != NULL && o->type == PS_CONF_BOOL && value == NULL)
        value = "true";
    if (value == NULL) {
        if (*i + 1 >= argc) {
            ps_buf_addf(ld->err, "option --%s needs a value", name);
            return false;
        }
        value = argv[++*i];
    }
    if (is_config)
        ld->file = value;
    else
        take_flag(ld, o, keep_str(name - 2, n + 2), value);
    return true;
}

static bool parse_args(struct load *ld, int argc, char **argv, struct ps_conf_list *rest)
{
    bool options = true;

    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && strcmp(argv[i], "-h") == 0) {
            ld->action = ACT_HELP;
        } else if (options && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (argv[i][1] != '-') {
                ps_buf_addf(ld->err, "unknown option %.64s (see --help)", argv[i]);
                return false;
            }
            if (!parse_flag(ld, argc, argv, &i))
                return false;
        } else if (rest != NULL) {
            list_push(rest, argv[i]);
        } else {
            ps_buf_addf(ld->err, "unexpected argument \"%.64s\" (see --help)", argv[i]);
            return false;
        }
        if (ld->action == ACT_HELP || ld->action == ACT_VERSION)
            return true; /* help must work in spite of a mistake further on */
    }
    return true;
}

/* ---- file ---- */

static bool read_file(struct load *ld, struct ps_buf *out)
{
    FILE *f = fopen(ld->file, "re");
    char chunk[4096];
    size_t n;
    bool ok;

    if (f == NULL) {
        ps_buf_addf(ld->err, "cannot open configuration file %s: %s", ld->file, strerror(errno));
        return false;
    }
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0 && out->len <= FILE_BYTES_MAX)
        ps_buf_add(out, chunk, n);
    ok = ferror(f) == 0 && out->len <= FILE_BYTES_MAX && memchr(out->data, '\0', out->len) == NULL;
    if (!ok)
        ps_buf_addf(ld->err,
                    "configuration file %s is unreadable, larger than %d bytes or not text",
                    ld->file, FILE_BYTES_MAX);
    fclose(f);
    return ok;
}

/* In place. A value in double quotes keeps its spaces and knows \" \\ \n \r \t. False: unbalanced. */
static bool unquote(char *s)
{
    char *to = s;

    if (*s != '"')
        return true;
    for (s++; *s != '"'; s++) {
        if (*s == '\0')
            return false;
        if (*s == '\\') {
            s++;
            if (*s == '\0')
                return false;
            *to++ = *s == 'n' ? '\n' : *s == 'r' ? '\r' : *s == 't' ? '\t' : *s;
        } else {
            *to++ = *s;
        }
    }
    if (s[1] != '\0')
        return false;
    *to = '\0';
    return true;
}

static char *trim(char *s)
{
    size_t n;

    while (isspace((unsigned char)*s))
        s++;
    for (n = strlen(s); n > 0 && isspace((unsigned char)s[n - 1]); n--)
        s[n - 1] = '\0';
    return s;
}

static bool parse_line(struct load *ld, char *line, uint32_t line_no, uint8_t *seen)
{
    char source[256];
    const struct ps_conf_opt *o;
    char *eq, *value;

    line = trim(line);
    if (*line == '\0' || *line == '#')
        return true;
    snprintf(source, sizeof(source), "%.200s:%u", ld->file, line_no);
    eq = strchr(line, '=');
    if (eq == NULL) {
        ps_buf_addf(ld->err, "%s: expected \"key = value\"", source);
        return false;
    }
    *eq = '\0';
    line = trim(line);
    value = trim(eq + 1);
    o = find_flag(ld->t, line, strlen(line));
    if (o == NULL) {
        ps_buf_addf(ld->err, "%s: unknown key \"%.64s\"", source, line);
        return false;
    }
    if (seen[o - ld->t->opts]++ != 0) {
        ps_buf_addf(ld->err, "%s: option %s is set twice", source, o->name);
        return false;
    }
    if (!unquote(value)) {
        ps_buf_addf(ld->err, "%s: option %s: the quotes do not match", source, o->name);
        return false;
    }
    return set(ld, o, value, source);
}

static bool apply_file(struct load *ld)
{
    struct ps_buf text = PS_BUF_INIT;
    uint8_t *seen = ps_calloc(ld->t->n_opts, 1);
    uint32_t line_no = 1;
    bool ok;

    ps_buf_reserve(&text, 1);
    ok = read_file(ld, &text);
    for (char *line = text.data; ok && line != NULL; line_no++) {
        char *next = strchr(line, '\n');

        if (next != NULL)
            *next++ = '\0';
        ok = parse_line(ld, line, line_no, seen);
        line = next;
    }
    ps_free(seen);
    ps_buf_fini(&text);
    return ok;
}

/* ---- environment ---- */

/* PENSTOCK_ROUTER_MAX_QUEUE for option max-queue of the program "router". */
static void env_name(const struct ps_conf_table *t, const struct ps_conf_opt *o, struct ps_buf *out)
{
    ps_buf_clear(out);
    ps_buf_addf(out, "PENSTOCK_%s_%s", t->prog, o->name);
    for (size_t i = 0; i < out->len; i++)
        out->data[i] = out->data[i] == '-' ? '_' : (char)toupper((unsigned char)out->data[i]);
}

static bool apply_env(struct load *ld)
{
    struct ps_buf name = PS_BUF_INIT;
    bool ok = true;

    for (uint32_t i = 0; ok && i < ld->t->n_opts; i++) {
        const char *value;

        env_name(ld->t, &ld->t->opts[i], &name);
        value = getenv(name.data);
        if (value != NULL)
            ok = set(ld, &ld->t->opts[i], value, name.data);
    }
    ps_buf_fini(&name);
    return ok;
}

static bool apply_flags(struct load *ld)
{
    for (uint32_t i = 0; i < ld->t->n_opts; i++) {
        const struct ps_conf_opt *o = &ld->t->opts[i];

        if (ld->flag_values[i] == NULL)
            continue;
        if (o->type == PS_CONF_LIST) {
            if (ld->flag_lists[i].n > LIST_ITEMS_MAX) {
                say_bad_value(ld, o, "...", ld->flag_names[i]);
                return false;
            }
            *(struct ps_conf_list *)(void *)(ld->conf + o->offset) = ld->flag_lists[i];
        } else if (!set(ld, o, ld->flag_values[i], ld->flag_names[i])) {
            return false;
        }
    }
    return true;
}

/* ---- text ---- */

static void add_quoted(struct ps_buf *out, const char *s)
{
    ps_buf_add_byte(out, '"');
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            ps_buf_addf(out, "\\%c", *s);
        else if (*s == '\n' || *s == '\r' || *s == '\t')
            ps_buf_addf(out, "\\%c", *s == '\n' ? 'n' : *s == '\r' ? 'r' : 't');
        else
            ps_buf_add_byte(out, *s);
    }
    ps_buf_add_byte(out, '"');
}

/* A string as parse_line reads it back. */
static void add_value_str(struct ps_buf *out, const char *s)
{
    size_t n = strlen(s);

    if (n > 0 && (*s == '"' || isspace((unsigned char)*s) || isspace((unsigned char)s[n - 1]) ||
                  strpbrk(s, "\n\r") != NULL))
        add_quoted(out, s);
    else
        ps_buf_add_str(out, s);
}

static void add_list(struct ps_buf *out, const struct ps_conf_list *l)
{
    struct ps_buf text = PS_BUF_INIT;

    ps_buf_reserve(&text, 1);
    for (uint32_t i = 0; i < l->n; i++) {
        if (i > 0)
            ps_buf_add_byte(&text, ',');
        for (const char *p = l->items[i]; *p != '\0'; p++)
            ps_buf_addf(&text, "%s%c", *p == ',' || *p == '\\' ? "\\" : "", *p);
    }
    add_value_str(out, text.data);
    ps_buf_fini(&text);
}

static void add_choice(struct ps_buf *out, const char *choices, int32_t i)
{
    for (; i > 0; i--)
        choices = strchr(choices, '|') + 1;
    ps_buf_add(out, choices, strcspn(choices, "|"));
}

static void write_dump(const struct load *ld, struct ps_buf *out)
{
    for (uint32_t i = 0; i < ld->t->n_opts; i++) {
        const struct ps_conf_opt *o = &ld->t->opts[i];
        const void *at = ld->conf + o->offset;

        ps_buf_addf(out, "%s = ", o->name);
        switch (o->type) {
        case PS_CONF_BOOL:
            ps_buf_add_str(out, *(const bool *)at ? "true" : "false");
            break;
        case PS_CONF_INT:
            ps_buf_addf(out, "%lld", (long long)*(const int64_t *)at);
            break;
        case PS_CONF_FLOAT:
            ps_json_add_double(out, *(const double *)at);
            break;
        case PS_CONF_STR:
            add_value_str(out, *(const char *const *)at);
            break;
        case PS_CONF_LIST:
            add_list(out, at);
            break;
        case PS_CONF_ENUM:
            add_choice(out, o->choices, *(const int32_t *)at);
            break;
        }
        ps_buf_add_byte(out, '\n');
    }
}

static const char *placeholder(const struct ps_conf_opt *o)
{
    static const char *const names[] = {"", " N", " X", " TEXT", " ITEM", ""};

    return names[o->type];
}

void ps_conf_write_help(const struct ps_conf_table *t, struct ps_buf *out)
{
    struct ps_buf env = PS_BUF_INIT;

    ps_buf_addf(out, "Usage: %s\n\n%s\n\nOptions:\n", t->usage, t->about);
    for (uint32_t i = 0; i < t->n_opts; i++) {
        const struct ps_conf_opt *o = &t->opts[i];

        ps_buf_addf(out, "  --%s%s", o->type == PS_CONF_BOOL ? "[no-]" : "", o->name);
        if (o->type == PS_CONF_ENUM)
            ps_buf_addf(out, " %s", o->choices);
        ps_buf_add_str(out, placeholder(o));
        if (o->alias != NULL)
            ps_buf_addf(out, ", --%s", o->alias);
        ps_buf_addf(out, "\n      %s\n      ", o->help);
        if (o->type == PS_CONF_LIST)
            ps_buf_add_str(out, "May be repeated. ");
        if (has_range(o)) {
            ps_buf_add_str(out, "Range ");
            add_range(out, o);
            ps_buf_add_str(out, ". ");
        }
        if (o->unit != NULL)
            ps_buf_addf(out, "Unit %s. ", o->unit);
        if (def_of(o)[0] != '\0')
            ps_buf_addf(out, "Default %s. ", def_of(o));
        env_name(t, o, &env);
        ps_buf_addf(out, "Environment %s.\n", env.data);
    }
    ps_buf_add_str(out,
                   "  --config FILE\n      Read options from FILE, lines \"key = value\". Flags go "
                   "before the environment,\n      the environment before the file.\n"
                   "  --check-config\n      Check the configuration and exit.\n"
                   "  --dump-config\n      Print the configuration as a file and exit.\n"
                   "  --version\n      Print the version and exit.\n"
                   "  -h, --help\n      Print this text and exit.\n");
    ps_buf_fini(&env);
}

static void add_cell(struct ps_buf *out, const char *s)
{
    for (; *s != '\0'; s++)
        ps_buf_addf(out, "%s%c", *s == '|' ? "\\" : "", *s);
    ps_buf_add_str(out, " | ");
}

void ps_conf_write_markdown(const struct ps_conf_table *t, struct ps_buf *out)
{
    static const char *const types[] = {"bool", "integer", "number", "string", "list", "choice"};
    struct ps_buf cell = PS_BUF_INIT;

    ps_buf_addf(out, "## %s\n\n%s\n\n", t->usage, t->about);
    ps_buf_add_str(out, "| flag | environment | type | default | range | meaning |\n"
                        "|---|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < t->n_opts; i++) {
        const struct ps_conf_opt *o = &t->opts[i];

        ps_buf_addf(out, "| `--%s`", o->name);
        if (o->alias != NULL)
            ps_buf_addf(out, ", `--%s`", o->alias);
        env_name(t, o, &cell);
        ps_buf_addf(out, " | `%s` | %s | ", cell.data, types[o->type]);
        ps_buf_clear(&cell);
        if (def_of(o)[0] != '\0')
            ps_buf_addf(&cell, "`%s`", def_of(o));
        add_cell(out, cell.len > 0 ? cell.data : "");
        ps_buf_clear(&cell);
        if (o->type == PS_CONF_ENUM)
            ps_buf_add_str(&cell, o->choices);
        else if (has_range(o))
            add_range(&cell, o);
        if (o->unit != NULL)
            ps_buf_addf(&cell, "%s%s", cell.len > 0 ? " " : "", o->unit);
        add_cell(out, cell.len > 0 ? cell.data : "");
        add_cell(out, o->help);
        out->data[out->len - 1] = '\n';
    }
    ps_buf_fini(&cell);
}

/* ---- the whole ---- */

static void print(struct ps_buf *b)
{
    fwrite(b->data, 1, b->len, stdout);
    fflush(stdout);
    ps_buf_fini(b);
}

static void answer(const struct load *ld)
{
    struct ps_buf out = PS_BUF_INIT;

    if (ld->action == ACT_HELP)
        ps_conf_write_help(ld->t, &out);
    else if (ld->action == ACT_VERSION)
        ps_buf_addf(&out, "%.*s %s (%s)\n", (int)strcspn(ld->t->usage, " "), ld->t->usage,
                    ps_version(), ps_commit());
    else if (ld->action == ACT_DUMP)
        write_dump(ld, &out);
    else
        ps_buf_add_str(&out, "configuration ok\n");
    print(&out);
}

static void apply_defaults(struct load *ld)
{
    for (uint32_t i = 0; i < ld->t->n_opts; i++)
        PS_ASSERT(set(ld, &ld->t->opts[i], def_of(&ld->t->opts[i]), "the default"));
}

static int run(struct load *ld, int argc, char **argv, struct ps_conf_list *rest,
               bool (*check)(const void *conf, struct ps_buf *err))
{
    apply_defaults(ld);
    if (!parse_args(ld, argc, argv, rest))
        return PS_CONF_E_BAD;
    if (ld->action != ACT_HELP && ld->action != ACT_VERSION) {
        if ((ld->file != NULL && !apply_file(ld)) || !apply_env(ld) || !apply_flags(ld))
            return PS_CONF_E_BAD;
        if (check != NULL && !check(ld->conf, ld->err))
            return PS_CONF_E_BAD;
    }
    if (ld->action == ACT_RUN)
        return PS_CONF_OK;
    answer(ld);
    return PS_CONF_E_DONE;
}

int ps_conf_load(const struct ps_conf_table *t, int argc, char **argv, void *conf,
                 struct ps_conf_list *rest, bool (*check)(const void *conf, struct ps_buf *err),
                 struct ps_buf *err)
{
    struct load ld = {.t = t, .conf = conf, .err = err};
    int r;

    PS_ASSERT(t->prog != NULL && t->usage != NULL && t->about != NULL);
    ld.flag_values = ps_calloc(t->n_opts, sizeof(*ld.flag_values));
    ld.flag_names = ps_calloc(t->n_opts, sizeof(*ld.flag_names));
    ld.flag_lists = ps_calloc(t->n_opts, sizeof(*ld.flag_lists));
    if (rest != NULL)
        *rest = (struct ps_conf_list){NULL, 0};
    r = run(&ld, argc, argv, rest, check);
    ps_free(ld.flag_values);
    ps_free(ld.flag_names);
    ps_free(ld.flag_lists);
    return r;
}
