#!/usr/bin/env bash
# Stall of the training loop by a checkpoint of cellfm-80m (963 MB), written at once and beside the training: by how much
# the loop takes longer. A cell of 32 genes a rank, so that steps are short beside the write, and a checkpoint every 8
# steps. Stall = the steps from a checkpoint's begin to one after its finish, less as many times the median of the quiet
# steps within 8 of them; medians over checkpoints, with a standard error from their quartiles, beside the same sum over
# quiet steps alone, which must be none. One rank leaves a core to the writing thread, two leave none. Bar: 5 % of the
# stall of writing at once. Other programs' share of the processors is told: it should be 0.
# BENCH_CHECKPOINTS (24 beside, half as many at once), BENCH_RANKS ("1 2"), BENCH_GENES (32: of a cell), BENCH_DIR (/tmp: the
# file system written to).
# Metrics stay in build/bench/checkpoint.
set -u
. tests/environment
need_cores 2
bind_ranks
dir=$(mktemp -d "${BENCH_DIR:-/tmp}/cytomill-bench.XXXXXX"); trap 'rm -rf "$dir"' EXIT
cytomill-ingest tests/data/pbmc3k --out "$dir/atlas" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
every=8 genes=${BENCH_GENES:-32} beside=${BENCH_CHECKPOINTS:-24} out=build/bench/checkpoint
mkdir -p $out

train() { # ranks checkpoints async
    local bound=core; [ "$1" -gt 1 ] || bound=none # OpenMP binds the one thread, and leaves the other core to the rank
    OMPI_MCA_hwloc_base_binding_policy=$bound mpirun -n "$1" cytomill-pretrain --config configs/cellfm-80m.yaml \
        --atlas "$dir/atlas" --out "$dir/run" --set train.batch="$1" --set train.micro_batch=1 --set model.max_genes=$genes \
        --set model.min_genes=$genes --set model.drop_long_cells=false --set train.steps=$((every * ($2 + 1))) \
        --set train.checkpoint_every=$every --set train.checkpoint_async="$3" --set train.evaluate_every=1000000 \
        --set data.held_out=0 --set train.reference_cells=1 --set train.final_cells=1 >"$dir/log" 2>&1 ||
        { cat "$dir/log"; exit 1; }
    mv "$dir/run/metrics.jsonl" "$out/$1-$3.jsonl"
    rm -rf "$dir/run"
}
cat >"$dir/tell.py" <<'PY'
import json, math, statistics, sys

class Run:
    def __init__(self, path):
        rows = [json.loads(line) for line in open(path)]
        end = {r["step"]: r["time_s"] for r in rows if r["kind"] == "train"}
        self.took = {s: end[s] - end[s - 1] for s in end if s > 2}
        self.saved = [r for r in rows if r["kind"] == "checkpoint" and r["saved_step"] < max(end)]
        self.spans = [range(r["saved_step"] + 1, r["step"] + 3) for r in self.saved]
        if max(map(len, self.spans)) > 6: sys.exit("a checkpoint was still on its way 4 steps after it was begun")
        self.quiet = set(self.took).difference(*self.spans)

    def longer(self, span):
        around = [self.took[s] for s in self.quiet.difference(span) if span[0] - 8 <= s <= span[-1] + 8]
        return sum(self.took[s] for s in span) - len(span) * statistics.median(around)

def middle(x):
    low, median, high = statistics.quantiles(x, n=4)
    return median, 0.93 * (high - low) / math.sqrt(len(x))

ranks, others = sys.argv[1], float(sys.argv[2])
once, beside = Run(f"{sys.argv[3]}/{ranks}-false.jsonl"), Run(f"{sys.argv[3]}/{ranks}-true.jsonl")
at_once, at_once_error = middle([once.longer(span) for span in once.spans])
stall, error = middle([beside.longer(span) for span in beside.spans])
none, none_error = middle([once.longer(range(span[0] + 3, span[0] + 7)) for span in once.spans])
ratio, ratio_error = stall / at_once, math.hypot(error, stall / at_once * at_once_error) / at_once

def row(what, value, unit="s", bar="-", holds="-"):
    where = ("1 rank, a core left" if ranks == "1" else f"{ranks} ranks, no core left") + f", {sys.argv[4]} genes"
    print(f"BENCH\tcheckpoint, {where}: {what}\t{value}\t{unit}\t{bar}\t{holds}")

row("a step without", f"{statistics.median(once.took[s] for s in once.quiet):.3f}")
row(f"stall, written at once (error {at_once_error:.3f})", f"{at_once:.3f}")
row(f"stall, written beside (error {error:.3f})", f"{stall:.3f}")
row(f"the same where nothing is written (error {none_error:.3f})", f"{none:.3f}")
row("in the calls of begin, hold and finish", f"{statistics.median(r['stall_s'] for r in beside.saved):.3f}")
row("processor time of the writing thread", f"{statistics.median(r['thread_s'] for r in beside.saved):.3f}")
row("processor time of other programs", f"{others:.2f}", "of a core")
row(f"stall beside over at once (error {ratio_error:.3f})", f"{ratio:.3f}", "ratio", "<= 0.05", "yes" if ratio <= 0.05 else "no")
PY
jiffies() { awk '/^cpu / { print $2 + $3 + $4 }' /proc/stat; } # of all programs, hundredths of a second
own() { awk '{ print $16 + $17 }' /proc/$$/stat; }               # of what this script has started and waited for
for ranks in ${BENCH_RANKS:-1 2}; do
    before=$(jiffies) own=$(own) begin=$SECONDS
    train "$ranks" $((beside / 2)) false
    train "$ranks" "$beside" true
    others=$(awk -v all=$(($(jiffies) - before)) -v own=$(($(own) - own)) -v s=$((SECONDS - begin)) 'BEGIN { print (all - own) / 100 / s }')
    python3 "$dir/tell.py" "$ranks" "$others" $out "$genes" || exit 1
done
