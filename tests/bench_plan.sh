#!/usr/bin/env bash
# Does cytomill-plan tell the truth? Calibrate, predict and write the prediction down (build/bench/plan/*.json), then
# train a few steps on PBMC 3k and compare: seconds of a step on six pairs of model and mesh (bar: within 15 %), peak
# memory of the largest rank on six meshes of up to 8 ranks (within 10 %). Cells are cut to 512 genes, so that every
# micro-batch is as large as was planned for. All pairs, with the load of the machine at that time, also go to
# build/bench/plan/table.tsv. BENCH_FIGURES="seconds" or "memory" takes one half alone.
# Times mean something on an idle machine only: each rank is bound to a core of its own, and the median of the steps
# after the second counts. Memory can be measured at any time.
set -u
. tests/environment
need_cores 2
out=build/bench/plan
mkdir -p $out
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
table=$out/table.tsv
printf 'model\tmesh\tfigure\tpredicted\tmeasured\tratio\tload\n' >$table
must() { "$@" >"$dir/log" 2>&1 || { echo "$* failed"; tail -5 "$dir/log"; exit 1; }; }
must cytomill-ingest tests/data/pbmc3k --out "$dir/atlas"

config() { # model layers width heads more
    cat >"$dir/$1.yaml" <<YAML
model: {name: $1, layers: $2, width: $3, heads: $4, max_genes: 512, min_genes: 512, drop_long_cells: false$5}
data: {held_out: 0, read_ahead: 64}
train: {batch: 8, micro_batch: 2, rate: 1e-4, checkpoint_every: 1000000, evaluate_every: 1000000, reference_cells: 100}
YAML
}
config small 4 256 8 ""
config wide 3 768 24 ""
config mixture 4 512 16 ", feed_forward: moe, experts: 8, experts_per_token: 2, expert_every: 2"

# Ranks that fit on the cores are bound, as training on a cluster is; more share them, for their memory's sake.
launch() { # ranks command...
    local ranks=$1; shift
    if [ "$ranks" -le "$(nproc --all)" ]; then (bind_ranks; mpirun -n "$ranks" "$@"); else mpirun -n "$ranks" "$@"; fi
}
declare -A calibrated
calibrate() { # model ranks
    [ -n "${calibrated[$1$2]:-}" ] && return
    must launch "$2" cytomill-plan --config "$dir/$1.yaml" --calibrate "$out/$1-$2.yaml"
    calibrated[$1$2]=1
}
value() { python3 -c "import json, sys; best = json.load(open(sys.argv[1]))['layouts'][0]; print(eval(sys.argv[2], best))" "$1" "$2"; }
# Started in place of the program on every rank; writes the peak memory of the rank, in bytes, of windows that it shares with
# other ranks its share.
cat >"$dir/peak.py" <<'PY'
import os, subprocess, sys, time

def resident(pid):
    total, window = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        field, _, rest = line.partition(":")
        if " " in field: window = "/osc_sm." in line
        elif field == ("Pss" if window else "Rss"): total += 1024 * int(rest.split()[0])
    return total

program, peak = subprocess.Popen(sys.argv[2:]), 0
while program.poll() is None:
    try: peak = max(peak, resident(program.pid))
    except (OSError, ValueError): pass
    time.sleep(0.05)
with open(f"{sys.argv[1]}.{os.environ.get('OMPI_COMM_WORLD_RANK', 0)}", "w") as file: file.write(str(peak))
sys.exit(program.returncode)
PY

compare() { # figure model mesh predicted measured bar
    local ratio; ratio=$(awk -v p="$4" -v m="$5" 'BEGIN { printf "%.3f", p / m }')
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$2" "$3" "$1" "$4" "$5" "$ratio" "$(cut -d' ' -f1 /proc/loadavg)" >>$table
    awk -v r="$ratio" -v b="$6" -v n="plan: $1, $2, $3" 'BEGIN { printf "BENCH\t%s, predicted over measured\t%s\tratio\twithin %s\t%s\n", n, r, b, (r >= 1 - b && r <= 1 + b ? "yes" : "no") }'
}
# One pair: predict, write down, train, compare.
try() { # figure model data pipe expert schedule steps
    local figure=$1 model=$2 data=$3 pipe=$4 expert=$5 schedule=$6 steps=$7 ranks=$(($3 * $4 * $5)) mesh name options on
    mesh="$data x $pipe x $expert $schedule" name=$model-$data-$pipe-$expert-$schedule
    [[ " ${BENCH_FIGURES:-seconds memory} " == *" $figure "* ]] || return 0
    on=$((ranks <= $(nproc --all) ? ranks : 1))
    calibrate "$model" $on
    must cytomill-plan --config "$dir/$model.yaml" --cluster "$out/$model-$on.yaml" \
        --set cluster.ranks_per_node=$ranks --set cluster.cores=$ranks --set cluster.memory_gib=1000 --set mesh.data="$data" \
        --set mesh.pipe="$pipe" --set mesh.expert="$expert" --set mesh.schedule="$schedule" --set mesh.chunks=1 \
        --set train.recompute=false --json "$out/$name.json"
    options=$(value "$out/$name.json" options)
    local watched=()
    [ "$figure" = memory ] && watched=(python3 "$dir/peak.py" "$dir/$name.peak")
    # shellcheck disable=SC2086
    must launch $ranks "${watched[@]}" cytomill-pretrain --config "$dir/$model.yaml" \
        $options --atlas "$dir/atlas" --out "$dir/$name" --set train.steps="$steps"
    if [ "$figure" = seconds ]; then
        local measured
        measured=$(sed -n 's/.*"kind":"train","step":\([0-9]*\).*"cells_per_s":\([0-9.e+-]*\).*/\1 \2/p' "$dir/$name/metrics.jsonl" |
            awk '$1 > 2 { print 8 / $2 }' | sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
        compare "seconds of a step" "$model" "$mesh" "$(value "$out/$name.json" "time_s['step']")" "$measured" 0.15
    else
        compare "peak bytes of a rank" "$model" "$mesh" "$(value "$out/$name.json" "memory_bytes['rank']")" "$(sort -g "$dir/$name.peak".* | tail -1)" 0.10
    fi
    rm -rf "${dir:?}/$name"*
}
steps=${BENCH_STEPS:-12}
try seconds small 1 1 1 1f1b "$steps"
try seconds small 2 1 1 1f1b "$steps"
try seconds small 1 2 1 1f1b "$steps"
try seconds wide 2 1 1 1f1b "$steps"
try seconds wide 1 2 1 zb-h1 "$steps"
try seconds mixture 1 1 2 1f1b "$steps"
try memory wide 2 1 1 1f1b 2
try memory wide 1 3 1 1f1b 2
try memory small 2 2 1 zb-h1 2
try memory mixture 1 1 4 1f1b 2
try memory mixture 1 2 2 gpipe 2
try memory small 2 4 1 1f1b 2
