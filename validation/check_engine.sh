#!/usr/bin/env bash
# kind: check
# validation/check_engine.sh: do the pages of validation/engine still say what this build does? Idle shares of the
# pipeline schedules are played again and must be the table of schedules.md, to the digit; the tests that parity.md names
# must all pass (PARITY=0 leaves them out). --table prints the table.
set -u
cd "$(dirname "$0")/.." || exit
export B=${B:-build/release}
. tests/environment

# A row for each schedule, chunks, stages; a column for each number of micro-batches: played / formula.
table() {
    "$B/tests/tool_schedule" | awk -F'\t' 'NR > 1 {
        row = "| " $1 " | " $3 " | " $2 " |"
        if (row != last) { if (last) print last cells " " held " |"; cells = ""; last = row }
        cells = cells " " $6 " / " $7 " |"; held = $8 }
        END { print last cells " " held " |" }'
}
if [ "${1:-}" = --table ]; then table; exit; fi

bad=0
while IFS= read -r row; do
    grep -qxF -- "$row" validation/engine/schedules.md || { echo "validation/engine/schedules.md lacks: $row"; bad=1; }
done < <(table)
[ $bad = 0 ] && echo "schedules: $(table | wc -l) rows of four numbers of micro-batches are those of validation/engine/schedules.md"
[ "${PARITY:-1}" = 0 ] && exit $bad

mapfile -t names < <(sed -n 's/^| `\(test_[a-z_]*\)`.*/\1/p' validation/engine/parity.md)
tests/run "${names[@]}" || bad=1
exit $bad
