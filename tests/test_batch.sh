#!/usr/bin/env bash
# The batch files under a real Slurm, from an installed prefix, with a program that fails to order.
# plan: limit=240
# Exit 75 is requeued and goes on in the same log, however often and also without a newer checkpoint (the last
# evaluation of a training), but not of analyze, which begins anew; a failure (one rank killed while others sleep) ends the
# step and is tried three times; a newer checkpoint starts that count again; a cancelled job stays cancelled; a
# job ended by a stop file is held.
set -eu
. tests/environment
work=$(mktemp -d /tmp/cytomill-batch.XXXXXX)
trap 'tests/slurm/cluster stop "$work/slurm"; rm -rf "$work"' EXIT
tests/slurm/cluster start "$work/slurm" || exit $?
export SLURM_CONF=$work/slurm/slurm.conf OMP_PROC_BIND=false REAL=$PWD/$B/bin/cytomill

mkdir -p "$work/bin" "$work/share/cytomill"
cp -r jobs "$work/share/cytomill/jobs"
cat > "$work/bin/cytomill" <<'FAKE'
#!/usr/bin/env bash
[ "$1" = config ] && exec "$REAL" "$@"
trap : TERM # as our programs do: a peer's exit 75 makes srun end the step
out=$("$REAL" config run.out "${@:2}") n=${SLURM_RESTART_COUNT:-0}
[ "$SLURM_PROCID" = 0 ] && echo "attempt $n of $SLURM_NTASKS ranks, $OMP_NUM_THREADS threads"
read -ra plan <<< "$PLAN"
case ${plan[$n]} in
ok) exit 0 ;;
kill) trap - TERM; [ "$SLURM_PROCID" = 1 ] && sleep 1 && kill -9 $$; sleep 300 ;;
rows) mkdir -p "$out.partial"; touch "$out.partial/obs-$n.records"; sleep 1; exit 7 ;;
saved) touch "$out/checkpoint-$n.h5"; sleep 1; exit 7 ;;
wait) trap 'exit 75' TERM; for _ in {1..600}; do sleep 0.1; done ;;
stop) touch "$out/stop"; exit 75 ;;
stop_embed) touch "$out.stop"; exit 75 ;;
*) exit "${plan[$n]}" ;;
esac
FAKE
chmod +x "$work/bin/cytomill"

submit() { # name plan [verb]: the job's id into $id
    local words=()
    [ "${3:-}" = analyze ] && words=(report)
    mkdir -p "$work/$1"
    printf 'run:\n  out: %s\n' "$work/$1" > "$work/$1.yaml"
    id=$(cd "$work" && PLAN=$2 sbatch --parsable --nodes=2 --oversubscribe --job-name="$1" --output="$work/$1.log" \
        "$work/share/cytomill/jobs/${3:-pretrain}.sbatch" "${words[@]}" "$work/$1.yaml" --fresh)
}
field() { scontrol show job -o "$1" | sed -n "s/.* $2=\([^ ]*\).*/\1/p"; } # job field
wait_for() { # job states: until it is in one of them and at rest
    for _ in $(seq 400); do
        case " $2 " in *" $(field "$1" JobState) "*) return ;; esac
        sleep 0.5
    done
    echo "job $1 is $(field "$1" JobState), expected $2"; cat "$work"/*.log; exit 1
}
expect() { # name file pattern count
    [ "$(grep -cE "$3" "$2")" = "$4" ] || { echo "$1: expected $4 times '$3' in:"; cat "$2"; exit 1; }
}
same() { [ "$2" = "$3" ] || { echo "$1: found '$2', expected '$3'"; exit 1; }; }

submit early '75 ok'; early=$id
submit killed 'kill kill kill ok'; killed=$id
submit saved 'kill saved kill kill ok'; saved=$id
submit rows 'kill rows kill kill ok' ingest; rows=$id
submit late '75 75 75 75 ok'; late=$id
submit page '75 75 75 ok' analyze; page=$id
submit stopped 'stop ok'; stopped=$id
submit embedded 'stop_embed ok' embed; embedded=$id
submit cancelled 'wait ok'; cancelled=$id
for _ in $(seq 60); do grep -q 'attempt 0' "$work/cancelled.log" 2>/dev/null && break; sleep 0.5; done
scancel "$cancelled"

wait_for "$early" COMPLETED
expect early "$work/early.log" '^attempt [01] of 2 ranks, 1 threads' 2
expect early "$work/early.log" 'restart 1, .* --fresh --set run.fresh=false' 1
[ ! -e "$work/early.attempts" ] || { echo "early: its count of attempts was left"; exit 1; }
wait_for "$killed" FAILED
same killed "$(field "$killed" Restarts)" 2
expect killed "$work/killed.log" 'given up' 1
wait_for "$saved" COMPLETED
same saved "$(field "$saved" Restarts)" 4
wait_for "$rows" COMPLETED
same rows "$(field "$rows" Restarts)" 4
wait_for "$late" COMPLETED
same late "$(field "$late" Restarts)" 4
wait_for "$page" FAILED
expect page "$work/page.log" 'given up' 1
wait_for "$cancelled" CANCELLED
same cancelled "$(field "$cancelled" Restarts)" 0
wait_for "$stopped" 'REQUEUE_HOLD PENDING'
same stopped "$(field "$stopped" Reason)" job_requeued_in_held_state
wait_for "$embedded" 'REQUEUE_HOLD PENDING'
same embedded "$(field "$embedded" Reason)" job_requeued_in_held_state

# A configuration that cannot be read fails at once: there is no run folder to count attempts in.
printf 'train:\n  stepz: 3\n' > "$work/wrong.yaml"
wrong=$(PLAN=ok sbatch --parsable --nodes=2 --oversubscribe --output="$work/wrong.log" "$work/share/cytomill/jobs/pretrain.sbatch" "$work/wrong.yaml")
wait_for "$wrong" FAILED
expect wrong "$work/wrong.log" "wrong.yaml:2:3: unknown key 'train.stepz'; did you mean 'train.steps'" 1
