#include <inttypes.h>
#include <string.h>

#include "common/json/json.h"
#include "router/api/api.h"
#include "router/request/params.h"

static void add_model(struct ps_buf *out, const struct rt_model *m, const char *id)
{
    ps_buf_add_str(out, "{\"id\":");
    ps_json_add_str(out, id, strlen(id));
    ps_buf_addf(out,
                ",\"object\":\"model\",\"created\":%" PRIu64 ",\"owned_by\":\"penstock\",\"root\":",
                m->created_s);
    ps_json_add_str(out, m->name, strlen(m->name));
    ps_buf_addf(out,
                ",\"parent\":null,\"max_model_len\":%" PRIu32 ",\"context_length\":%" PRIu32
                ",\"permission\":[]}",
                m->context, m->context);
}

static bool asks_for(const char *query, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = query; p != NULL; p = strchr(p, '&') != NULL ? strchr(p, '&') + 1 : NULL) {
        if (strncmp(p, name, n) == 0 && (p[n] == '=' || p[n] == '&' || p[n] == '\0'))
            return true;
    }
    return false;
}

void rt_api_models(struct rt_ask *a, const char *body, size_t len)
{
    const struct rt_model *m = &a->api->loop->router->model;
    struct ps_buf b = PS_BUF_INIT;

    (void)body;
    (void)len;
    ps_buf_add_str(&b, "{\"object\":\"list\",\"data\":[");
    add_model(&b, m, m->name);
    for (uint32_t i = 0; i < m->n_aliases; i++) {
        if (strchr(m->aliases[i], '*') != NULL)
            continue; /* a pattern is no name */
        ps_buf_add_byte(&b, ',');
        add_model(&b, m, m->aliases[i]);
    }
    ps_buf_add_byte(&b, ']');
    if (asks_for(ps_http_head(a->req)->query, "client_version"))
        ps_buf_add_str(&b, ",\"models\":[]"); /* one client cannot read the list without it */
    ps_buf_add_byte(&b, '}');
    rt_ask_json(a, 200, &b);
    ps_buf_fini(&b);
}

void rt_api_model(struct rt_ask *a, const char *body, size_t len)
{
    const struct rt_model *m = &a->api->loop->router->model;
    struct rt_str name = {.s = a->tail, .len = strlen(a->tail)};
    struct ps_buf b = PS_BUF_INIT;
    const char *shown;
    struct rt_fail f;

    (void)body;
    (void)len;
    if (!rt_model_resolve(m, name, &shown)) {
        rt_fail_set(&f, RT_E10_MODEL, "model", "The model `%.200s` does not exist.", a->tail);
        rt_ask_fail(a, &f);
        return;
    }
    add_model(&b, m, m->name);
    rt_ask_json(a, 200, &b);
    ps_buf_fini(&b);
}
