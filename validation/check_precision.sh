#!/usr/bin/env bash
# kind: check
# validation/check_precision.sh: does training in bf16 learn as training in fp32 does? 4 ERetNet blocks of width 128
# on PBMC 3k, the same seed, cells and order, STEPS (1,000) steps in either precision; mean training loss of the last tenth of the steps, bar 1 %.
# Curves go to OUT/precision.tsv (build/validation/precision), means of each tenth. The same command resumes what was stopped.
#   RANKS=1 STEPS=1000 MODEL="--set model.width=256 --set model.heads=8" validation/check_precision.sh
set -u
cd "$(dirname "$0")/.." || exit
export B=${B:-build/release}
. tests/environment
MODEL=${MODEL:---set model.width=128 --set model.heads=4} STEPS=${STEPS:-1000} RANKS=${RANKS:-1}
out=${OUT:-build/validation/precision}
mkdir -p "$out"
[ -e "$out/atlas/index.h5" ] || cytomill-ingest tests/data/pbmc3k --out "$out/atlas" || exit 1

train() { # precision
    # shellcheck disable=SC2086
    mpirun -n "$RANKS" cytomill-pretrain --config configs/demo.yaml --atlas "$out/atlas" --out "$out/$1" --seed 1 $MODEL \
        --set run.precision="$1" --set train.steps="$STEPS" --set train.final_cells=0 >"$out/$1.log" 2>&1 || { tail -3 "$out/$1.log"; exit 1; }
}
train fp32 & first=$!
train bf16 || exit 1
wait $first || exit 1

losses() { sed -n 's/.*"kind":"train","step":\([0-9]*\).*"loss":\([0-9.e+-]*\).*/\1 \2/p' "$out/$1/metrics.jsonl" | sort -n -u -k1,1; }
join <(losses fp32 | sort -k1,1) <(losses bf16 | sort -k1,1) | sort -n | awk -v steps="$STEPS" -v OFS='\t' '
    { part = int(($1 - 1) * 10 / steps); fp32[part] += $2; bf16[part] += $3; n[part]++; all++ }
    END {
        print "steps", "fp32", "bf16", "bf16 over fp32"
        for (i = 0; i < 10; i++) print i * steps / 10 + 1 " to " (i + 1) * steps / 10, fp32[i] / n[i], bf16[i] / n[i], bf16[i] / fp32[i]
        if (all != steps) { print "only " all " of " steps " steps are in both curves" > "/dev/stderr"; exit 1 }
    }' >"$out/precision.tsv" || exit 1
column -t -s $'\t' "$out/precision.tsv"
awk -F'\t' 'END { off = $4 - 1; if (off < 0) off = -off; printf "last tenth: %.2f %% apart (bar 1 %%): %s\n", 100 * off, off <= 0.01 ? "holds" : "does not hold"; exit off > 0.01 }' "$out/precision.tsv"
