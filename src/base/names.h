/* A map from names to whole numbers: gene symbols, ids, barcodes, column names.
 *
 *     struct names *n = NULL;
 *     TRY(names_create(&n, 1000));
 *     TRY(names_add(n, "TP53", 7, &held));      held = 7, or what was there before
 *     int64_t row = names_find(n, "TP53");       -1 if absent */
#ifndef CYTOMILL_BASE_NAMES_H
#define CYTOMILL_BASE_NAMES_H

#include <stdint.h>

#include "base/status.h"

struct names;

/* Empty, with room for about `expected` names; it grows. ST_MEMORY. Local. */
MUST_CHECK enum status names_create(struct names **out, int64_t expected);
void names_destroy(struct names **names);

/* Add a name (copied) with a value >= 0. If it is there already nothing changes. *held (may be
 * NULL) gets the value now stored. Local. */
MUST_CHECK enum status names_add(struct names *names, const char *name, int64_t value, int64_t *held);
/* Change the value of a name that is there; a name that is not is added. Local. */
MUST_CHECK enum status names_set(struct names *names, const char *name, int64_t value);
/* Its value, -1 if it is not there. Local. */
int64_t names_find(const struct names *names, const char *name);
int64_t names_count(const struct names *names);

#endif
