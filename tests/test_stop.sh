#!/usr/bin/env bash
# Programs that are asked to stop while they read cells: cytomill-analyze pca, score, report and cytomill-ingest.
# plan: ranks=1,3 limit=180
# TERM and INT to every rank and a stop file end a PCA of 20,000 cells between two blocks with exit 75, within seconds,
# with nothing under the final name; an ingest stops in its first pass (nothing kept) and in its second (what is
# written is gone on with, to the same bytes); the default stop file is OUT.stop.
set -u
. tests/job_checks
RANKS=${RANKS:-1}
cytomill-ingest tests/data/pbmc3k --out "$dir/pbmc" >"$dir/log" 2>&1 || fail "no atlas"
"$B/tests/tool_generate" atlas "$dir/pbmc" "$dir/atlas" 20000 2>"$dir/log" || fail "no large atlas"
"$B/tests/tool_generate" h5ad "$dir/pbmc" "$dir/cells" 12000 3 0 2>"$dir/log" || fail "no input files"

start() { # command...: in the background, its ranks are children of $launcher
    : >"$dir/log" # else the words of the last one are found
    mpirun -n "$RANKS" "$@" >"$dir/out" 2>"$dir/log" &
    launcher=$!
}
wait_for() { # what, command...: until it holds, while the job runs
    local what=$1; shift
    until "$@"; do
        kill -0 $launcher 2>/dev/null || { wait $launcher; fail "ended (exit $?) before $what"; }
        sleep 0.01
    done
}
ended_early() { # what
    local began=$SECONDS rc
    wait $launcher; rc=$?
    [ $rc = 75 ] || fail "$1: exit $rc instead of 75"
    [ $((SECONDS - began)) -lt 30 ] || fail "$1: took $((SECONDS - began)) s to stop"
    [ "$(grep -c 'stopped early, as asked' "$dir/log")" = 1 ] && ! grep -q 'error\[' "$dir/log" || fail "$1: does not say so"
}
told_cost() { grep -q 'TFLOP' "$dir/log"; }
for how in TERM INT stop; do
    start cytomill-analyze pca --atlas "$dir/atlas" --genes 3000 --out "$dir/pca.h5ad"
    wait_for "it began" told_cost
    case $how in
    stop) touch "$dir/pca.h5ad.stop" ;;
    *) mapfile -t ranks < <(pgrep -P $launcher); kill -"$how" "${ranks[@]}" ;;
    esac
    ended_early "pca, $how"
    [ -z "$(find "$dir" -maxdepth 1 -name 'pca.h5ad*' ! -name '*.stop')" ] || fail "pca, $how: something is left"
done
touch "$dir/page.html.stop"
start cytomill-analyze report --atlas "$dir/pbmc" --out "$dir/page.html"
ended_early report
[ ! -e "$dir/page.html" ] || fail "a stopped report left its page"

# ingest: in the first pass, which keeps nothing; in the second, which does
ingest() { start cytomill-ingest "$dir"/cells/*.h5ad --out "$dir/new" --set ingest.shard_rows=4096; }
touch "$dir/new.stop"
ingest; ended_early "ingest, first pass"
[ -z "$(find "$dir" -maxdepth 1 -name 'new*' ! -name '*.stop')" ] || fail "the first pass of ingest left something"
rm "$dir/new.stop"
ingest; wait_for "it wrote" [ -e "$dir/new.partial/plan" ]
touch "$dir/new.stop"; ended_early "ingest, second pass"
[ -d "$dir/new.partial" ] && [ ! -e "$dir/new" ] || fail "a stopped ingest left the wrong folder"
rm "$dir/new.stop"
cytomill-ingest "$dir"/cells/*.h5ad --out "$dir/new" --set ingest.shard_rows=4096 >"$dir/log" 2>&1 || fail "ingest did not go on"
grep -q 'going on with' "$dir/log" || fail "ingest began anew"
cytomill-ingest "$dir"/cells/*.h5ad --out "$dir/straight" --set ingest.shard_rows=4096 >"$dir/log" 2>&1 || fail "ingest"
diff -r "$dir/new" "$dir/straight" >"$dir/log" || fail "an ingest that was stopped has other bytes"
exit 0
