#!/usr/bin/env bash
# Weak scaling of a training step from 1 to 2 ranks over each axis of the mesh: 8 blocks of width 256, PBMC 3k, 8 cells a
# rank in micro-batches of one, a bound thread each; optimiser, exchange and messages included. Cells per second over
# those of one rank: two replicas, and two stages under 1f1b and zb-h1, of which the schedule alone allows 2 x 16 / 17 and
# more. Median of the steps after the first, of three runs of each in turn.
set -u
. tests/environment
need_cores 2
bind_ranks
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cytomill-ingest tests/data/pbmc3k --out "$dir/atlas" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
cat >"$dir/model.yaml" <<'YAML'
run: {precision: fp32, seed: 1}
model: {name: scaling, layers: 8, width: 256, heads: 8, max_genes: 256, drop_long_cells: false}
data: {held_out: 0}
train: {steps: 6, micro_batch: 1, rate: 1e-4, evaluate_every: 1e6, checkpoint_every: 1e6, reference_cells: 1}
YAML

train() { # name ranks option...: its rates are added to those of its name
    local name=$1 ranks=$2; shift 2
    rm -rf "$dir/run"
    mpirun -n "$ranks" cytomill-pretrain --config "$dir/model.yaml" --atlas "$dir/atlas" --out "$dir/run" \
        --set train.batch=$((8 * ranks)) "$@" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
    sed -n 's/.*"kind":"train","step":\([0-9]*\).*"cells_per_s":\([0-9.e+-]*\).*/\1 \2/p' "$dir/run/metrics.jsonl" |
        awk '$1 > 1 { print $2 }' >>"$dir/rate-$name"
}
for _ in 1 2 3; do
    train one 1
    train replicas 2
    train 1f1b 2 --set mesh.pipe=2
    train zb-h1 2 --set mesh.pipe=2 --set mesh.schedule=zb-h1
done
median() { sort -g "$dir/rate-$1" | awk '{ x[NR] = $1 } END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'; }
one=$(median one)
row() { # name what bar
    awk -v a="$one" -v b="$(median "$1")" -v what="$2" -v bar="$3" 'BEGIN { r = b / a
        printf "BENCH\t%s, 16 cells\t%.3f\tcells/s\t-\t-\n", what, b
        printf "BENCH\t%s, weak scaling 1 to 2 ranks\t%.3f\tratio\t>= %.2f\t%s\n", what, r, bar, (r >= bar ? "yes" : "no") }'
}
printf 'BENCH\ttraining 8 blocks of width 256, one rank, 8 cells\t%.3f\tcells/s\t-\t-\n' "$one"
row replicas "training 8 blocks of width 256, two replicas" 1.6
row 1f1b "training 8 blocks of width 256, two stages, 1f1b" 1.6
row zb-h1 "training 8 blocks of width 256, two stages, zb-h1" 1.6
