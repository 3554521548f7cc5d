#include "kernels/host.h"

#include <string.h>
#include <sys/mman.h>

/* From here on an allocation is a map of its own: the size of a huge page. */
enum { MAP_BYTES_MIN = 2 << 20 };

uint64_t kn_host_arith_id(const struct kn_dev *d PS_UNUSED)
{
    return KN_HOST_ARITH_ID;
}

const char *kn_host_describe(const struct kn_dev *d)
{
    return d->text;
}

int kn_host_mem_alloc(struct kn_dev *d PS_UNUSED, size_t n_bytes, void **out)
{
    void *p;

    if (n_bytes < MAP_BYTES_MIN) {
        p = ps_alloc_aligned(PS_CACHE_LINE, n_bytes);
        memset(p, 0, n_bytes);
    } else {
        p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return KN_E_MEM;
        (void)madvise(p, n_bytes, MADV_HUGEPAGE); /* only speed depends on it */
    }
    *out = p;
    return KN_OK;
}

void kn_host_mem_free(struct kn_dev *d PS_UNUSED, void *p, size_t n_bytes)
{
    if (p == NULL || n_bytes < MAP_BYTES_MIN)
        ps_free(p);
    else
        PS_ASSERT(munmap(p, n_bytes) == 0);
}

int kn_host_copy(struct kn_dev *d PS_UNUSED, void *dst, const void *src, size_t n_bytes)
{
    memmove(dst, src, n_bytes);
    return KN_OK;
}

int kn_host_sync(struct kn_dev *d PS_UNUSED)
{
    return KN_OK;
}

void *kn_host_scratch(struct kn_dev *d, size_t n_bytes)
{
    if (n_bytes > d->scratch_bytes) {
        ps_free(d->scratch);
        /* A quarter more, so that a growing step does not allocate each time. */
        d->scratch_bytes = n_bytes + n_bytes / 4;
        d->scratch = ps_alloc_aligned(PS_CACHE_LINE, d->scratch_bytes);
    }
    return d->scratch;
}
