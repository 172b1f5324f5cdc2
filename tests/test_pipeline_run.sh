#!/usr/bin/env bash
# plan: limit=200
# cytomill-pretrain over pipelines: whatever the stages, schedule, chunks and recomputation, the checkpoints of a run
# with one replica are byte for byte those of one rank; a run goes on with other stages, and with other replicas to
# rounding, as it does when ranks share out experts; which experts work for which cell types; every wrong mesh is one line and exit code before anything is written.
set -u
. tests/job_checks

make_folder() { # folder cells
    mkdir -p "$1"
    gunzip -c configs/genes/vocabulary.tsv.gz | awk -F'\t' 'NR > 1 && $3 != "" { print $3 "\t" $2; if (++n == 300) exit }' >"$1/genes.tsv"
    awk -v cells="$2" -v dir="$1" 'BEGIN {
        srand(4)
        for (c = 1; c <= cells; c++) {
            print "CELL" c > (dir "/barcodes.tsv")
            for (g = 1; g <= 300; g++) if (rand() < 0.1 + 0.3 * (c % 5) / 5) { n++; line[n] = g " " c " " 1 + int(3 * rand()) } }
        print "%%MatrixMarket matrix coordinate integer general" > (dir "/matrix.mtx")
        print 300, cells, n > (dir "/matrix.mtx")
        for (i = 1; i <= n; i++) print line[i] > (dir "/matrix.mtx") }'
}
make_folder "$dir/a" 120
cytomill-ingest "$dir/a" --out "$dir/atlas" >"$dir/log" 2>&1 || fail "no atlas"
cat >"$dir/tiny.yaml" <<'EOF2'
model: {name: tiny, layers: 7, width: 32, heads: 2, value_width: 16, min_genes: 10, max_genes: 200}
train: {steps: 6, batch: 9, micro_batch: 2, rate: 2e-3, checkpoint_every: 3, evaluate_every: 3, evaluate_cells: 8, clip: global}
run: {precision: fp32, seed: 3}
EOF2
pretrain() { # ranks out option...
    local ranks=$1 out=$2; shift 2
    mpirun -n "$ranks" cytomill-pretrain --config "$dir/tiny.yaml" --atlas "$dir/atlas" --out "$out" "$@" >"$dir/log" 2>&1
}
same() { # name what
    cmp "$dir/one/checkpoint-6.h5" "$dir/$1/checkpoint-6.h5" || fail "$2: other weights than one rank's"
    cmp "$dir/one/learning.tsv" "$dir/$1/learning.tsv" || fail "$2: another last evaluation than one rank's"
}
pretrain 1 "$dir/one" || fail "one rank"

number=0
for how in "2 1f1b" "3 1f1b" "4 zb-h1" "3 gpipe" "3 zb-h1" "2 interleaved chunks=3" "3 interleaved chunks=2" "3 1f1b layers=1,4,2" "2 1f1b recompute"; do
    read -r ranks schedule more <<<"$how"
    set=(--set mesh.pipe="$ranks" --set mesh.schedule="$schedule")
    case $more in recompute) set+=(--set train.recompute=true) ;; ?*) set+=(--set "mesh.$more") ;; esac
    number=$((number + 1))
    pretrain "$ranks" "$dir/p$number" "${set[@]}" || fail "$how"
    [ "$more" = recompute ] && continue # its configuration says so
    same "p$number" "$how"
done
grep -q "mesh: 1 x 2 x 1 .*, stages of . + . blocks; 1f1b with 5 micro-batches of 2 cells: stages stand idle for 17 %" "$dir/log" || fail "the layout is not told"

# a run goes on under another mesh
pretrain 2 "$dir/turn" --set mesh.pipe=2 --set train.max_seconds=0.001 || fail "a short run"
step=$(basename "$(ls "$dir"/turn/checkpoint-*.h5)" .h5)
[ "$step" = checkpoint-6 ] && fail "the run was not interrupted"
pretrain 3 "$dir/turn" --set mesh.pipe=3 || fail "two stages, then three"
cmp "$dir/one/checkpoint-6.h5" "$dir/turn/checkpoint-6.h5" || fail "two stages, then three: other weights than one rank's"
pretrain 4 "$dir/data" --set mesh.pipe=2 || fail "two replicas of two stages"
grep -q "with gradients in fp32," "$dir/log" || fail "products in fp32 have no gradients in fp32"
loss() { sed -n 's/.*"kind":"train","step":6,"loss":\([0-9.]*\).*/\1/p' "$dir/$1/metrics.jsonl"; }
awk -v a="$(loss one)" -v b="$(loss data)" 'BEGIN { exit !(b > 0 && (a-b)^2 < 1e-6*a*a) }' ||
    fail "two replicas of two stages: loss $(loss data), not $(loss one)"
# replicas on a host without room for packed weights that they share keep their own, and compute the same
pretrain 2 "$dir/shared" && ! grep -q "/dev/shm" "$dir/log" || fail "two replicas"
if unshare -m mount -t tmpfs -o size=12m none /dev/shm 2>/dev/null; then
    export dir
    export -f pretrain
    unshare -m bash -c 'mount -t tmpfs -o size=12m none /dev/shm; pretrain 2 "$dir/apart"' || fail "a small /dev/shm"
    grep -q "a host has less than .* free in /dev/shm: there each rank keeps packed weights of its own" "$dir/log" || fail "a small /dev/shm is not told"
    [ "$(loss shared)" = "$(loss apart)" ] || fail "packed weights apart: loss $(loss apart), not $(loss shared)"
fi
cytomill-embed --model "$dir/data" "$dir/atlas" --out "$dir/embedding.h5ad" >"$dir/log" 2>&1 || fail "embedding from four ranks' checkpoint"

# gradients travel in the precision of the products, unless they are told otherwise
for exchange in auto bf16 fp32; do
    pretrain 3 "$dir/e$exchange" --precision bf16 --set train.exchange=$exchange || fail "gradients in $exchange"
    grep -q "with gradients in ${exchange/auto/bf16}," "$dir/log" || fail "how gradients travel is not told of $exchange"
done
[ "$(loss eauto)" = "$(loss ebf16)" ] || fail "products in bf16: loss $(loss eauto), with gradients in bf16 $(loss ebf16)"
[ "$(loss eauto)" != "$(loss efp32)" ] || fail "gradients in bf16 leave no trace: loss $(loss eauto)"

# a mixture of experts: ranks that share out experts agree with one rank that has all, and go on from each other
cat >"$dir/routed.yaml" <<'EOF3'
model: {name: routed, layers: 4, width: 32, heads: 2, value_width: 16, min_genes: 10, max_genes: 200, feed_forward: moe, experts: 8, expert_every: 2, expert_balance: bias}
train: {steps: 6, batch: 9, micro_batch: 2, rate: 2e-3, checkpoint_every: 2, evaluate_every: 3, evaluate_cells: 7}
run: {precision: fp32, seed: 3}
EOF3
routed() { # ranks out option...
    local ranks=$1 out=$2; shift 2
    mpirun -n "$ranks" cytomill-pretrain --config "$dir/routed.yaml" --atlas "$dir/atlas" --out "$out" "$@" >"$dir/log" 2>&1
}
routed 1 "$dir/x1" || fail "experts on one rank"
for how in "2 expert=2" "4 expert=4" "4 expert=2,pipe=2"; do
    read -r ranks axes <<<"$how"
    set=(); for axis in ${axes//,/ }; do set+=(--set "mesh.$axis"); done
    routed "$ranks" "$dir/x$axes" "${set[@]}" || fail "experts: $how"
    awk -v a="$(loss x1)" -v b="$(loss "x$axes")" 'BEGIN { exit !(b > 0 && (a-b)^2 < 1e-6*a*a) }' || fail "experts, $how: loss $(loss "x$axes"), not $(loss x1)"
    cytomill-embed --model "$dir/x$axes" "$dir/atlas" --out "$dir/x.h5ad" >"$dir/log" 2>&1 || fail "embedding from experts of $how"
    rm "$dir/x.h5ad" "$dir/x.h5ad.run.json"
done
routed 2 "$dir/xplain" --set mesh.expert=2 --set mesh.turns=never || fail "experts: no turns"
grep -q "take turns" "$dir/log" && fail "experts: turns are taken"
[ "$(loss xplain)" = "$(loss xexpert=2)" ] || fail "turns change the training: loss $(loss xexpert=2), not $(loss xplain)"
rm "$dir/xexpert=4/checkpoint-6.h5"
routed 1 "$dir/xexpert=4" && grep -q "step 4" "$dir/log" || fail "four expert ranks, then one"
rm "$dir/xexpert=4/checkpoint-6.h5"
routed 2 "$dir/xexpert=4" --set mesh.expert=2 && grep -q "step 4" "$dir/log" || fail "one expert rank, then two"

# which experts work for which cell types: told at every evaluation, and from the same weights the same on any mesh
usage() { awk -F'\t' "$2" "$dir/$1/expert_usage.tsv"; } # run program
[ "$(usage x1 'NR > 1 { print $1 }' | uniq | xargs)" = "3 6" ] || fail "expert usage of other steps than evaluations"
[ "$(usage x1 'NR > 1 { print $4 }' | sort -u | xargs)" = unlabelled ] || fail "cells have a type without labels"
awk 'BEGIN { print "barcode\tcell_type\tkind"; for (c = 1; c <= 120; c++) print "CELL" c "\t" (c % 5 ? "type " c % 5 : "NA") "\t" (c < 60 ? "a" : "b") }' >"$dir/labels.tsv"
cytomill-ingest "$dir/a" --out "$dir/typed" --obs-table "$dir/labels.tsv" >"$dir/log" 2>&1 || fail "no atlas with cell types"
routed 1 "$dir/typed1" --atlas "$dir/typed" || fail "experts and cell types"
[ "$(usage typed1 'NR > 1 { print $4 }' | sort -u | tr '\n' ,)" = "type 1,type 2,type 3,type 4,unlabelled," ] || fail "other cell types than those of the labels"
usage typed1 'NR > 1 { share[$1 $2 $4] += $6; if ($2 == 1 && $1 == 6) slots += $5; if ($2 != 1 && $2 != 3) exit 1 }
    END { for (k in share) if ((share[k] - 1)^2 > 1e-10) exit 1; exit slots % 2 }' || fail "shares of a cell type do not add up to 1, or not two slots a token"
grep -q '"kind":"expert_usage","step":6,"slots":[0-9]*,"layers":2,"cell_types":5,"unused":[0-9]*,"imbalance":[1-8][0-9.]*,"largest_share":0' "$dir/typed1/metrics.jsonl" ||
    fail "metrics lack the use of experts"
for how in "3" "2 pipe=2" "2 expert=2" "4 expert=2,pipe=2"; do
    read -r ranks axes <<<"$how"
    set=(); for axis in ${axes//,/ }; do set+=(--set "mesh.$axis"); done
    cp -r "$dir/typed1" "$dir/again$how"; rm "$dir/again$how/expert_usage.tsv"
    routed "$ranks" "$dir/again$how" --atlas "$dir/typed" "${set[@]}" || fail "evaluation again on $how"
    cmp "$dir/again$how/expert_usage.tsv" <(usage typed1 'NR == 1 || $1 == 6') || fail "$how: experts are used otherwise than on one rank"
done
usage typed1 '$1 == 3' >"$dir/before.tsv"
routed 1 "$dir/typed1" --atlas "$dir/typed" --set data.cell_type=kind || fail "other labels"
[ "$(usage typed1 '$1 == 6 { print $4 }' | sort -u | xargs)" = "a b" ] || fail "an evaluation that was repeated is not in the place of the first"
cmp <(usage typed1 '$1 == 3') "$dir/before.tsv" || fail "an evaluation that was repeated changed the one before"
for name in kinds qc_total; do
    routed 1 "$dir/new" --atlas "$dir/typed" --set data.cell_type=$name
    case $name in kinds) check_error $? 4 "did you mean 'kind'" "no such labels" ;; *) check_error $? 3 "data.cell_type .*not categorical" "labels that are none" ;; esac
    [ ! -e "$dir/new" ] || fail "refused labels left something"
done

# wrong meshes
refused() { # ranks, exit code, words of the error line, option...
    pretrain "$1" "$dir/new" "${@:4}"
    check_error $? "$2" "$3" "$1 ranks, ${*:4}"
    [ ! -e "$dir/new" ] || fail "a refused mesh left something"
}
refused 3 2 "3 ranks cannot be cut into 2 stages" --set mesh.pipe=2
refused 3 2 "has 6 ranks and this job has 3" --set mesh.pipe=3 --set mesh.data=2
refused 2 3 "mesh.pipe .*8 chunks need as many blocks, the model has 7" --set mesh.pipe=2 --set mesh.chunks=8 --set mesh.schedule=interleaved
refused 2 3 "mesh.chunks .*schedule 1f1b has one chunk" --set mesh.pipe=2 --set mesh.chunks=2
refused 1 3 "mesh.schedule .*interleaved needs at least 2 stages" --set mesh.schedule=interleaved
refused 2 3 "mesh.layers .*3 numbers for 2 stages" --set mesh.pipe=2 --set mesh.layers=2,3,2
refused 2 3 "mesh.layers .*the parts have 6 blocks together, the model has 7" --set mesh.pipe=2 --set mesh.layers=3,3
refused 2 3 "mesh.layers .*'0' is no number of blocks" --set mesh.pipe=2 --set mesh.layers=0,7
refused 3 3 "train.recompute .*schedule zb-h1 keeps" --set mesh.pipe=3 --set mesh.schedule=zb-h1 --set train.recompute=true
refused 2 3 "mesh.expert .*this model has no experts" --set mesh.expert=2
refused 3 3 "mesh.expert .*3 ranks do not divide the 8 experts" --set mesh.expert=3 --set model.feed_forward=moe
refused 4 3 "train.batch .*2 replicas, but the global batch has 1 cells" --set mesh.pipe=2 --set train.batch=1
exit 0
