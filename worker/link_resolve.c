#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "worker/link_internal.h"

enum { PERIOD_S = 3, HOST_MAX = 256, ENDPOINT_MAX = 96 };

struct target {
    char host[HOST_MAX], port[8];
};

struct wk_resolve {
    struct target *targets;
    uint32_t n_targets;
    struct ps_wake *wake;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stop;    /* under lock */
    char **found; /* under lock: the newest list, NULL when it was taken */
    uint32_t n_found;
    bool complete; /* under lock: every name gave an answer */
};

/* "tcp://host:port", the host perhaps in brackets. */
static bool parse(const char *text, struct target *t)
{
    const char *host, *colon;
    size_t n, n_port;

    if (strncmp(text, "tcp://", 6) != 0)
        return false;
    host = text + 6;
    colon = strrchr(host, ':');
    if (colon == NULL)
        return false;
    n = (size_t)(colon - host);
    n_port = strlen(colon + 1);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof(t->host) || n_port == 0 || n_port > 5 ||
        strspn(colon + 1, "0123456789") != n_port)
        return false;
    memcpy(t->host, host, n);
    t->host[n] = '\0';
    memcpy(t->port, colon + 1, n_port + 1);
    return true;
}

static void free_list(char **list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ps_free(list[i]);
    ps_free(list);
}

static void add_unique(char **list, uint32_t *n, const char *endpoint)
{
    for (uint32_t i = 0; i < *n; i++) {
        if (strcmp(list[i], endpoint) == 0)
            return;
    }
    if (*n < WK_DIALS_MAX)
        list[(*n)++] = ps_strdup(endpoint);
}

static bool resolve_one(const struct target *t, char **list, uint32_t *n)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int e = getaddrinfo(t->host, t->port, &hints, &found);

    if (e != 0) {
        ps_debug("router name not resolved", "host=%s error=%s", t->host, gai_strerror(e));
        return false;
    }
    for (struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        char host[64], endpoint[ENDPOINT_MAX];

        if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) !=
            0)
            continue;
        snprintf(endpoint, sizeof(endpoint),
                 a->ai_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", host, t->port);
        add_unique(list, n, endpoint);
    }
    freeaddrinfo(found);
    return true;
}

/* A name that cannot be resolved now makes the list partial: a DNS fault must not hang up. */
static void resolve_all(struct wk_resolve *r)
{
    char **list = ps_calloc(WK_DIALS_MAX, sizeof(*list)), **old;
    uint32_t n = 0, n_old;
    bool all = true;

    for (uint32_t i = 0; i < r->n_targets; i++)
        all &= resolve_one(&r->targets[i], list, &n);
    pthread_mutex_lock(&r->lock);
    old = r->found;
    n_old = r->n_found;
    r->found = list;
    r->n_found = n;
    r->complete = all;
    pthread_mutex_unlock(&r->lock);
    if (old != NULL)
        free_list(old, n_old);
    ps_wake_ring(r->wake);
}

static void *resolve_main(void *ud)
{
    struct wk_resolve *r = ud;
    bool stop = false;

    while (!stop) {
        struct timespec until;

        resolve_all(r);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += PERIOD_S;
        pthread_mutex_lock(&r->lock);
        while (!r->stop && pthread_cond_timedwait(&r->cond, &r->lock, &until) != ETIMEDOUT)
            continue;
        stop = r->stop;
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

int wk_resolve_create(struct wk_resolve **out, const char *const *routers, uint32_t n_routers,
                      struct ps_wake *wake)
{
    struct wk_resolve *r = ps_calloc(1, sizeof(*r));
    pthread_condattr_t attr;
    int e;

    r->targets = ps_calloc(n_routers, sizeof(*r->targets));
    r->n_targets = n_routers;
    r->wake = wake;
    for (uint32_t i = 0; i < n_routers; i++) {
        if (!parse(routers[i], &r->targets[i])) {
            ps_free(r->targets);
            ps_free(r);
            return WK_RESOLVE_E_BAD;
        }
    }
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->cond, &attr);
    pthread_condattr_destroy(&attr);
    e = pthread_create(&r->thread, NULL, resolve_main, r);
    r->started = e == 0;
    if (e != 0) {
        wk_resolve_destroy(r);
        return PS_FAULT(-e);
    }
    *out = r;
    return WK_RESOLVE_OK;
}

/* May take as long as a lookup that is under way. */
void wk_resolve_destroy(struct wk_resolve *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->cond);
    if (r->found != NULL)
        free_list(r->found, r->n_found);
    ps_free(r->targets);
    ps_free(r);
}

bool wk_resolve_take(struct wk_resolve *r, char ***out, uint32_t *out_n, bool *out_complete)
{
    bool any;

    pthread_mutex_lock(&r->lock);
    any = r->found != NULL;
    if (any) {
        *out = r->found;
        *out_n = r->n_found;
        *out_complete = r->complete;
        r->found = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return any;
}
