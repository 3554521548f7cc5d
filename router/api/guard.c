/*
 * Who may ask, from where: Host names against DNS rebinding, CORS, media types.
 */

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "router/api/api.h"
#include "router/conf_def.h"

enum { ECHO_HEADERS_MAX = 2048, HOST_MAX = 256 };

/* "name:port", "[::1]:port" -> the name, lower case. False when it is too long to be one. */
static bool host_name(const char *host, char out[HOST_MAX])
{
    size_t n = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");

    if (host[0] == '[') {
        host++;
        n--;
    }
    if (n >= HOST_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)tolower((unsigned char)host[i]);
    out[n] = '\0';
    return true;
}

static bool is_address(const char *name)
{
    unsigned char addr[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1;
}

/*
 * Without keys a web page could reach us under its own name by rebinding it to our address. An IP
 * literal cannot be rebound; names have to be known.
 */
bool rt_guard_host(const struct rt_router *r, const char *host)
{
    const struct rt_conf *conf = r->conf;
    char name[HOST_MAX];

    if (rt_keys_configured(r->keys) || host == NULL || host[0] == '\0')
        return true;
    if (!host_name(host, name))
        return false;
    if (strcmp(name, "localhost") == 0 || is_address(name) || strcasecmp(name, conf->host) == 0)
        return true;
    for (uint32_t i = 0; i < conf->allowed_hosts.n; i++) {
        if (strcasecmp(name, conf->allowed_hosts.items[i]) == 0)
            return true;
    }
    return false;
}

static bool is_local_origin(const char *origin)
{
    const char *p = strstr(origin, "://");
    char name[HOST_MAX];

    return p != NULL && host_name(p + 3, name) &&
           (strcmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 ||
            strcmp(name, "::1") == 0);
}

static bool is_listed(const struct ps_conf_list *l, const char *origin, bool *out_any)
{
    for (uint32_t i = 0; i < l->n; i++) {
        *out_any = strcmp(l->items[i], "*") == 0;
        if (*out_any || strcasecmp(l->items[i], origin) == 0)
            return true;
    }
    return false;
}

void rt_guard_cors(const struct rt_router *r, struct rt_ask *a, const char *origin)
{
    const struct ps_conf_list *listed = &r->conf->cors_origins;
    bool any = false, ok;

    a->cors[0] = '\0';
    if (origin == NULL || strlen(origin) > HOST_MAX / 2 ||
        strspn(origin, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:/[]") !=
            strlen(origin))
        return;
    if (listed->n > 0)
        ok = is_listed(listed, origin, &any);
    else if (rt_keys_configured(r->keys))
        ok = any = true;
    else
        ok = is_local_origin(origin);
    if (!ok)
        return;
    (void)snprintf(a->cors, sizeof(a->cors),
                   "access-control-allow-origin: %s\r\n%s"
                   "access-control-expose-headers: x-request-id, request-id, retry-after\r\n",
                   any ? "*" : origin, any ? "" : "vary: origin\r\n");
}

static const char *skip_space(const char *s)
{
    return s + strspn(s, " \t");
}

static bool token_is(const char *s, size_t n, const char *want)
{
    return n == strlen(want) && strncasecmp(s, want, n) == 0;
}

/* Parameters after the type: only a charset matters, and only UTF-8 is one we read. */
static bool charset_ok(const char *s)
{
    while (*s == ';') {
        size_t n;

        s = skip_space(s + 1);
        n = strcspn(s, "=; \t");
        if (token_is(s, n, "charset")) {
            s = skip_space(s + n);
            s = *s == '=' ? skip_space(s + 1) : s;
            s += *s == '"';
            n = strcspn(s, "\"; \t");
            if (!token_is(s, n, "utf-8") && !token_is(s, n, "utf8"))
                return false;
        }
        s += strcspn(s, ";");
    }
    return true;
}

bool rt_guard_media(const char *content_type, const char *encoding, struct rt_fail *f)
{
    static const char app[] = "application/";
    const char *sub;
    size_t n;

    if (encoding != NULL && encoding[0] != '\0' && strcasecmp(encoding, "identity") != 0) {
        rt_fail_set(f, RT_E16_ENCODING, NULL, "Content-Encoding '%.100s' is not supported",
                    encoding);
        return false;
    }
    if (content_type == NULL || content_type[0] == '\0')
        return true;
    n = strcspn(content_type, "; \t");
    if (n >= sizeof(app) - 1 && strncasecmp(content_type, app, sizeof(app) - 1) == 0) {
        sub = content_type + sizeof(app) - 1;
        n -= sizeof(app) - 1;
        if ((token_is(sub, n, "json") || (n > 5 && strncasecmp(sub + n - 5, "+json", 5) == 0)) &&
            charset_ok(skip_space(sub + n)))
            return true;
    }
    rt_fail_set(f, RT_E16_MEDIA_TYPE, NULL,
                "Content-Type must be application/json in UTF-8, got '%.100s'", content_type);
    return false;
}
