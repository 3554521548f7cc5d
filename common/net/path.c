#include "common/net/parse.h"

#include <string.h>

static bool is_dots(const char *seg, size_t len)
{
    return (len == 1 && seg[0] == '.') || (len == 2 && seg[0] == '.' && seg[1] == '.');
}

bool ps_path_clean(const char *raw, size_t len, char *out)
{
    size_t n = 0, seg = 1; /* seg: where the last segment begins in out */

    out[0] = '\0';
    if (len == 0 || raw[0] != '/')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = raw[i];

        if (c == '%') {
            int hi = i + 2 < len ? ps_hex_value(raw[i + 1]) : -1;
            int lo = i + 2 < len ? ps_hex_value(raw[i + 2]) : -1;

            if (hi < 0 || lo < 0)
                goto bad;
            c = (char)(hi * 16 + lo);
            i += 2;
            if ((unsigned char)c < 32 || c == 127)
                goto bad;
        }
        if (c != '/') {
            out[n++] = c;
            continue;
        }
        if (n > 0 && out[n - 1] == '/')
            continue;
        if (n > 0 && is_dots(out + seg, n - seg))
            goto bad;
        out[n++] = '/';
        seg = n;
    }
    if (is_dots(out + seg, n - seg))
        goto bad;
    if (n > 1 && out[n - 1] == '/')
        n--;
    out[n] = '\0';
    return true;
bad:
    out[0] = '\0';
    return false;
}

/* name[:port] or [IPv6][:port]. Percent and user information have no place in a Host. */
bool ps_host_ok(const char *s, size_t len)
{
    static const char name_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        "-._~!$&'()*+,;=";
    static const char addr_chars[] = "0123456789abcdefABCDEF:.";
    size_t n;

    if (len == 0)
        return false;
    if (s[0] == '[') {
        const char *end = memchr(s, ']', len);

        if (end == NULL || end == s + 1)
            return false;
        n = (size_t)(end - s);
        for (size_t i = 1; i < n; i++)
            if (memchr(addr_chars, s[i], sizeof(addr_chars) - 1) == NULL)
                return false;
        n++;
    } else {
        for (n = 0; n < len && s[n] != ':'; n++)
            if (memchr(name_chars, s[n], sizeof(name_chars) - 1) == NULL)
                return false;
        if (n == 0)
            return false;
    }
    if (n == len)
        return true;
    if (s[n] != ':' || len - n > sizeof(":65535") - 1)
        return false;
    for (n++; n < len; n++)
        if (s[n] < '0' || s[n] > '9')
            return false;
    return true;
}
