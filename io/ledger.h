/* The ledger of a long output: which numbered chunks of it are done.
 *
 * An output is laid out as NAME.partial; beside it NAME.partial.ledger holds one 16-byte record a chunk: a hash of
 * the chunk's content and a check of the record itself. What a chunk contains depends on its number alone, so any rank
 * of any job may do any chunk, and one done twice has the same bytes. Data is written first, the record after:
 * a process killed anywhere leaves chunks that are done and chunks that are not, never one in between. Power failure may
 * lose data whose record was kept; the hash tells, when a resumed run reads it back.
 *
 *     TRY(ledger_open("e.h5ad.partial.ledger", chunks, key, &ledger));
 *     if (!ledger_is_done(ledger, c)) { write the chunk; TRY(ledger_mark(ledger, c, hash)); }
 *     if (ledger_done_count(ledger) == chunks) rename the output, then remove the ledger
 *
 * Everything here is local to a process; ranks share the file. */
#ifndef CYTOMILL_IO_LEDGER_H
#define CYTOMILL_IO_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

struct ledger;

/* Open, or create with nothing done. `key` names all that the content depends on (model, input,
 * options); a ledger with another key or chunk count is ST_OUTPUT: that output belongs to another job. */
MUST_CHECK enum status ledger_open(const char *path, int64_t chunks, const char key[SHA256_HEX], struct ledger **out);
void ledger_close(struct ledger **ledger);

/* As of the last open, refresh, look or mark. */
bool ledger_is_done(const struct ledger *ledger, int64_t chunk);
int64_t ledger_done_count(const struct ledger *ledger);
/* Content hash of a done chunk. */
uint64_t ledger_hash(const struct ledger *ledger, int64_t chunk);

/* Read what other processes have marked meanwhile: all records, or one. ST_OUTPUT. */
MUST_CHECK enum status ledger_refresh(struct ledger *ledger);
MUST_CHECK enum status ledger_look(struct ledger *ledger, int64_t chunk, bool *done);

/* Mark a chunk done: its bytes are written. ST_OUTPUT. */
MUST_CHECK enum status ledger_mark(struct ledger *ledger, int64_t chunk, uint64_t content_hash);
/* Let all marks reach the disk. ST_OUTPUT. */
MUST_CHECK enum status ledger_sync(struct ledger *ledger);
/* Take a mark back: the content did not match its hash. ST_OUTPUT. */
MUST_CHECK enum status ledger_unmark(struct ledger *ledger, int64_t chunk);

/* Make `temporary` appear as `path` unless that exists already, atomically and on NFS too (link);
 * `temporary` is gone afterwards. *mine tells whether it was ours that appeared. ST_OUTPUT. */
MUST_CHECK enum status ledger_publish(const char *temporary, const char *path, bool *mine);

#endif
