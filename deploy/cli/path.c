#include "deploy/cli/path.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"

/* Directory of this executable. */
static const char *self_dir(void)
{
    static char dir[PATH_MAX];
    char *slash;
    ssize_t n;

    if (dir[0] != '\0')
        return dir;
    n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
    dir[n > 0 ? n : 0] = '\0';
    slash = strrchr(dir, '/');
    if (slash != NULL)
        *slash = '\0';
    return dir;
}

const char *cli_program_path(const char *name)
{
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/%s", self_dir(), name);
    if (access(path, X_OK) != 0) /* build tree: deploy/cli/penstock, router/penstock-router */
        (void)snprintf(path, sizeof(path), "%s/../../%s/%s", self_dir(), name + strlen("penstock-"),
                       name);
    return ps_strdup(path);
}

const char *cli_demo_model_path(void)
{
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/../share/penstock/demo", self_dir());
    return ps_strdup(access(path, R_OK) == 0 ? path : PENSTOCK_SOURCE_DEMO);
}
