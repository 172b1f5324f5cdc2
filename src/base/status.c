#include "base/status.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char message[2048];
static char where[256];

const char *status_word(enum status st)
{
    switch (st) {
#define X(name, code, word) \
    case name: return word;
        STATUS_LIST(X)
#undef X
    }
    return "unknown";
}

enum status status_fail(enum status st, const char *file, int line, const char *format, ...)
{
    pthread_mutex_lock(&lock);
    if (message[0] == '\0') {
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof message, format, args);
        va_end(args);
        for (char *c = message; *c; c++)
            if (*c == '\n' || *c == '\r') *c = ' ';
        snprintf(where, sizeof where, "%s:%d", file, line);
    }
    pthread_mutex_unlock(&lock);
    return st;
}

const char *status_message(void) { return message; }
const char *status_where(void) { return where; }

void status_clear(void)
{
    pthread_mutex_lock(&lock);
    message[0] = where[0] = '\0';
    pthread_mutex_unlock(&lock);
}

void status_prefix(const char *format, ...)
{
    char front[sizeof message], old[sizeof message];
    va_list args;
    va_start(args, format);
    vsnprintf(front, sizeof front, format, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    memcpy(old, message, sizeof old);
    size_t n = strlen(front);
    if (n >= sizeof message) n = sizeof message - 1;
    memcpy(message, front, n);
    snprintf(message + n, sizeof message - n, "%s", old);
    pthread_mutex_unlock(&lock);
}

enum status mem_alloc(void **out, size_t count, size_t item_bytes, const char *what)
{
    *out = calloc(count ? count : 1, item_bytes ? item_bytes : 1);
    if (*out) return ST_OK;
    return fail(ST_MEMORY,
                "no memory for %s (%zu items of %zu bytes); use fewer cells per batch, "
                "fewer ranks per node or a node with more memory",
                what, count, item_bytes);
}
