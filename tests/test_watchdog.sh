#!/usr/bin/env bash
# plan: ranks=2,3 limit=90
# A rank that does not come to an exchange, asleep or stopped, or a message that is not sent: one line for each rank
# names what it is in and its step, exit 8 after twice the limit; one that comes late is told and the job ends well;
# many exchanges that are together longer than the limit say nothing, and neither do the programs or a limit of 0.
# The same for a rank of cytomill-pretrain that is stopped in the middle of its training.
set -u
. tests/job_checks
last=$((RANKS - 1))
ranks() { # limit how: exit code into $rc
    timeout 30 mpirun -n "$RANKS" "$B/tests/tool_watchdog" "$@" >"$dir/log" 2>&1; rc=$?
}
lines() { # count pattern
    [ "$(grep -cE "$2" "$dir/log")" = "$1" ] || fail "not $1 times '$2'"
}
waiting() { # exchange of rank 0, the others but the last
    lines 1 "^tool: watchdog: rank 0 of $RANKS on .*: in $1 for [0-9]+ s, step 41$"
    [ "$RANKS" = 2 ] || lines 1 "^tool: watchdog: rank 1 of 3 on .*: in $2 for [0-9]+ s, step 41$"
}

ranks 1 well
[ $rc = 0 ] && [ ! -s "$dir/log" ] || fail "a normal run ended with $rc or said something"
ranks 0 late
[ $rc = 0 ] && [ ! -s "$dir/log" ] || fail "without a watchdog: $rc, or something was said"
ranks 1 late
[ $rc = 0 ] || fail "a rank that came late ended the job: $rc"
waiting comm_sum_i64 comm_sum_i64
lines 0 'ended by the watchdog'

ranks 0.5 sleep
[ $rc = 8 ] || fail "a rank that sleeps: exit $rc, not 8"
waiting comm_sum_i64 comm_sum_i64
lines 1 "rank $last of $RANKS on .*: in no exchange since [0-9]+ s, last: comm_barrier, step 41; others may wait for it$"
lines 1 "rank $last of $RANKS on .*without processor time: a file system"
grep -q 'ended by the watchdog, exit 8' "$dir/log" || fail "no word of the end"
ranks 0.5 stop
[ $rc = 8 ] || fail "a rank that is stopped: exit $rc, not 8"
waiting comm_sum_i64 comm_sum_i64
lines 1 "rank $last of $RANKS on .*: in no exchange since [0-9]+ s, last: comm_barrier, step 41; the process is stopped$"
ranks 0.5 send
[ $rc = 8 ] || fail "a message that is not sent: exit $rc, not 8"
waiting comm_receive comm_sum_i64

# training: the last rank is stopped after some steps
cytomill-ingest tests/data/pbmc3k --out "$dir/atlas" >"$dir/log" 2>&1 || fail "no atlas"
timeout 60 mpirun -n "$RANKS" cytomill-pretrain --atlas "$dir/atlas" --out "$dir/run" --set model.layers=2 --set model.width=32 \
    --set model.heads=2 --set model.value_width=16 --set model.min_genes=20 --set model.max_genes=128 --set model.drop_long_cells=false \
    --set train.batch=6 --set train.micro_batch=2 --set train.steps=1000000 --set train.evaluate_every=1000000 \
    --set train.reference_cells=500 --set run.watchdog_s=2 >"$dir/log" 2>&1 &
launcher=$!
rank_pid() { # rank
    local pid
    for pid in $(pgrep -f "cytomill-pretrain --atlas $dir/atlas"); do
        tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$pid" && return
    done
}
until [ "$(grep -c '"kind":"train"' "$dir/run/metrics.jsonl" 2>/dev/null)" -gt 9 ] 2>/dev/null; do
    kill -0 $launcher 2>/dev/null || fail "the training ended before it was disturbed"
    sleep 0.05
done
kill -STOP "$(rank_pid $last)"
wait $launcher; rc=$?
[ $rc = 8 ] || fail "a rank of a training that is stopped: exit $rc, not 8"
lines 1 "^cytomill-pretrain: watchdog: rank 0 of $RANKS on .*: in [a-z_]+ for [0-9]+ s, step [0-9]+$"
lines 1 "rank $last of $RANKS on .*, step [0-9]+; the process is stopped$"
grep -q 'ended by the watchdog, exit 8' "$dir/log" || fail "no word of the end of the training"
[ -z "$(find /dev/shm -name 'cytomill-*' -newer "$0" 2>/dev/null)" ] || fail "notes are left in /dev/shm"
exit 0
