#!/usr/bin/env bash
# plan: limit=120
# cytomill-plan: the verdict, why, and its tables, a batch file that is a script with the layout's options, JSON, calibration
# to a file that plans at once, on 1, 2 and 3 ranks, of mixtures too; keys of the mesh are kept; each wrong input its one
# line and exit code.
set -u
. tests/job_checks
plan() { cytomill-plan --config configs/cellfm-800m.yaml --cluster "$dir/cluster.yaml" "$@" >"$dir/log" 2>"$dir/err"; local rc=$?; cat "$dir/err" >>"$dir/log"; return $rc; }
cat >"$dir/cluster.yaml" <<'YAML'
cluster: {nodes: 16, ranks_per_node: 2, cores: 112, memory_gib: 512, bf16_gflops: 450, memory_gb_per_s: 400, link_gbit_per_s: 50}
YAML

# a plan of a published model
plan --sbatch "$dir/train.sbatch" --json "$dir/plan.json" || fail "no plan"
head -1 "$dir/log" | grep -qE '^[a-z0-9-]+, [0-9]+ stages x [0-9]+ replicas?, micro-batch [0-9]+.*: [0-9.]+ s a step, .* and [0-9.,]+ node hours for [0-9,]+ steps, [0-9.]+ of 512 GiB a node$' || fail "the first line is no verdict"
sed -n 2p "$dir/log" | grep -q '^why: ' || fail "the second line does not say why"
for words in "gradients and weights" "waiting in the pipeline" "moments" "out of a node" "train.checkpoint_every" "lfs setstripe" "^fewer nodes" "TFLOP to train on a cell"; do
    grep -q -- "$words" "$dir/log" || fail "the plan lacks '$words'"
done
$python - "$dir/plan.json" <<'PY' || fail "plan.json is not what was planned"
import json, sys
plan = json.load(open(sys.argv[1]))
best = plan["layouts"][0]
layout, memory, time = best["layout"], best["memory_bytes"], best["time_s"]
assert layout["data"] * layout["pipe"] == 32 and layout["fits"]
assert abs(sum(v for k, v in memory.items() if k != "rank") - memory["rank"]) < 1
assert abs(sum(v for k, v in time.items() if k != "step") - time["step"]) < 1e-9 * time["step"]
assert all(other["layout"]["reason"] for other in plan["layouts"])
assert plan["parameters"] > 7e8
PY

# its batch file
bash -n "$dir/train.sbatch" || fail "the batch file is no script"
for line in '--nodes=16' '--ntasks-per-node=2' '--cpus-per-task=56' '--requeue' '--open-mode=append' '--time=24:00:00' '--signal=USR1@'; do
    grep -q -- "^#SBATCH $line" "$dir/train.sbatch" || fail "the batch file lacks #SBATCH $line"
done
for words in '--set mesh.pipe=' '--set mesh.layers=' '--set train.micro_batch=' '--set train.checkpoint_every=' 'batch_run pretrain'; do
    grep -q -- "$words" "$dir/train.sbatch" || fail "the batch file lacks $words"
done
(cd "$dir" && PATH=/usr/bin:/bin bash -c 'set -- none.yaml; . <(sed "s/^batch_run.*/type batch_run/;/train.checkpoint_every/d" train.sbatch)') >"$dir/log" 2>&1 || fail "the batch file does not find jobs/batch.sh"
if command -v shellcheck >/dev/null; then shellcheck -S warning "$dir/train.sbatch" >"$dir/log" || fail "shellcheck"; fi

# what the configuration fixes is kept; options that pretrain takes
plan --set mesh.pipe=4 --set mesh.schedule=gpipe --set train.recompute=false --json "$dir/plan.json" || fail "a given mesh"
grep -q '^gpipe, 4 stages x 8 replicas' "$dir/log" || fail "mesh.pipe and mesh.schedule were not kept"
options=$($python -c "import json; print(json.load(open('$dir/plan.json'))['layouts'][0]['options'])")
# shellcheck disable=SC2086
cytomill-pretrain --config configs/cellfm-800m.yaml $options --atlas "$dir/none" --out "$dir/none" >"$dir/log" 2>&1
check_error $? 4 "none" "pretrain with the options of the plan"
plan --set mesh.layers=9,9,13,9 || fail "a cut by hand"
grep -q -- "--set mesh.pipe=4 .*--set mesh.layers=9,9,13,9 " "$dir/log" || fail "mesh.layers was not kept"
plan --nodes 4096 --set train.batch=8192 || fail "4,096 nodes"
moe() { cytomill-plan --config configs/cellfm-moe.yaml --cluster "$dir/cluster.yaml" "$@" >"$dir/log" 2>&1; }
moe --set mesh.expert=2 || fail "experts shared out"
grep -q -- ' x 2 expert ranks, ' "$dir/log" || fail "mesh.expert was not kept"
for words in "rows to experts and back" "equally many rows" "--set mesh.expert=2" "expert ranks  each"; do
    grep -q -- "$words" "$dir/log" || fail "the plan with experts lacks '$words'"
done

# turns at exchanges: chosen over links, told, and kept as they are asked for
turns() { # what the first layout does, and what pretrain is told
    $python -c "import json; best = json.load(open('$dir/plan.json'))['layouts'][0]; print(best['layout']['turns'], [w for w in best['options'].split() if 'turns' in w])"
}
set=(--set mesh.expert=8 --set train.batch=1024 --json "$dir/plan.json" --sbatch "$dir/moe.sbatch")
moe "${set[@]}" || fail "experts over nodes"
[ "$(turns)" = "True ['mesh.turns=always']" ] || fail "turns over links: $(turns)"
grep -q '^4 replicas x 8 expert ranks, .*, in turns: ' "$dir/log" && grep -qE '^why: .*turns at exchanges \(mesh.turns\): that hides [0-9]+ % of a step' "$dir/log" ||
    fail "turns are not told"
grep -q -- '--set mesh.turns=always' "$dir/moe.sbatch" || fail "the batch file does not say that turns are taken"
moe "${set[@]}" --set mesh.turns=never || fail "no turns"
[ "$(turns)" = "False ['mesh.turns=never']" ] && grep -q 'as asked (mesh.turns): that would hide' "$dir/log" || fail "mesh.turns=never was not kept: $(turns)"
moe --json "$dir/plan.json" --set mesh.expert=1 && [ "$(turns)" = "False []" ] || fail "turns without exchanges: $(turns)"

# gradients travel in the precision of the products, unless they are told otherwise
sent() { # option...
    plan --set mesh.pipe=1 --set train.recompute=false --set train.micro_batch=1 "$@" --json "$dir/plan.json" || fail "a plan with $*"
    $python -c "import json; print(json.load(open('$dir/plan.json'))['layouts'][0]['traffic_bytes']['gradients'])"
}
in_bf16=$(sent --set train.exchange=bf16) in_fp32=$(sent --set train.exchange=fp32)
awk -v a="$in_bf16" -v b="$in_fp32" 'BEGIN { exit !(a < 0.7 * b) }' || fail "gradients in bf16 take $in_bf16 bytes, in fp32 $in_fp32"
[ "$(sent)" = "$in_bf16" ] || fail "products in bf16 have no gradients in bf16"
[ "$(sent --set cluster.bf16_gflops=0 --set cluster.fp32_gflops=200)" = "$(sent --set cluster.bf16_gflops=0 --set cluster.fp32_gflops=200 --set train.exchange=fp32)" ] ||
    fail "products in fp32 have no gradients in fp32"

# calibration, and a plan with it
cat >"$dir/tiny.yaml" <<'YAML'
model: {name: tiny, layers: 2, width: 32, heads: 2, value_width: 16, max_genes: 200}
train: {steps: 30, batch: 6, micro_batch: 2}
run: {precision: fp32}
YAML
for n in 1 2 3; do
    mpirun -n $n cytomill-plan --config "$dir/tiny.yaml" --calibrate "$dir/measured$n.yaml" >"$dir/log" 2>&1 || fail "calibration on $n ranks"
    [ "$(grep -c "^  ranks_per_node: $n$" "$dir/log")" -eq 1 ] || fail "$n ranks were not told once"
    ! grep -qE 'nan|inf' "$dir/measured$n.yaml" || fail "a figure is none"
    cytomill-plan --config "$dir/tiny.yaml" --cluster "$dir/measured$n.yaml" >"$dir/log" 2>&1 || fail "a plan on what $n ranks measured"
done
grep -q '^  message_us: ' "$dir/measured2.yaml" || fail "two ranks are no pipeline"
grep -q '^3 replicas, micro-batch [12]: ' "$dir/log" || fail "three ranks are no three replicas"
sed 's/layers: 2/layers: 4, feed_forward: moe, experts: 4, expert_every: 2/' "$dir/tiny.yaml" >"$dir/mixture.yaml"
cytomill-plan --config "$dir/mixture.yaml" --calibrate "$dir/measured.yaml" >"$dir/log" 2>&1 || fail "calibration of a mixture"
[ "$(grep -cE '^  (block|expert)_share: ' "$dir/measured.yaml")" -eq 2 ] || fail "blocks with experts and without were not both measured"

# wrong inputs
expect 3 "cluster.cores is '0'; unknown" cytomill-plan --config configs/demo.yaml
expect 3 "cluster.link_gbit_per_s is '0'; unknown, and cluster.nodes is more than 1" cytomill-plan --config configs/demo.yaml --cluster "$dir/cluster.yaml" --set cluster.link_gbit_per_s=0
expect 3 "model.name' is no key of section cluster" cytomill-plan --config configs/demo.yaml --cluster configs/demo.yaml --set cluster.cores=3
expect 3 "such nodes are the least that would do" cytomill-plan --config configs/cellfm-800m.yaml --cluster "$dir/cluster.yaml" --nodes 1 --set cluster.memory_gib=16
expect 3 "no layout uses 8192 ranks" cytomill-plan --config configs/demo.yaml --cluster "$dir/cluster.yaml" --nodes 4096
expect 3 "mesh.expert is '2'.*this model has no experts" cytomill-plan --config configs/demo.yaml --cluster "$dir/cluster.yaml" --set mesh.expert=2
expect 3 "mesh.expert is '3'.*3 ranks do not divide the 8 experts" cytomill-plan --config configs/cellfm-moe.yaml --cluster "$dir/cluster.yaml" --set mesh.expert=3
expect 3 "mesh.layers .*3 numbers for 2 stages" cytomill-plan --config configs/cellfm-800m.yaml --cluster "$dir/cluster.yaml" --set mesh.pipe=2 --set mesh.layers=20,10,10
expect 3 "plan.genes is '5000'" cytomill-plan --config configs/demo.yaml --cluster "$dir/cluster.yaml" --genes 5000
expect 5 "cannot be" cytomill-plan --config configs/cellfm-800m.yaml --cluster "$dir/cluster.yaml" --json "$dir/none/plan.json"
exit 0
