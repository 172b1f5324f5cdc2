#!/usr/bin/env bash
# Exact PCA at 2,000 genes on 1 and on 2 ranks of one thread: median of three, 20,000 cells from memory.
set -eu
. tests/environment
cells=${PCA_CELLS:-20000} genes=2000
time_of() { # ranks: "seconds solver_seconds gflops" of the run with the median time
    for _ in 1 2 3; do
        mpirun -n "$1" --bind-to core --map-by core "$B/tests/tool_pca_speed" "$cells" "$genes" 50
    done | sort -n | sed -n 2p
}
read -r one one_solver one_rate <<<"$(time_of 1)"
read -r two two_solver two_rate <<<"$(time_of 2)"
row() { printf 'BENCH\t%s\t%s\t%s\t%s\t%s\n' "$@"; }
row "PCA, 20k cells x 2000 genes, 1 rank" "$one" s - -
row "PCA, 20k cells x 2000 genes, 2 ranks" "$two" s - -
row "PCA rate, 1 rank" "$one_rate" GFLOP/s - -
row "PCA rate, 2 ranks" "$two_rate" GFLOP/s - -
row "PCA eigen-solver, order 2000, 1 rank" "$one_solver" s - -
row "PCA eigen-solver, order 2000, 2 ranks" "$two_solver" s - -
row "PCA speed of 2 ranks over 1" "$(awk "BEGIN{printf \"%.2f\", $one / $two}")" x - -
