#include "router/api/api.h"

void rt_api_chat(struct rt_ask *a, const char *body, size_t len)
{
    rt_call_start(a, RT_CHAT, body, len);
}

void rt_api_completion(struct rt_ask *a, const char *body, size_t len)
{
    rt_call_start(a, RT_COMPLETION, body, len);
}
