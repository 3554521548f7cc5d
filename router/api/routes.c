#include <string.h>

#include "router/api/api.h"

#define JSON_POST(p, fn) \
    { \
        .path = (p), .methods = RT_POST, .flags = RT_ROUTE_JSON, .handle = (fn) \
    }
#define GET(p, fn) \
    { \
        .path = (p), .methods = RT_GET, .handle = (fn) \
    }
#define PROBE(p, m, fn) \
    { \
        .path = (p), .methods = (m), .flags = RT_ROUTE_OPEN | RT_ROUTE_ANYHOST, .handle = (fn) \
    }
/* Other servers have these routes: clients see a reason instead of 404. */
#define NOT_HERE(p) \
    { \
        .path = (p), .methods = RT_GET | RT_POST, .flags = RT_ROUTE_PREFIX \
    }

static const struct rt_route routes[] = {
    JSON_POST("/v1/chat/completions", rt_api_chat),
    JSON_POST("/chat/completions", rt_api_chat),
    JSON_POST("/v1/completions", rt_api_completion),
    JSON_POST("/completions", rt_api_completion),
    GET("/v1/models", rt_api_models),
    GET("/models", rt_api_models),
    {.path = "/v1/models", .methods = RT_GET, .flags = RT_ROUTE_PREFIX, .handle = rt_api_model},
    {.path = "/models", .methods = RT_GET, .flags = RT_ROUTE_PREFIX, .handle = rt_api_model},
    JSON_POST("/tokenize", rt_api_tokenize),
    JSON_POST("/v1/tokenize", rt_api_tokenize),
    JSON_POST("/detokenize", rt_api_detokenize),
    JSON_POST("/v1/detokenize", rt_api_detokenize),
    GET("/tokenizer_info", rt_api_tokenizer_info),
    GET("/v1/tokenizer_info", rt_api_tokenizer_info),
    PROBE("/", RT_GET, rt_api_health),
    PROBE("/health", RT_GET, rt_api_health),
    PROBE("/healthz", RT_GET, rt_api_health),
    PROBE("/ping", RT_GET | RT_POST, rt_api_ping),
    PROBE("/ready", RT_GET, rt_api_ready),
    PROBE("/readyz", RT_GET, rt_api_ready),
    PROBE("/readiness", RT_GET, rt_api_ready),
    PROBE("/live", RT_GET, rt_api_live),
    PROBE("/livez", RT_GET, rt_api_live),
    PROBE("/liveness", RT_GET, rt_api_live),
    {.path = "/version", .methods = RT_GET, .flags = RT_ROUTE_OPEN, .handle = rt_api_version},
    {.path = "/metrics",
     .methods = RT_GET,
     .flags = RT_ROUTE_METRICS | RT_ROUTE_ANYHOST,
     .handle = rt_api_metrics},
    GET("/v1/stats", rt_api_stats),
    NOT_HERE("/v1/chat/completions/input_tokens"),
    NOT_HERE("/v1/chat/completions/render"),
    NOT_HERE("/v1/responses"),
    NOT_HERE("/responses"),
    NOT_HERE("/v1/messages"),
    NOT_HERE("/messages"),
    NOT_HERE("/v1/embeddings"),
    NOT_HERE("/embeddings"),
    NOT_HERE("/v1/audio"),
    NOT_HERE("/v1/images"),
    NOT_HERE("/v1/files"),
    NOT_HERE("/v1/batches"),
    NOT_HERE("/v1/rerank"),
    NOT_HERE("/rerank"),
    NOT_HERE("/v1/score"),
    NOT_HERE("/score"),
    NOT_HERE("/v1/realtime"),
    NOT_HERE("/v1/conversations"),
    NOT_HERE("/v1/sessions"),
    NOT_HERE("/v1/load_lora_adapter"),
    NOT_HERE("/v1/unload_lora_adapter"),
    NOT_HERE("/v1/loads"),
    NOT_HERE("/pooling"),
    NOT_HERE("/classify"),
    NOT_HERE("/props"),
    NOT_HERE("/slots"),
    NOT_HERE("/infill"),
    NOT_HERE("/completion"),
    NOT_HERE("/apply-template"),
    NOT_HERE("/lora-adapters"),
    NOT_HERE("/invocations"),
    NOT_HERE("/generate"),
    NOT_HERE("/get_model_info"),
    NOT_HERE("/model_info"),
    NOT_HERE("/get_server_info"),
    NOT_HERE("/server_info"),
    NOT_HERE("/health_generate"),
    NOT_HERE("/load"),
};

const struct rt_route *rt_route_find(const char *path, const char **out_tail)
{
    const struct rt_route *best = NULL;

    *out_tail = "";
    for (size_t i = 0; i < PS_ARRAY_LEN(routes); i++) {
        const struct rt_route *r = &routes[i];
        size_t n = strlen(r->path);

        if (strcmp(path, r->path) == 0 &&
            ((r->flags & RT_ROUTE_PREFIX) == 0 || r->handle == NULL)) {
            *out_tail = "";
            return r;
        }
        if ((r->flags & RT_ROUTE_PREFIX) != 0 && strncmp(path, r->path, n) == 0 && path[n] == '/' &&
            best == NULL) {
            *out_tail = path + n + 1;
            best = r;
        }
    }
    return best;
}

const char *rt_route_allow(const struct rt_route *r)
{
    switch (r->methods) {
    case RT_GET:
        return "GET, HEAD, OPTIONS";
    case RT_POST:
        return "POST, OPTIONS";
    default:
        return "GET, HEAD, POST, OPTIONS";
    }
}
