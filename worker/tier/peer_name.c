#include "worker/tier/peer_name.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { HOST_MAX = 256, PORT_MAX = 8 };

/*
 * A lookup has a detached thread. It and the name change state by an exchange; who comes second frees
 * it, so that a name can be destroyed while the resolver still waits for somebody's answer.
 */
enum lookup_state { RUNNING, ANSWERED, ABANDONED };

struct lookup {
    char host[HOST_MAX], port[PORT_MAX];
    struct addrinfo *found; /* the thread's until ANSWERED */
    _Atomic int state;
};

struct wk_peer_name {
    char host[HOST_MAX], port[PORT_MAX];
    bool is_number;
    struct wk_peer_addr addr; /* of a number */
    struct lookup *lookup;    /* of a name, while it is under way */
    uint32_t turn;
};

/* ---- addresses ---- */

bool wk_peer_addr_is_loopback(const struct wk_peer_addr *a)
{
    const struct sockaddr_in6 *v6 = (const void *)&a->sa;
    const struct sockaddr_in *v4 = (const void *)&a->sa;

    if (a->sa.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return a->sa.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

const char *wk_peer_addr_text(const struct wk_peer_addr *a, char *out)
{
    char host[INET6_ADDRSTRLEN] = "", port[PORT_MAX] = "";
    const bool v6 = a->sa.ss_family == AF_INET6;

    if (getnameinfo((const struct sockaddr *)&a->sa, a->len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        (void)snprintf(out, WK_PEER_ADDR_TEXT, "unknown");
    else
        (void)snprintf(out, WK_PEER_ADDR_TEXT, v6 ? "[%s]:%s" : "%s:%s", host, port);
    return out;
}

/* ---- names ---- */

static bool parse(const char *text, struct wk_peer_name *out)
{
    const char *colon = strrchr(text, ':');
    size_t n, n_port;

    if (colon == NULL)
        return false;
    n = (size_t)(colon - text);
    n_port = strlen(colon + 1);
    if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof(out->host) || n_port == 0 || n_port > 5 ||
        strspn(colon + 1, "0123456789") != n_port)
        return false;
    memcpy(out->host, text, n);
    memcpy(out->port, colon + 1, n_port);
    return true;
}

static void take_addr(struct wk_peer_addr *out, const struct addrinfo *a)
{
    PS_ASSERT(a->ai_addrlen <= sizeof(out->sa));
    *out = (struct wk_peer_addr){.len = a->ai_addrlen};
    memcpy(&out->sa, a->ai_addr, a->ai_addrlen);
}

static bool resolve(const struct wk_peer_name *n, int flags, struct wk_peer_addr *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *found = NULL;

    if (getaddrinfo(n->host, n->port, &hints, &found) != 0)
        return false;
    take_addr(out, found);
    freeaddrinfo(found);
    return true;
}

int wk_peer_name_create(struct wk_peer_name **out, const char *text)
{
    struct wk_peer_name *n = ps_calloc(1, sizeof(*n));

    if (!parse(text, n)) {
        ps_free(n);
        return WK_PEER_NAME_E_BAD;
    }
    n->is_number = resolve(n, AI_NUMERICHOST, &n->addr);
    *out = n;
    return WK_PEER_NAME_OK;
}

static void free_lookup(struct lookup *l)
{
    if (l->found != NULL)
        freeaddrinfo(l->found);
    ps_free(l);
}

static void *lookup_main(void *ud)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct lookup *l = ud;

    if (getaddrinfo(l->host, l->port, &hints, &l->found) != 0)
        l->found = NULL;
    if (atomic_exchange(&l->state, ANSWERED) == ABANDONED)
        free_lookup(l);
    return NULL;
}

void wk_peer_name_destroy(struct wk_peer_name *n)
{
    if (n == NULL)
        return;
    if (n->lookup != NULL && atomic_exchange(&n->lookup->state, ABANDONED) == ANSWERED)
        free_lookup(n->lookup);
    ps_free(n);
}

bool wk_peer_name_is_loopback(const struct wk_peer_name *n)
{
    return n->is_number ? wk_peer_addr_is_loopback(&n->addr) : strcmp(n->host, "localhost") == 0;
}

static struct lookup *start_lookup(const struct wk_peer_name *n)
{
    struct lookup *l = ps_calloc(1, sizeof(*l));
    pthread_attr_t attr;
    pthread_t thread;
    int e;

    memcpy(l->host, n->host, sizeof(l->host));
    memcpy(l->port, n->port, sizeof(l->port));
    atomic_init(&l->state, RUNNING);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    e = pthread_create(&thread, &attr, lookup_main, l);
    pthread_attr_destroy(&attr);
    if (e == 0)
        return l;
    ps_free(l);
    return NULL;
}

static bool pick(struct wk_peer_name *n, const struct addrinfo *found, struct wk_peer_addr *out)
{
    uint32_t n_found = 0, at;

    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next)
        n_found++;
    if (n_found == 0)
        return false;
    for (at = n->turn++ % n_found; at > 0; at--)
        found = found->ai_next;
    take_addr(out, found);
    return true;
}

int wk_peer_name_lookup(struct wk_peer_name *n, struct wk_peer_addr *out)
{
    bool found;

    if (n->is_number) {
        *out = n->addr;
        return WK_PEER_NAME_OK;
    }
    if (n->lookup == NULL)
        n->lookup = start_lookup(n);
    if (n->lookup == NULL)
        return WK_PEER_NAME_E_ABSENT;
    if (atomic_load(&n->lookup->state) == RUNNING)
        return WK_PEER_NAME_E_WAIT;
    found = pick(n, n->lookup->found, out);
    free_lookup(n->lookup);
    n->lookup = NULL;
    return found ? WK_PEER_NAME_OK : WK_PEER_NAME_E_ABSENT;
}

int wk_peer_name_listen(const struct wk_peer_name *n, struct wk_peer_addr *out)
{
    if (n->is_number)
        *out = n->addr;
    else if (!resolve(n, AI_PASSIVE, out))
        return WK_PEER_NAME_E_ABSENT;
    return WK_PEER_NAME_OK;
}
