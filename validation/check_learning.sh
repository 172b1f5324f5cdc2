#!/usr/bin/env bash
# kind: table
# validation/check_learning.sh [SEED...]: is learning real? Five seeds of the demo's model trained longer on PBMC 3k,
# each against the three references on the same hidden values of the same held-out cells, into
# OUT/learning.tsv and OUT/learning.md (build/validation/learning); UPDATE=1 makes them validation/learning.*.
#   STEPS=3000 RANKS=2 validation/check_learning.sh          other keys: CONFIG, EXTRA="--set model.layers=6"
set -u
cd "$(dirname "$0")/.." || exit
export B=${B:-build/release}
. tests/environment
CONFIG=${CONFIG:-configs/demo.yaml} STEPS=${STEPS:-3000} RANKS=${RANKS:-2} EXTRA=${EXTRA:-}
seeds=("$@"); [ ${#seeds[@]} -gt 0 ] || seeds=(1 2 3 4 5)
out=${OUT:-build/validation/learning}; mkdir -p "$out"
[ -e "$out/atlas/index.h5" ] || cytomill-ingest tests/data/pbmc3k --out "$out/atlas" || exit 1
for seed in "${seeds[@]}"; do # the same command resumes a run that was stopped
    # shellcheck disable=SC2086
    mpirun -n "$RANKS" cytomill-pretrain --config "$CONFIG" --atlas "$out/atlas" --out "$out/seed$seed" --seed "$seed" \
        --set train.steps="$STEPS" --set train.final_cells=0 $EXTRA || exit 1
done
table=$out/learning.tsv
{
    printf 'seed\tpredictor\tmse_hidden\thidden_positions\theld_out_cells\tstep\n'
    for seed in "${seeds[@]}"; do awk -F'\t' -v OFS='\t' -v s="$seed" 'NR > 1 { print s, $1, $2, $3, $4, $5 }' "$out/seed$seed/learning.tsv"; done
} >"$table"
awk -F'\t' -v config="$CONFIG" -v steps="$STEPS" -v extra="$EXTRA" '
    NR > 1 { n[$2]++; sum[$2] += $3; square[$2] += $3 * $3; if (!($2 in place)) { place[$2] = ++k; name[k] = $2 }; if ($2 == "model gene-wise") at[$1] = $3; cells = $5; hidden = $4 }
    NR > 1 && $2 != "model gene-wise" && $2 != "model cell-wise" { if (at[$1] < $3) beaten[$2]++ }
    END {
        print "# Learning on held-out cells\n"
        print "Mean squared error of ln(1 + 10^4 c / T) on the hidden values of held-out cells of PBMC 3k (" cells " cells, " hidden " values),"
        print "`" config "`, " steps " steps" (extra ? ", `" extra "`" : "") ", " n["model gene-wise"] " seeds. Every reference is fitted on training cells and, per cell, on visible genes only."
        print "Command: `STEPS=" steps " validation/check_learning.sh`.\n"
        print "| predictor | mean | sd over seeds | seeds in which the model is better |\n|---|---|---|---|"
        for (i = 1; i <= k; i++) { p = name[i]; m = sum[p] / n[p]; v = square[p] / n[p] - m * m
            printf "| %s | %.4f | %.4f | %s |\n", p, m, (v > 0 ? sqrt(v * n[p] / (n[p] > 1 ? n[p] - 1 : 1)) : 0), (p ~ /^model/ ? "" : (beaten[p] + 0) " of " n[p]) }
        model = sum["model gene-wise"] / n["model gene-wise"]; poisson = sum["zero-truncated Poisson"] / n["zero-truncated Poisson"]
        printf "\nAgainst the strongest reference, the zero-truncated Poisson, the model is %.1f %% %s.\n", 100 * (model < poisson ? 1 - model / poisson : model / poisson - 1), (model < poisson ? "better" : "worse")
    }' "$table" >"$out/learning.md"
cat "$out/learning.md"
[ -z "${UPDATE:-}" ] || cp "$table" "$out/learning.md" validation/
