#include "io/run_record.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"

static json_t *utc(time_t at)
{
    char text[32];
    struct tm parts;
    gmtime_r(&at, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return json_string(text);
}

/* Distinct hosts in rank order. */
static json_t *host_list(const char *hosts, int ranks)
{
    json_t *list = json_array();
    const size_t length = sizeof((struct comm *)0)->host;
    for (int r = 0; r < ranks; r++) {
        const char *host = hosts + (size_t)r * length;
        if (r == 0 || strcmp(host, host - length) != 0) json_array_append_new(list, json_string(host));
    }
    return list;
}

enum status run_record_write(struct comm *comm, const char *path, const char *program, const char *version,
                             double seconds, int threads, const struct config *config, const struct metric *metrics,
                             int count)
{
    enum status st = ST_OK;
    char *hosts = NULL;
    int64_t bytes;
    TRY(comm_gather_all(comm, comm->host, sizeof comm->host, (void **)&hosts, &bytes, NULL));
    if (comm->rank == 0) {
        time_t now = time(NULL);
        json_t *record = json_object();
        char *yaml = config_yaml(config, NULL);
        json_object_set_new(record, "program", json_string(program));
        json_object_set_new(record, "version", json_string(version));
        json_object_set_new(record, "started", utc(now - (time_t)seconds));
        json_object_set_new(record, "ended", utc(now));
        json_object_set_new(record, "seconds", json_real(seconds));
        json_object_set_new(record, "ranks", json_integer(comm->size));
        json_object_set_new(record, "threads_per_rank", json_integer(threads));
        json_object_set_new(record, "hosts", host_list(hosts, comm->size));
        for (int m = 0; m < count; m++)
            json_object_set_new(record, metrics[m].name,
                                isfinite(metrics[m].value) ? json_real(metrics[m].value) : json_null());
        json_object_set_new(record, "configuration", json_string(yaml));
        char *text = json_dumps(record, JSON_INDENT(2));
        st = text ? text_write_file(path, text, strlen(text)) : fail(ST_MEMORY, "%s: no memory to write it", path);
        free(text);
        json_decref(record);
        free(yaml);
    }
    st = comm_agree(comm, st);
done:
    free(hosts);
    return st;
}
