/* Which cells take part: the expression of --cells.
 *
 *     expression := term { or term }          term := factor { and factor }
 *     factor := not factor | ( expression ) | name | name op value | name in ( value, … )
 *     op := == != < <= > >=                   value := 'text' | "text" | number | true | false
 *
 * Names with other characters than letters, digits, _ . and - stand in `backquotes`. A name alone is a
 * boolean column. A comparison with a missing value is false, also with != ; `not` turns the result
 * round. Text compares by == != in; a number matches a text column as it is spelled.
 *
 *     TRY(select_parse("qc_n_features >= 200 and cell_type in ('B', 'NK')", &s));
 *     for each select_column_name(s, k): read the column
 *     TRY(select_evaluate(s, columns, count, keep));
 *     select_destroy(&s); */
#ifndef CYTOMILL_CELL_SELECT_H
#define CYTOMILL_CELL_SELECT_H

#include <stdint.h>

#include "cell/feature.h"

struct select;

/* Parse. "" selects everything. ST_CONFIG: position, what was found, what is expected. Local. */
MUST_CHECK enum status select_parse(const char *expression, struct select **out);
void select_destroy(struct select **select);

/* Distinct columns the expression names. Borrowed. Local. */
int select_column_count(const struct select *select);
const char *select_column_name(const struct select *select, int index);
/* ST_CONFIG with position and nearest name if one of them is not among names[count]. Local. */
MUST_CHECK enum status select_check_names(const struct select *select, const char *const *names, int count);

/* keep[i] = 1 if row i is selected, else 0, for count rows. columns[k] is column k of the list above,
 * with columns[k].count == count. ST_CONFIG: a comparison that its column cannot do. Local. */
MUST_CHECK enum status select_evaluate(const struct select *select, const struct column *columns, int64_t count,
                                       uint8_t *keep);

#endif
