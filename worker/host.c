#include "worker/host.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

/* The first bytes of a small file of the kernel; false when it is not there. */
static bool read_text(const char *path, char *out, size_t size)
{
    PS_AUTO(ps_close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

uint32_t wk_host_parse_quota(const char *text)
{
    char *end;
    uint64_t quota, period;

    if (strncmp(text, "max", 3) == 0)
        return UINT32_MAX;
    quota = strtoull(text, &end, 10);
    period = strtoull(end, NULL, 10);
    if (quota == 0 || period == 0)
        return UINT32_MAX;
    return (uint32_t)ps_max_u64(1, quota / period);
}

/* Calls fn with the text of `name` in this process's cgroup and each of its parents (cgroup v2). */
static void each_cgroup(const char *name, void (*fn)(const char *text, const char *dir, void *ud),
                        void *ud)
{
    char line[PATH_MAX], dir[PATH_MAX + 32], path[PATH_MAX + 64], text[64], *at, *end;

    line[0] = '\0';
    at = read_text("/proc/self/cgroup", line, sizeof(line)) ? strstr(line, "0::/") : NULL;
    end = at != NULL ? strchr(at, '\n') : NULL;
    if (end != NULL)
        *end = '\0';
    (void)snprintf(dir, sizeof(dir), "%s%s", CGROUP_ROOT, at != NULL ? at + 3 : "");
    while (strlen(dir) >= strlen(CGROUP_ROOT)) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
        if (read_text(path, text, sizeof(text)))
            fn(text, dir, ud);
        at = strrchr(dir, '/');
        PS_ASSERT(at != NULL);
        *at = '\0';
    }
}

static void take_quota(const char *text, const char *dir, void *ud)
{
    uint32_t *least = ud;

    (void)dir;
    *least = ps_min_u32(*least, wk_host_parse_quota(text));
}

uint32_t wk_host_share(uint32_t n_cores, uint32_t n_workers)
{
    uint32_t n = n_cores > 2 ? n_cores - 1 : n_cores;

    PS_ASSERT(n_workers > 0);
    return ps_max_u32(1, n / n_workers);
}

uint32_t wk_host_threads(uint32_t n_workers)
{
    cpu_set_t set;
    uint32_t n_cores = 1, quota = UINT32_MAX;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n_cores = ps_max_u32(1, (uint32_t)CPU_COUNT(&set));
    else
        n_cores = ps_max_u32(1, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN)); /* over 1,024 CPUs */
    each_cgroup("cpu.max", take_quota, &quota);
    return wk_host_share(ps_min_u32(n_cores, quota), n_workers);
}

static void take_memory(const char *text, const char *dir, void *ud)
{
    uint64_t *least = ud, limit = strtoull(text, NULL, 10), used = 0;
    char path[PATH_MAX + 64], now[64];

    if (strncmp(text, "max", 3) == 0 || limit == 0)
        return;
    (void)snprintf(path, sizeof(path), "%s/memory.current", dir);
    if (read_text(path, now, sizeof(now)))
        used = strtoull(now, NULL, 10);
    *least = ps_min_u64(*least, limit > used ? limit - used : 0);
}

uint64_t wk_host_mem_available(void)
{
    char text[2048];
    const char *at;
    uint64_t bytes = UINT64_MAX;

    if (read_text("/proc/meminfo", text, sizeof(text)) &&
        (at = strstr(text, "MemAvailable:")) != NULL)
        bytes = strtoull(at + strlen("MemAvailable:"), NULL, 10) * 1024;
    each_cgroup("memory.max", take_memory, &bytes);
    return bytes;
}

bool wk_size_parse(const char *text, uint64_t *out_bytes)
{
    static const char units[] = "KMGT";
    char *end;
    const char *unit;
    uint64_t n;
    uint32_t shift = 0;

    if (text[0] < '0' || text[0] > '9')
        return false;
    n = strtoull(text, &end, 10);
    if (*end != '\0' && (unit = strchr(units, *end & ~0x20)) != NULL) {
        shift = 10 * (uint32_t)(unit - units + 1);
        end++;
        end += *end == 'i';
    }
    end += (*end & ~0x20) == 'B';
    if (*end != '\0' || n == 0 || n > (UINT64_MAX >> 1) >> shift)
        return false;
    *out_bytes = n << shift;
    return true;
}
