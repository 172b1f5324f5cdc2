/* Which gene a feature is: by rule, in this order, and never by guess.
 *
 *   exact id          the feature has an Ensembl id (of its own, or as its name) that HGNC knows
 *   exact symbol      its symbol is approved
 *   earlier symbol    its symbol was once that of one gene
 *   alias             its symbol is an alias of one gene
 *
 * The last two rename, and only when the gene is not itself in the file and no other feature claims
 * it. A name of several genes, or a gene claimed by several names, stays unmapped and is listed.
 * Where id and symbol name different genes the id wins and the pair is listed. Features with an id of
 * another species are left alone, as are repeated names without ids. Nothing is summed: two
 * features of one gene stay two. */
#ifndef CYTOMILL_CELL_IDENTITY_H
#define CYTOMILL_CELL_IDENTITY_H

#include "base/text.h"
#include "cell/feature.h"
#include "cell/hgnc.h"

enum { MAP_RULE_COUNT = MAP_AMBIGUOUS + 1 };

/* What happened to one table; zero-initialise, tables may be added up. The lists are TSV lines. */
struct identity_report {
    int64_t by_rule[MAP_RULE_COUNT];
    int64_t conflict_count, repeated_count;
    struct text ambiguous; /* name, why */
    struct text conflicts; /* name, id, symbol of the id, symbol given, id of that symbol */
    struct text repeated;  /* name, how often, "unique ids" or "no ids" */
};
void identity_report_free(struct identity_report *report);

/* Cut the version off an Ensembl id in place: "ENSG00000121410.12" → "ENSG00000121410"; other text
 * is left alone. Returns whether it is an Ensembl gene id of any species. Local. */
bool identity_trim_id(char *id);

/* Map a table of one source. In: name, id ("" if none), symbol (the source's, "" if it only has a
 * name). Out: id (given or mapped), symbol and hgnc (approved, "" if unmapped), biotype and
 * chromosome where the source had none, rule. `report` may be NULL. ST_INPUT: an id that stands twice
 * in the table; ST_MEMORY. Local; cost O(features). */
MUST_CHECK enum status identity_assign(const struct hgnc *hgnc, struct feature_table *table,
                                       struct identity_report *report);

/* The key under which features of several sources are one: the id, else the name. Borrowed. Local. */
static inline const char *identity_key(const struct feature *f) { return *f->id ? f->id : f->name; }

#endif
