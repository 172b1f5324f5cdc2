#!/usr/bin/env bash
# plan: limit=60
# Ranks started unlike: another binary (exit 8), another configuration (exit 3, the key is named), on 2 and 3 ranks; one
# error line each, before anything is done.
set -u
. tests/job_checks
cp "$B/bin/cytomill-ingest" "$dir/cytomill-ingest"
printf x >>"$dir/cytomill-ingest"
arguments=(tests/data/pbmc3k --out "$dir/atlas")
unlike() { # ranks of the first kind, exit code, words, program and option of the others...
    local first=$1 code=$2 words=$3; shift 3
    mpirun -n "$first" cytomill-ingest "${arguments[@]}" : -n 1 "$@" >"$dir/log" 2>&1
    check_error $? "$code" "$words" "$*"
    [ -z "$(find "$dir" -name 'atlas*')" ] || fail "something was written"
}
for n in 1 2; do
    unlike $n 8 "the program's file differs among the ranks: .* on rank 0 on .* on rank $n on " "$dir/cytomill-ingest" "${arguments[@]}"
    unlike $n 3 "rank $n of .*ingest.shard_rows is '128' here and '65536' on rank 0" cytomill-ingest "${arguments[@]}" --set ingest.shard_rows=128
    unlike $n 3 "run.input is '.*/a,' here and 'tests/data/pbmc3k,\?' on rank 0" cytomill-ingest "$dir/a" --out "$dir/atlas"
done
exit 0
