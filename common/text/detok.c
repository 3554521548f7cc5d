#include <string.h>

#include "common/text/tok_int.h"
#include "common/text/utf8.h"

enum { STACK_BYTES = 256 };

void ps_detok_init(struct ps_detok *d, const struct ps_tok *t, bool skip_special)
{
    memset(d, 0, sizeof(*d));
    d->tok = t;
    d->skip_special = skip_special;
}

/*
 * The pending bytes and the token's are repaired together; what may still become a character stays
 * pending. Repair works on maximal subparts, so where the pieces are cut does not show in the text.
 */
void ps_detok_push(struct ps_detok *d, uint32_t id, struct ps_buf *out)
{
    char small[STACK_BYTES], *both = small;
    const char *raw, *s;
    uint32_t len;
    size_t n, used;

    if (d->skip_special && ps_tok_is_special(d->tok, id))
        return;
    raw = ps_tok_bytes(d->tok, id, &len);
    s = raw;
    n = len;
    if (d->n_pend > 0) {
        n = d->n_pend + (size_t)len;
        if (n > sizeof(small))
            both = ps_alloc(n);
        memcpy(both, d->pend, d->n_pend);
        if (len > 0)
            memcpy(both + d->n_pend, raw, len);
        s = both;
    }
    used = ps_utf8_repair(out, s, n, false);
    PS_ASSERT(n - used < sizeof(d->pend));
    d->n_pend = (uint8_t)(n - used);
    memcpy(d->pend, s + used, d->n_pend);
    if (both != small)
        ps_free(both);
}

void ps_detok_flush(struct ps_detok *d, struct ps_buf *out)
{
    (void)ps_utf8_repair(out, d->pend, d->n_pend, true);
    d->n_pend = 0;
}

void ps_tok_decode(const struct ps_tok *t, const uint32_t *ids, uint32_t n, bool skip_special,
                   struct ps_buf *out)
{
    struct ps_detok d;

    ps_detok_init(&d, t, skip_special);
    for (uint32_t i = 0; i < n; i++)
        ps_detok_push(&d, ids[i], out);
    ps_detok_flush(&d, out);
}
