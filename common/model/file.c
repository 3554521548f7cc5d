#include "common/model/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int ps_file_read(const char *dir, const char *name, size_t max_bytes, struct ps_buf *out)
{
    PS_AUTO(ps_close_fd) int fd = -1;
    char path[PATH_MAX];
    size_t start = out->len, left;
    struct stat st;
    int n;

    PS_ASSERT(dir != NULL && name != NULL);
    n = snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof(path))
        return PS_FAULT(-ENAMETOOLONG);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? PS_FILE_E_NONE : PS_FAULT(-errno);
    if (fstat(fd, &st) < 0)
        return PS_FAULT(-errno);
    if (!S_ISREG(st.st_mode))
        return PS_FAULT(-EINVAL);
    if ((uint64_t)st.st_size > max_bytes)
        return PS_FILE_E_BIG;
    left = (size_t)st.st_size;
    ps_buf_reserve(out, left);
    while (left > 0) {
        ssize_t got = read(fd, out->data + out->len, left);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int r = -errno;

            ps_buf_truncate(out, start);
            return PS_FAULT(r);
        }
        if (got == 0)
            break; /* it shrank meanwhile: what was read is what there is */
        (void)ps_buf_grow(out, (size_t)got);
        left -= (size_t)got;
    }
    return PS_FILE_OK;
}
