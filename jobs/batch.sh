# shellcheck shell=bash
# Sourced by the .sbatch files: batch_run VERB CONFIG [OPTION...] runs one program as MPI ranks of this Slurm
# job and puts the job back in the queue when it stopped before its end.
#   exit 0    done
#   exit 75   stopped early with a good checkpoint (the signal before the time limit): always requeued; analyze,
#             which keeps nothing of an unfinished run, counts as others do
#   others    requeued until three in a row brought nothing newer (checkpoint, ledger, rows of an atlas)
# Programs come from the prefix or the source tree these files lie in, else from PATH.

batch_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for folder in "$batch_folder/../../../bin" "$batch_folder/../build/release/bin"; do
    [ -x "$folder/cytomill" ] && PATH=$(cd "$folder" && pwd):$PATH && break
done

# Cores and threads of a rank: all CPUs the job has on a node, shared by its ranks there; one OpenMP thread
# per core, bound (two unbound threads were seen sharing one core for seconds). BLAS runs inside our threads.
batch_threads() {
    local tasks=${SLURM_NTASKS_PER_NODE:-${SLURM_TASKS_PER_NODE:-1}} siblings
    siblings=$(tr ',-' '  ' < /sys/devices/system/cpu/cpu0/topology/thread_siblings_list 2>/dev/null | wc -w)
    cpus=${SLURM_CPUS_PER_TASK:-$((${SLURM_CPUS_ON_NODE:-1} / ${tasks%%[^0-9]*}))}
    [ "$cpus" -ge 1 ] || cpus=1
    threads=$((cpus / (siblings > 1 ? siblings : 1)))
    [ "$threads" -ge 1 ] || threads=1
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads} OMP_PROC_BIND=${OMP_PROC_BIND:-close} OMP_PLACES=${OMP_PLACES:-cores}
    export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
}

# Has this attempt saved anything? $attempts is as old as the attempt.
batch_progressed() {
    find "$out" "$out.partial" "$out".partial* \( -name 'checkpoint-*.h5' -o -name '*ledger*' -o -name 'obs-*.records' \) -newer "$attempts" 2>/dev/null | grep -q .
}

# A job that someone cancelled stays cancelled (Slurm shows it COMPLETING, without the reason TimeLimit), one
# that was preempted is Slurm's to requeue; one that a stop file ended waits, held, for its release.
batch_requeue() { # reason
    local how=requeue
    if ! scontrol show job -o "$SLURM_JOB_ID" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
        echo "batch: job $SLURM_JOB_ID: $1; cancelled or preempted, so not requeued here"
        return
    fi
    [ -e "$stop_file" ] && how=requeuehold
    echo "batch: job $SLURM_JOB_ID, $(date -Is): $1: $how"
    [ $how = requeue ] || echo "batch: remove $stop_file, then scontrol release $SLURM_JOB_ID"
    scontrol $how "$SLURM_JOB_ID" || echo "batch: scontrol $how refused; submit the same command again to go on"
}

# $attempts holds the number of failures in a row that saved nothing.
batch_failed() { # exit code
    local failures=0
    batch_progressed || failures=$(($(cat "$attempts") + 1))
    if [ "$failures" -ge 3 ]; then
        echo "batch: job $SLURM_JOB_ID: exit $1, the third failure in a row without a newer checkpoint: given up"
        rm -f "$attempts"
    else
        echo "$failures" > "$attempts"
        batch_requeue "exit $1 ($failures in a row without a newer checkpoint)"
    fi
}

batch_run() { # verb config option...
    local verb=$1 config=${2:-} rc out stop_file attempts cpus threads
    [ -n "$config" ] || { echo "usage: sbatch ${verb%% *}.sbatch CONFIG [OPTION...]" >&2; return 2; }
    shift 2
    # A restarted job finds its own work: that is no longer a fresh start.
    [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && set -- "$@" --set run.fresh=false
    out=$(cytomill config run.out --config "$config" "$@") || return
    [ -n "$out" ] || { echo "batch: $config: run.out is not set; name there what to write, or give --out" >&2; return 3; }
    stop_file=$(cytomill config run.stop_file --config "$config" "$@")
    case $verb in pretrain | sweep) stop_file=${stop_file:-$out/stop} ;; *) stop_file=${stop_file:-$out.stop} ;; esac
    batch_threads
    attempts=$out.attempts
    mkdir -p "$(dirname "$out")"
    if [ -e "$attempts" ]; then touch "$attempts"; else echo 0 > "$attempts"; fi
    echo "batch: job ${SLURM_JOB_ID:-none}, restart ${SLURM_RESTART_COUNT:-0}, $(date -Is): cytomill $verb --config $config $*"
    # The signal before the time limit and scancel reach the ranks; this shell waits for their good order.
    trap : TERM USR1
    # Slurm's PMIx plugin by default takes a ring for Open MPI's exchange of addresses and a tree for the barrier after it,
    # and then lets a rank out of MPI_Init before others can take messages: in 22.05 on four nodes 20 of 280 starts
    # died there, with a jump to nil. With one kind for both none of 280 did.
    export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-tree}
    # shellcheck disable=SC2086 # a verb may be two words: "analyze report"
    srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$cpus" cytomill $verb --config "$config" "$@"
    rc=$?
    case $rc in
    0) rm -f "$attempts" ;;
    75)
        case $verb in
        analyze*) batch_failed 75 ;;
        *) echo 0 > "$attempts"; batch_requeue "stopped early with a good checkpoint" ;;
        esac ;;
    *) batch_failed "$rc" ;;
    esac
    return $rc
}
