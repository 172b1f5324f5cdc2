#!/usr/bin/env bash
# plan: ranks=2,3 limit=60
# A rank that does not come to an exchange, asleep or stopped, or a message that is not sent: one line for each rank
# names what it is in and its step, exit 8 after twice the limit; one that comes late is told and the job ends well;
# many exchanges that are together longer than the limit say nothing, and neither do the programs or a limit of 0.
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
[ -z "$(find /dev/shm -name 'cytomill-*' -newer "$0" 2>/dev/null)" ] || fail "notes are left in /dev/shm"
exit 0
