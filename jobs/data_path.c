#include "jobs/data_path.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

/* Folder of the running program; "." if the kernel does not say. */
static void find_program_folder(char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (n < 0) n = 0;
    out[n] = '\0';
    char *slash = strrchr(out, '/');
    if (slash) *slash = '\0';
    else strcpy(out, ".");
}

/* The file under `root` if it can be read there, else NULL. The caller frees. */
static char *under(const char *root, const char *middle, const char *name)
{
    char *path = text_format("%s%s/%s", root, middle, name);
    if (access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

enum status data_path_find(const char *name, char **out)
{
    char bin[PATH_MAX];
    const char *share = getenv("CYTOMILL_SHARE");
    find_program_folder(bin);
    *out = share ? under(share, "", name) : NULL;
    if (!*out) *out = under(bin, "/../share/cytomill", name);
    if (!*out) *out = under(bin, "/../../..", name);
    if (*out) return ST_OK;
    return fail(ST_CONFIG,
                "%s ships with the programs and was found neither in $CYTOMILL_SHARE (%s), %s/../share/cytomill "
                "nor %s/../../..; reinstall, or name your own file",
                name, share ? share : "not set", bin, bin);
}

enum status data_path_vocabulary(const char *given, char **out)
{
    const char *data = getenv("CYTOMILL_DATA");
    if (!*given) return data_path_find("configs/genes/vocabulary.tsv.gz", out);
    *out = data && *given != '/' && access(given, R_OK) != 0 ? under(data, "", given) : NULL;
    if (!*out) *out = text_copy(given);
    return ST_OK;
}
