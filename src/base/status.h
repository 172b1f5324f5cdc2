/* Status of a call, which is also the exit code of a program.
 *
 * A function that can fail returns `enum status`; the text of the failure is recorded once, where
 * it happened, by fail(), and travels beside the code. TRY() passes it up to the one `done:` exit:
 *
 *     enum status st = ST_OK;
 *     TRY(thing_open(path, &thing));
 *     if (thing->n == 0) TRY(fail(ST_INPUT, "%s: no cells; give a file with at least one", path));
 *   done:
 *     thing_close(&thing);
 *     return st;
 *
 * Nothing here prints. A parallel program prints through comm_agree() (mpi/comm.h), so that one
 * rank speaks. */
#ifndef CYTOMILL_BASE_STATUS_H
#define CYTOMILL_BASE_STATUS_H

#include <stddef.h>

/* X(name, exit code, word shown in "error[4 input]") */
#define STATUS_LIST(X) \
    X(ST_OK, 0, "ok") \
    X(ST_USAGE, 2, "usage") \
    X(ST_CONFIG, 3, "configuration") \
    X(ST_INPUT, 4, "input") \
    X(ST_OUTPUT, 5, "output") \
    X(ST_MEMORY, 6, "memory") \
    X(ST_NUMERIC, 7, "numeric") \
    X(ST_COMM, 8, "communication") \
    X(ST_INTERNAL, 9, "internal") \
    X(ST_REQUEUE, 75, "stopped early")

enum status {
#define X(name, code, word) name = code,
    STATUS_LIST(X)
#undef X
};

#define MUST_CHECK __attribute__((warn_unused_result))

/* Word for a status, "ok" to "stopped early". Local. Never NULL. */
const char *status_word(enum status st);

/* Record a failure and return `st`. The first failure since status_clear() is kept, from whichever
 * thread it came; later ones are dropped (they are consequences). The message names the object, what
 * was found, what is allowed and what to do, on one line. Local; safe inside OpenMP regions. */
enum status status_fail(enum status st, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define fail(st, ...) status_fail((st), __FILE__, __LINE__, __VA_ARGS__)

/* The recorded message ("" if none), valid until the next fail() or status_clear(). Local. */
const char *status_message(void);
/* Source position "file:line" of the recorded failure ("" if none). Local. */
const char *status_where(void);
void status_clear(void);

/* Put text in front of the recorded message, for example the file being read. Local. */
void status_prefix(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define TRY(call) \
    do { \
        st = (call); \
        if (st != ST_OK) goto done; \
    } while (0)

/* malloc/calloc that report: NULL never comes back with ST_OK. Ownership passes to the caller, who
 * frees with free(). A count of zero yields a valid pointer. Local. */
MUST_CHECK enum status mem_alloc(void **out, size_t count, size_t item_bytes, const char *what);
#define NEW_ARRAY(pointer, count) mem_alloc((void **)&(pointer), (size_t)(count), sizeof *(pointer), #pointer)

#endif
