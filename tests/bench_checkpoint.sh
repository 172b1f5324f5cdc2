#!/usr/bin/env bash
# Stall of the training loop by a checkpoint: cellfm-80m on PBMC 3k, a cell per rank, one bound thread each; 8 steps
# without checkpoints, with one every 2 steps written at once, and with one written beside the training. Stall = added
# time of the loop over the three checkpoints in it; each time is the least of the rounds (other work on the machine
# only adds). One rank leaves a core to the writing thread, two leave none. Bar: 5 % of the stall of writing at once.
# BENCH_ROUNDS (3), BENCH_DIR (/tmp: the file system that is written to).
set -u
. tests/environment
export OMP_NUM_THREADS=1 OMP_PROC_BIND=close OMP_PLACES=cores
export OMPI_MCA_hwloc_base_binding_policy=core OMPI_MCA_mpi_yield_when_idle=0
[ "$(nproc --all)" -ge 2 ] || { echo "needs two cores"; exit 77; }
dir=$(mktemp -d "${BENCH_DIR:-/tmp}/cytomill-bench.XXXXXX"); trap 'rm -rf "$dir"' EXIT
cytomill-ingest tests/data/pbmc3k --out "$dir/atlas" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

declare -A least stall
loop_s() { # ranks, every, beside: seconds from the end of step 1 to the end of step 8; of a checkpoint in its calls
    local out=$dir/run
    mpirun -n "$1" cytomill-pretrain --config configs/cellfm-80m.yaml --atlas "$dir/atlas" --out "$out" \
        --set train.batch="$1" --set train.steps=8 --set train.checkpoint_every="$2" --set train.checkpoint_async="$3" \
        --set train.evaluate_every=1000000 --set data.held_out=0 --set train.reference_cells=1 --set train.final_cells=1 \
        >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
    python3 - "$out/metrics.jsonl" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
end = {r["step"]: r["time_s"] for r in rows if r["kind"] == "train"}
told = [r["stall_s"] for r in rows if r["kind"] == "checkpoint" and r["saved_step"] < 8]
print(end[8] - end[1], sum(told) / max(1, len(told)))
PY
    rm -rf "$out"
}
for ranks in 1 2; do
    for _ in $(seq "${BENCH_ROUNDS:-3}"); do
        for how in "none 1000000 false" "at-once 2 false" "beside 2 true"; do
            read -r name every beside <<<"$how"
            read -r seconds told < <(loop_s $ranks "$every" "$beside")
            [ -n "$seconds" ] || exit 1
            echo "$ranks ranks, $name: $seconds s, calls $told s"
            key=$ranks-$name
            least[$key]=$(awk -v a="${least[$key]:-1e9}" -v b="$seconds" 'BEGIN { print (b < a ? b : a) }')
            stall[$key]=$(awk -v a="${stall[$key]:-1e9}" -v b="$told" 'BEGIN { print (b < a ? b : a) }')
        done
    done
    awk -v n="${least[$ranks-none]}" -v o="${least[$ranks-at-once]}" -v b="${least[$ranks-beside]}" -v r=$ranks \
        -v told="${stall[$ranks-beside]}" 'BEGIN { once = (o - n) / 3; beside = (b - n) / 3; if (beside < 0) beside = 0
        ratio = beside / once; s = r > 1 ? "s" : ""
        printf "BENCH\tcheckpoint of cellfm-80m written at once, %d rank%s: stall\t%.3f\ts\t-\t-\n", r, s, once
        printf "BENCH\tcheckpoint of cellfm-80m beside the training, %d rank%s: stall\t%.3f\ts\t-\t-\n", r, s, beside
        printf "BENCH\tof it in the calls of begin, hold and finish, %d rank%s\t%.4f\ts\t-\t-\n", r, s, told
        printf "BENCH\tstall beside over at once, %d rank%s\t%.3f\tratio\t<= 0.05\t%s\n", r, s, ratio, (ratio <= 0.05 ? "yes" : "no") }'
done
