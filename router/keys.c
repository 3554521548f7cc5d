#include "router/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/log.h"

enum { MAX_KEYS = 65536, MAX_FILE_BYTES = 16 << 20, MAX_KEY_BYTES = 512 };

struct entry {
    uint8_t digest[PS_SHA256_BYTES];
    struct rt_key key;
};

struct key_set { /* immutable once published */
    struct entry *entries;
    uint32_t n, cap;
    uint32_t n_refs; /* under the lock */
};

struct rt_keys {
    const char *file;
    const struct ps_conf_list *from_conf;
    uint8_t secret[32];
    bool configured;
    struct timespec mtime;
    off_t size;
    pthread_mutex_t lock; /* guards `set` and n_refs; held for a few instructions */
    struct key_set *set;
};

static void set_drop(struct key_set *s)
{
    ps_free(s->entries);
    ps_free(s);
}

static bool is_field(const char *p, const char *end, const char *name, const char **out_value)
{
    size_t n = strlen(name);

    if ((size_t)(end - p) < n || memcmp(p, name, n) != 0)
        return false;
    *out_value = p + n;
    return true;
}

static void add_entry(struct key_set *s, const struct entry *e)
{
    if (s->n == s->cap) {
        s->cap = s->cap != 0 ? 2 * s->cap : 16;
        s->entries = ps_realloc(s->entries, s->cap * sizeof(s->entries[0]));
    }
    s->entries[s->n++] = *e;
}

/* key[,name=...][,tenant=...][,admin]; unknown fields are refused, so that a typing error opens nothing. */
static bool add_line(struct rt_keys *k, struct key_set *s, const char *line, size_t len)
{
    const char *end = line + len, *p = line, *stop, *value;
    const char *tenant = line;
    size_t tenant_len;
    uint8_t mac[PS_SHA256_BYTES];
    struct entry e = {0};

    stop = memchr(p, ',', len);
    stop = stop != NULL ? stop : end;
    if (stop == p || stop - p > MAX_KEY_BYTES || s->n == MAX_KEYS)
        return false;
    ps_sha256(p, (size_t)(stop - p), e.digest);
    tenant_len = (size_t)(stop - p); /* by default a tenant is its key */
    while (stop < end) {
        p = stop + 1;
        stop = memchr(p, ',', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        if (is_field(p, stop, "name=", &value)) {
            size_t n = ps_min_size((size_t)(stop - value), sizeof(e.key.name) - 1);

            memcpy(e.key.name, value, n);
            e.key.name[n] = '\0';
        } else if (is_field(p, stop, "tenant=", &value)) {
            tenant = value;
            tenant_len = (size_t)(stop - value);
        } else if (stop - p == 5 && memcmp(p, "admin", 5) == 0) {
            e.key.admin = true;
        } else {
            return false;
        }
    }
    ps_hmac_sha256(k->secret, sizeof(k->secret), tenant, tenant_len, mac);
    memcpy(&e.key.tenant_salt, mac, sizeof(e.key.tenant_salt));
    add_entry(s, &e);
    return true;
}

static int read_file(struct rt_keys *k, struct ps_buf *out, struct stat *st, struct ps_buf *err)
{
    PS_AUTO(ps_close_fd) int fd = open(k->file, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0 || fstat(fd, st) < 0 || !S_ISREG(st->st_mode)) {
        ps_buf_addf(err, "API key file cannot be read (%s)", strerror(errno));
        return RT_KEYS_E_FILE;
    }
    if ((st->st_mode & S_IROTH) != 0) {
        ps_buf_addf(err, "API key file is readable by everybody; chmod o-r it");
        return RT_KEYS_E_FILE;
    }
    if (st->st_size > MAX_FILE_BYTES) {
        ps_buf_addf(err, "API key file is larger than 16 MiB");
        return RT_KEYS_E_FILE;
    }
    ps_buf_reserve(out, (size_t)st->st_size + 1);
    while ((n = read(fd, out->data + out->len, (size_t)st->st_size - out->len)) > 0)
        (void)ps_buf_grow(out, (size_t)n);
    return RT_KEYS_LOADED;
}

static int parse_file(struct rt_keys *k, struct key_set *s, const struct ps_buf *text,
                      struct ps_buf *err)
{
    const char *p = text->data, *end = p + text->len;
    uint32_t line = 0;

    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((nl != NULL ? nl : end) - p);

        line++;
        while (len > 0 && (p[len - 1] == '\r' || p[len - 1] == ' ' || p[len - 1] == '\t'))
            len--;
        if (len > 0 && p[0] != '#' && !add_line(k, s, p, len)) {
            ps_buf_addf(err, "API key file: line %u is not key[,name=..][,tenant=..][,admin]",
                        line);
            return RT_KEYS_E_FILE;
        }
        p = nl != NULL ? nl + 1 : end;
    }
    return RT_KEYS_LOADED;
}

static int load(struct rt_keys *k, struct ps_buf *err)
{
    struct key_set *s = ps_calloc(1, sizeof(*s)), *old;
    struct ps_buf text = PS_BUF_INIT;
    struct stat st = {0};
    int r = RT_KEYS_LOADED;
    uint32_t i;

    for (i = 0; i < k->from_conf->n && r == RT_KEYS_LOADED; i++) {
        if (!add_line(k, s, k->from_conf->items[i], strlen(k->from_conf->items[i]))) {
            ps_buf_addf(err, "--api-key: value %u is not key[,name=..][,tenant=..][,admin]", i + 1);
            r = RT_KEYS_E_FILE;
        }
    }
    if (r == RT_KEYS_LOADED && k->file[0] != '\0') {
        r = read_file(k, &text, &st, err);
        if (r == RT_KEYS_LOADED && text.len > 0)
            r = parse_file(k, s, &text, err);
        /* A broken file is not read again until it changes: one complaint, not one every 5 s. */
        k->mtime = st.st_mtim;
        k->size = st.st_size;
    }
    ps_buf_fini(&text);
    if (r != RT_KEYS_LOADED) {
        set_drop(s);
        return r;
    }
    s->n_refs = 1;
    (void)pthread_mutex_lock(&k->lock);
    old = k->set;
    k->set = s;
    if (old != NULL && --old->n_refs > 0)
        old = NULL; /* its last reader frees it */
    (void)pthread_mutex_unlock(&k->lock);
    if (old != NULL)
        set_drop(old);
    return RT_KEYS_LOADED;
}

int rt_keys_create(struct rt_keys **out, const struct ps_conf_list *keys, const char *file,
                   const uint8_t cluster_secret[32], struct ps_buf *err)
{
    struct rt_keys *k = ps_calloc(1, sizeof(*k));
    int r;

    k->file = file;
    k->from_conf = keys;
    k->configured = keys->n > 0 || file[0] != '\0';
    memcpy(k->secret, cluster_secret, sizeof(k->secret));
    (void)pthread_mutex_init(&k->lock, NULL);
    r = load(k, err);
    if (r != RT_KEYS_LOADED) {
        rt_keys_destroy(k);
        return r;
    }
    *out = k;
    return RT_KEYS_LOADED;
}

void rt_keys_destroy(struct rt_keys *k)
{
    if (k == NULL)
        return;
    if (k->set != NULL) {
        PS_ASSERT(k->set->n_refs == 1);
        set_drop(k->set);
    }
    (void)pthread_mutex_destroy(&k->lock);
    ps_free(k);
}

bool rt_keys_configured(const struct rt_keys *k)
{
    return k->configured;
}

void rt_keys_reload(struct rt_keys *k, bool force)
{
    struct ps_buf err = PS_BUF_INIT;
    struct stat st;

    if (k->file[0] == '\0')
        return;
    if (!force && (stat(k->file, &st) < 0 ||
                   (st.st_mtim.tv_sec == k->mtime.tv_sec &&
                    st.st_mtim.tv_nsec == k->mtime.tv_nsec && st.st_size == k->size)))
        return;
    if (load(k, &err) == RT_KEYS_LOADED)
        ps_info("API keys read again", "n=%u", k->set->n);
    else
        ps_error("API keys not changed", "why=%s", PS_Q(err.data));
    ps_buf_fini(&err);
}

static const char *presented(const char *authorization, const char *x_api_key, const char *api_key)
{
    if (authorization != NULL) {
        const char *p = authorization;

        if (strncasecmp(p, "bearer ", 7) != 0)
            return "";
        for (p += 7; *p == ' '; p++) {
        }
        return p;
    }
    return x_api_key != NULL ? x_api_key : api_key != NULL ? api_key : "";
}

int rt_keys_check(struct rt_keys *k, const char *authorization, const char *x_api_key,
                  const char *api_key, struct rt_key *out)
{
    const char *key = presented(authorization, x_api_key, api_key);
    uint8_t digest[PS_SHA256_BYTES];
    struct key_set *s;
    bool last;
    int r = RT_KEYS_BAD;
    uint32_t i;

    if (!k->configured)
        return RT_KEYS_OPEN;
    ps_sha256(key, ps_min_size(strlen(key), MAX_KEY_BYTES + 1), digest);
    (void)pthread_mutex_lock(&k->lock);
    s = k->set;
    s->n_refs++;
    (void)pthread_mutex_unlock(&k->lock);
    for (i = 0; i < s->n; i++) { /* every entry, no early exit: the time tells nothing */
        if (ps_equal_ct(digest, s->entries[i].digest, sizeof(digest))) {
            *out = s->entries[i].key;
            r = RT_KEYS_OK;
        }
    }
    (void)pthread_mutex_lock(&k->lock);
    last = --s->n_refs == 0;
    (void)pthread_mutex_unlock(&k->lock);
    if (last)
        set_drop(s);
    return r;
}
