#include "deploy/cli/client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { MAX_HEAD_BYTES = 64 << 10, MAX_BODY_BYTES = 64 << 20 };

struct reader { /* the answer, as it arrives */
    int fd;
    struct ps_buf in;
    bool (*on_data)(const char *p, size_t n, void *ud);
    void *ud;
    struct ps_buf *out;
};

int cli_url_parse(struct cli_url *out, const char *url)
{
    const char *p, *end, *colon;
    size_t n;

    if (strncmp(url, "http://", 7) != 0)
        return CLI_E_URL;
    p = url + 7;
    end = p + strcspn(p, "/");
    colon = memchr(p, ':', (size_t)(end - p));
    n = (size_t)((colon != NULL ? colon : end) - p);
    if (n == 0 || n >= sizeof(out->host))
        return CLI_E_URL;
    memcpy(out->host, p, n);
    out->host[n] = '\0';
    n = colon != NULL ? (size_t)(end - colon - 1) : 0;
    if (n >= sizeof(out->port))
        return CLI_E_URL;
    memcpy(out->port, colon != NULL ? colon + 1 : "80", colon != NULL ? n : 2);
    out->port[colon != NULL ? n : 2] = '\0';
    return CLI_OK;
}

static int dial(const struct cli_url *u, int timeout_s)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *list = NULL, *a;
    struct timeval tv = {.tv_sec = timeout_s};
    int fd = -1;

    if (getaddrinfo(u->host, u->port, &hint, &list) != 0)
        return -1;
    for (a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    return fd;
}

static bool send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* Reads more; false at the end of the connection, after a time-out or an error. */
static bool more(struct reader *r)
{
    char tmp[8192];
    ssize_t k;

    do {
        k = recv(r->fd, tmp, sizeof(tmp), 0);
    } while (k < 0 && errno == EINTR);
    if (k <= 0 || r->in.len > MAX_BODY_BYTES)
        return false;
    ps_buf_add(&r->in, tmp, (size_t)k);
    return true;
}

/* Hands n buffered bytes on. */
static bool deliver(struct reader *r, size_t n)
{
    bool go = true;

    if (n == 0)
        return true;
    if (r->on_data != NULL)
        go = r->on_data(r->in.data, n, r->ud);
    else
        ps_buf_add(r->out, r->in.data, n);
    ps_buf_consume(&r->in, n);
    return go;
}

static char *find_line_end(struct reader *r)
{
    char *e = NULL;

    while ((r->in.len == 0 || (e = memmem(r->in.data, r->in.len, "\r\n", 2)) == NULL) &&
           r->in.len < MAX_HEAD_BYTES) {
        if (!more(r))
            return NULL;
    }
    return e;
}

static int read_chunked(struct reader *r)
{
    for (;;) {
        char *e = find_line_end(r);
        unsigned long n;

        if (e == NULL)
            return CLI_E_ANSWER;
        n = strtoul(r->in.data, NULL, 16);
        ps_buf_consume(&r->in, (size_t)(e - r->in.data) + 2);
        if (n > MAX_BODY_BYTES)
            return CLI_E_ANSWER;
        while (r->in.len < n + 2) {
            if (!more(r))
                return CLI_E_ANSWER;
        }
        if (n == 0)
            return CLI_OK;
        if (!deliver(r, n))
            return CLI_E_STOPPED;
        ps_buf_consume(&r->in, 2);
    }
}

static int read_counted(struct reader *r, unsigned long n)
{
    while (n > 0) {
        size_t k;

        if (r->in.len == 0 && !more(r))
            return CLI_E_ANSWER;
        k = ps_min_size(r->in.len, n);
        n -= k;
        if (!deliver(r, k))
            return CLI_E_STOPPED;
    }
    return CLI_OK;
}

static int read_answer(struct reader *r, uint32_t *out_status)
{
    bool chunked = false;
    unsigned long length = 0;
    unsigned status;
    char *e;

    e = find_line_end(r);
    if (e == NULL || sscanf(r->in.data, "HTTP/1.1 %3u", &status) != 1)
        return CLI_E_ANSWER;
    for (;;) {
        ps_buf_consume(&r->in, (size_t)(e - r->in.data) + 2);
        e = find_line_end(r);
        if (e == NULL)
            return CLI_E_ANSWER;
        if (e == r->in.data)
            break;
        if (strncasecmp(r->in.data, "transfer-encoding: chunked", 26) == 0)
            chunked = true;
        else if (strncasecmp(r->in.data, "content-length:", 15) == 0)
            length = strtoul(r->in.data + 15, NULL, 10);
    }
    ps_buf_consume(&r->in, 2);
    *out_status = status;
    return chunked ? read_chunked(r) : read_counted(r, length);
}

int cli_request(const struct cli_url *u, const char *path, const char *api_key, const char *body,
                size_t body_len, int timeout_s, uint32_t *out_status, struct ps_buf *out,
                bool (*on_data)(const char *p, size_t n, void *ud), void *ud)
{
    struct reader r = {.fd = dial(u, timeout_s), .on_data = on_data, .ud = ud, .out = out};
    struct ps_buf head = PS_BUF_INIT;
    int rc = CLI_E_CONNECT;

    if (r.fd < 0)
        return rc;
    ps_buf_addf(&head, "%s %s HTTP/1.1\r\nhost: %s:%s\r\nconnection: close\r\n",
                body != NULL ? "POST" : "GET", path, u->host, u->port);
    if (api_key[0] != '\0')
        ps_buf_addf(&head, "authorization: Bearer %s\r\n", api_key);
    if (body != NULL)
        ps_buf_addf(&head, "content-type: application/json\r\ncontent-length: %zu\r\n", body_len);
    ps_buf_add_str(&head, "\r\n");
    if (body != NULL)
        ps_buf_add(&head, body, body_len);
    if (send_all(r.fd, head.data, head.len))
        rc = read_answer(&r, out_status);
    (void)close(r.fd);
    ps_buf_fini(&head);
    ps_buf_fini(&r.in);
    return rc;
}
