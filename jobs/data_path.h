/* Where the files that ship with the programs lie: configs/… in the source tree, or
 * PREFIX/share/cytomill/configs/… once installed. */
#ifndef CYTOMILL_JOBS_DATA_PATH_H
#define CYTOMILL_JOBS_DATA_PATH_H

#include "base/status.h"

/* Path of a shipped file, given as in the source tree ("configs/genes/vocabulary.tsv.gz"). Tried in
 * order: $CYTOMILL_SHARE, BIN/../share/cytomill, BIN/../../.. (the build tree), where BIN is the
 * folder of the running program. The caller frees *out. ST_CONFIG names the places. Local. */
MUST_CHECK enum status data_path_find(const char *name, char **out);

/* Path of the user's gene table (data.vocabulary): as given, or, where a relative path leads to nothing from
 * here, under $CYTOMILL_DATA, the folder of data that do not ship; with none given, the shipped vocabulary.
 * The caller frees *out. ST_CONFIG as above. Local. */
MUST_CHECK enum status data_path_vocabulary(const char *given, char **out);

#endif
