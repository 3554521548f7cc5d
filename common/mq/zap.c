#include "common/mq/zap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <zmq.h>

enum {
    KEYS_MAX = 65536,
    ZAP_PARTS = 7, /* version, request id, domain, address, routing id, mechanism, key */
    PART_MAX = 256,
    TURN_MS = 200, /* how soon the thread sees that it shall end */
    SELF_TEST_MS = 3000,
};

struct allowed {
    char key[PS_MQ_KEY_CHARS];
    char uid[PS_MQ_USER_CHARS];
};

struct ps_zap {
    void *rep;
    char *file;
    struct allowed *list;
    uint32_t n;
    struct timespec mtime;
    pthread_t thread;
    bool started;
    _Atomic bool stop;
};

void ps_curve_keypair(char pub[PS_MQ_KEY_CHARS], char sec[PS_MQ_KEY_CHARS])
{
    int r = zmq_curve_keypair(pub, sec);

    PS_ASSERT(r == 0); /* fails only in a libzmq without CURVE, which the build excludes */
}

/* The first word of the file, which must be a key. */
static bool read_key(const char *path, char key[PS_MQ_KEY_CHARS])
{
    FILE *f = fopen(path, "re");
    char word[64] = "";
    uint8_t bin[32];
    bool ok;

    if (f == NULL)
        return false;
    ok = fscanf(f, "%63s", word) == 1 && strlen(word) == PS_MQ_KEY_CHARS - 1 &&
         zmq_z85_decode(bin, word) != NULL;
    fclose(f);
    if (ok)
        memcpy(key, word, PS_MQ_KEY_CHARS);
    return ok;
}

int ps_curve_load(struct ps_mq_keys *out, const char *secret_file, const char *server_key_file,
                  char *err, size_t err_size)
{
    struct ps_mq_keys k = {.on = true};

    PS_ASSERT(err_size >= 160);
    if (!read_key(secret_file, k.sec) || zmq_curve_public(k.pub, k.sec) < 0) {
        snprintf(err, err_size, "no secret key in %.120s", secret_file);
        return PS_ZAP_E_CONFIG;
    }
    if (server_key_file[0] != '\0' && !read_key(server_key_file, k.server)) {
        snprintf(err, err_size, "no public key in %.120s", server_key_file);
        return PS_ZAP_E_CONFIG;
    }
    *out = k;
    return PS_ZAP_OK;
}

/* One line: a key and a uid, nothing, or a comment. False: neither. */
static bool parse_line(const char *line, struct allowed *out, bool *is_entry)
{
    char key[64] = "", uid[32] = "";
    int n = sscanf(line, "%63s %31s", key, uid);
    bool is_key = strlen(key) == PS_MQ_KEY_CHARS - 1;

    *is_entry = false;
    if (n <= 0 || (key[0] == '#' && !is_key))
        return true;
    if (n != 2 || !is_key || strlen(uid) != PS_MQ_USER_CHARS - 1)
        return false;
    for (size_t i = 0; i < PS_MQ_USER_CHARS - 1; i++) {
        char c = uid[i];

        if (c >= 'A' && c <= 'F')
            uid[i] = (char)(c - 'A' + 'a');
        else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    memcpy(out->key, key, sizeof(out->key));
    memcpy(out->uid, uid, sizeof(out->uid));
    *is_entry = true;
    return true;
}

static bool load_list(struct ps_zap *z, char *err, size_t err_size)
{
    FILE *f = fopen(z->file, "re");
    struct allowed *list = NULL;
    uint32_t n = 0, n_line = 0;
    char line[256];
    struct stat st;

    if (f == NULL || fstat(fileno(f), &st) < 0) {
        snprintf(err, err_size, "cannot read %.120s: %s", z->file, strerror(errno));
        if (f != NULL)
            fclose(f);
        return false;
    }
    while (n < KEYS_MAX && fgets(line, sizeof(line), f) != NULL) {
        struct allowed a;
        bool is_entry;

        n_line++;
        if (!parse_line(line, &a, &is_entry)) {
            snprintf(err, err_size, "%.100s line %u: not a key and a uid", z->file, n_line);
            fclose(f);
            ps_free(list);
            return false;
        }
        if (!is_entry)
            continue;
        if ((n & (n - 1)) == 0)
            list = ps_realloc(list, (n > 0 ? 2 * (size_t)n : 1) * sizeof(*list));
        list[n++] = a;
    }
    fclose(f);
    ps_free(z->list);
    z->list = list;
    z->n = n;
    z->mtime = st.st_mtim;
    return true;
}

static const struct allowed *find_key(const struct ps_zap *z, const char *key)
{
    for (uint32_t i = 0; i < z->n; i++) {
        if (strcmp(z->list[i].key, key) == 0)
            return &z->list[i];
    }
    return NULL;
}

static const struct allowed *judge(struct ps_zap *z, const char *key)
{
    const struct allowed *a = find_key(z, key);
    struct stat st;
    char err[160];

    if (a != NULL || stat(z->file, &st) < 0 ||
        (st.st_mtim.tv_sec == z->mtime.tv_sec && st.st_mtim.tv_nsec == z->mtime.tv_nsec))
        return a;
    /* A list that does not parse leaves the old one in force. */
    return load_list(z, err, sizeof(err)) ? find_key(z, key) : NULL;
}

static bool say(void *rep, const void *p, size_t n, bool last)
{
    return zmq_send(rep, p, n, last ? 0 : ZMQ_SNDMORE) >= 0;
}

static void answer(struct ps_zap *z, const char *request_id, size_t id_len, const char *uid)
{
    const char *code = uid != NULL ? "200" : "400", *text = uid != NULL ? "OK" : "no access";

    if (uid == NULL)
        uid = "";
    if (!say(z->rep, "1.0", 3, false) || !say(z->rep, request_id, id_len, false) ||
        !say(z->rep, code, 3, false) || !say(z->rep, text, strlen(text), false) ||
        !say(z->rep, uid, strlen(uid), false))
        return;
    (void)say(z->rep, "", 0, true);
}

static void serve_one(struct ps_zap *z)
{
    char parts[ZAP_PARTS][PART_MAX];
    size_t lens[ZAP_PARTS] = {0};
    char key[PS_MQ_KEY_CHARS] = "";
    const struct allowed *a = NULL;
    uint32_t n = 0;
    int more = 1;

    while (more) {
        char extra[PART_MAX];
        size_t len = sizeof(more);
        int got = zmq_recv(z->rep, n < ZAP_PARTS ? parts[n] : extra, PART_MAX, 0);

        if (got < 0)
            return;
        if (n < ZAP_PARTS)
            lens[n] = ps_min_size((size_t)got, PART_MAX);
        n++;
        if (zmq_getsockopt(z->rep, ZMQ_RCVMORE, &more, &len) < 0)
            return;
    }
    if (n == ZAP_PARTS && lens[5] == 5 && memcmp(parts[5], "CURVE", 5) == 0 && lens[6] == 32 &&
        zmq_z85_encode(key, (const uint8_t *)parts[6], 32) != NULL)
        a = judge(z, key);
    answer(z, parts[1], lens[1], a != NULL ? a->uid : NULL);
}

static void *zap_main(void *ud)
{
    struct ps_zap *z = ud;

    while (!atomic_load(&z->stop)) {
        zmq_pollitem_t item = {.socket = z->rep, .events = ZMQ_POLLIN};

        if (zmq_poll(&item, 1, TURN_MS) > 0)
            serve_one(z);
    }
    return NULL;
}

int ps_zap_start(struct ps_zap **out, struct ps_mq *q, const char *allow_file, char *err,
                 size_t err_size)
{
    struct ps_zap *z = ps_calloc(1, sizeof(*z));
    int linger = 0;

    PS_ASSERT(err_size >= 160);
    z->file = ps_strdup(allow_file);
    if (!load_list(z, err, err_size)) {
        ps_zap_stop(z);
        return PS_ZAP_E_CONFIG;
    }
    z->rep = zmq_socket(ps_mq_raw(q), ZMQ_REP);
    if (z->rep == NULL || zmq_setsockopt(z->rep, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
        zmq_bind(z->rep, "inproc://zeromq.zap.01") < 0 ||
        pthread_create(&z->thread, NULL, zap_main, z) != 0) {
        snprintf(err, err_size, "cannot start the key handler: %s", zmq_strerror(errno));
        ps_zap_stop(z);
        return PS_ZAP_E_CONFIG;
    }
    z->started = true;
    *out = z;
    return PS_ZAP_OK;
}

void ps_zap_stop(struct ps_zap *z)
{
    if (z == NULL)
        return;
    atomic_store(&z->stop, true);
    if (z->started)
        pthread_join(z->thread, NULL);
    if (z->rep != NULL)
        zmq_close(z->rep);
    ps_free(z->list);
    ps_free(z->file);
    ps_free(z);
}

/* The first handshake event of a connection: its number, 0 for none in time. */
static int handshake_event(void *pair)
{
    for (int i = 0; i < 16; i++) {
        zmq_pollitem_t item = {.socket = pair, .events = ZMQ_POLLIN};
        uint8_t data[6];
        char where[256];
        int event;

        if (zmq_poll(&item, 1, SELF_TEST_MS) <= 0 || zmq_recv(pair, data, sizeof(data), 0) < 2 ||
            zmq_recv(pair, where, sizeof(where), 0) < 0)
            return 0;
        event = data[0] | (data[1] << 8);
        if (event & (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH))
            return event;
    }
    return 0;
}

int ps_zap_self_test(struct ps_mq *q, const struct ps_mq_keys *server, const char *host,
                     uint16_t port, char *err, size_t err_size)
{
    static const char name[] = "inproc://ps-self-test";
    void *sock = zmq_socket(ps_mq_raw(q), ZMQ_DEALER);
    void *pair = zmq_socket(ps_mq_raw(q), ZMQ_PAIR);
    bool any = strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0;
    bool v6 = strchr(host, ':') != NULL;
    char pub[PS_MQ_KEY_CHARS], sec[PS_MQ_KEY_CHARS], endpoint[300];
    int one = 1, event = 0;

    PS_ASSERT(err_size >= 160);
    ps_curve_keypair(pub, sec);
    if (any)
        snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u", port);
    else
        snprintf(endpoint, sizeof(endpoint), v6 && host[0] != '[' ? "tcp://[%s]:%u" : "tcp://%s:%u",
                 host, port);
    if (sock != NULL && pair != NULL && (!v6 || zmq_setsockopt(sock, ZMQ_IPV6, &one, 4) == 0) &&
        zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, server->pub, PS_MQ_KEY_CHARS) == 0 &&
        zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, pub, PS_MQ_KEY_CHARS) == 0 &&
        zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, sec, PS_MQ_KEY_CHARS) == 0 &&
        zmq_socket_monitor(sock, name, ZMQ_EVENT_ALL) == 0) {
        if (zmq_connect(pair, name) == 0 && zmq_connect(sock, endpoint) == 0)
            event = handshake_event(pair);
        zmq_socket_monitor(sock, NULL, 0);
    }
    if (sock != NULL)
        zmq_close(sock);
    if (pair != NULL)
        zmq_close(pair);
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return PS_ZAP_OK;
    snprintf(err, err_size, "self-test: a random key was not refused (event %d)", event);
    return PS_ZAP_E_OPEN;
}
