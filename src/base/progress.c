#include "base/progress.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

double clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct progress progress_start(const char *what, const char *unit, int64_t total, int64_t done, bool speak)
{
    const char *every = getenv("CYTOMILL_PROGRESS_S");
    double now = clock_s();
    return (struct progress){.what = what,
                             .unit = unit,
                             .total = total,
                             .first = done,
                             .now = done,
                             .start_s = now,
                             .last_s = -1,
                             .every_s = every ? atof(every) : 10,
                             .speak = speak,
                             .terminal = speak && isatty(STDERR_FILENO)};
}

static double eta_s(const struct progress *p, double now)
{
    int64_t moved = p->now - p->first;
    return moved > 0 ? (now - p->start_s) / (double)moved * (double)(p->total - p->now) : NAN;
}

static void draw_bar(struct progress *p, const struct metric *metrics, int count, double now)
{
    enum { WIDTH = 30 };
    char eta[32];
    int filled = p->total > 0 ? (int)(WIDTH * p->now / p->total) : 0;
    fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld %s", p->what, filled, "##############################", WIDTH - filled,
            "", (long long)p->now, (long long)p->total, p->unit);
    for (int i = 0; i < count; i++) fprintf(stderr, " %s=%.4g", metrics[i].name, metrics[i].value);
    fprintf(stderr, " left=%s\033[K", text_duration(eta_s(p, now), eta));
    p->drawn = true;
}

static void log_line(const struct progress *p, const struct metric *metrics, int count, double now)
{
    char eta[32];
    fprintf(stderr, "%s=%lld of=%lld", p->unit, (long long)p->now, (long long)p->total);
    for (int i = 0; i < count; i++) fprintf(stderr, " %s=%.6g", metrics[i].name, metrics[i].value);
    fprintf(stderr, " eta=%s\n", text_duration(eta_s(p, now), eta));
}

void progress_update(struct progress *p, int64_t done, const struct metric *metrics, int count)
{
    p->now = done;
    if (!p->speak) return;
    double now = clock_s(), wait = p->terminal ? 0.2 : p->every_s;
    if (p->last_s >= 0 && done < p->total && now - p->last_s < wait) return;
    p->last_s = now;
    if (p->terminal) draw_bar(p, metrics, count, now);
    else log_line(p, metrics, count, now);
}

void progress_finish(struct progress *p)
{
    if (!p->speak) return;
    char took[32];
    if (p->drawn) fputc('\n', stderr);
    fprintf(stderr, "%s: %lld %s in %s\n", p->what, (long long)(p->now - p->first), p->unit,
            text_duration(clock_s() - p->start_s, took));
}

/* Byte offset after the last whole line whose "key":N has N <= keep. */
static long kept_length(FILE *file, const char *key, int64_t keep)
{
    char *line = NULL, pattern[64];
    size_t capacity = 0;
    long kept = 0;
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    while (getline(&line, &capacity, file) > 0) {
        const char *at = strstr(line, pattern);
        bool whole = strchr(line, '\n');
        if (whole && at && (keep < 0 || atoll(at + strlen(pattern)) <= keep)) kept = ftell(file);
    }
    free(line);
    return kept;
}

enum status metrics_open(struct metrics_file *m, const char *path, const char *key, int64_t keep)
{
    FILE *old = fopen(path, "rb");
    if (old) {
        long kept = kept_length(old, key, keep);
        fclose(old);
        if (truncate(path, kept) != 0)
            return fail(ST_OUTPUT, "%s: cannot be cut to %ld bytes: %s", path, kept, strerror(errno));
    }
    *m = (struct metrics_file){.file = fopen(path, "ab"), .start_s = clock_s()};
    if (!m->file) return fail(ST_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
    fseek(m->file, 0, SEEK_END);
    return ST_OK;
}

bool metrics_empty(const struct metrics_file *m) { return m->file && ftell(m->file) == 0; }

enum status metrics_add(struct metrics_file *m, const char *kind, const struct metric *metrics, int count)
{
    if (!m->file) return ST_OK;
    fprintf(m->file, "{\"kind\":\"%s\"", kind);
    for (int i = 0; i < count; i++) {
        if (isfinite(metrics[i].value)) fprintf(m->file, ",\"%s\":%.9g", metrics[i].name, metrics[i].value);
        else fprintf(m->file, ",\"%s\":null", metrics[i].name);
    }
    fprintf(m->file, ",\"time_s\":%.3f}\n", clock_s() - m->start_s);
    if (fflush(m->file) != 0) return fail(ST_OUTPUT, "metrics file: cannot be written: %s", strerror(errno));
    return ST_OK;
}

void metrics_close(struct metrics_file *m)
{
    if (m->file) fclose(m->file);
    m->file = NULL;
}
