#!/usr/bin/env bash
# plan: limit=240
# cytomill-pretrain on a small atlas: the files it leaves, the same training on 1, 2 and 3 ranks, resume bit-equal
# after kill -9, SIGTERM, SIGUSR1 and a stop file (exit 75), a damaged checkpoint falls back, a full disk leaves the
# last good one, and each wrong input its one line and exit code on 1 and 3 ranks.
set -u
. tests/job_checks

# A 10x folder: CELLS cells of 60 to 160 of the first 400 genes of the vocabulary, five cells with next to none.
make_folder() { # folder cells seed
    mkdir -p "$1"
    gunzip -c configs/genes/vocabulary.tsv.gz | awk -F'\t' 'NR > 1 && $3 != "" { print $3 "\t" $2; if (++n == 400) exit }' >"$1/genes.tsv"
    awk -v cells="$2" -v seed="$3" -v dir="$1" 'BEGIN {
        srand(seed)
        for (c = 1; c <= cells; c++) {
            print "CELL" c "-" seed > (dir "/barcodes.tsv")
            share = c % 50 == 7 ? 0.01 : 0.15 + 0.25 * rand(); kind = c % 3
            for (g = 1; g <= 400; g++) if (rand() < share * (g % 3 == kind ? 1.6 : 0.7)) {
                n++; line[n] = g " " c " " 1 + (rand() < 0.3) * int(6 * rand()) } }
        print "%%MatrixMarket matrix coordinate integer general" > (dir "/matrix.mtx")
        print 400, cells, n > (dir "/matrix.mtx")
        for (i = 1; i <= n; i++) print line[i] > (dir "/matrix.mtx") }'
}
make_folder "$dir/a" 220 1; make_folder "$dir/b" 90 2
for a in a b; do cytomill-ingest "$dir/$a" --out "$dir/atlas-$a" >"$dir/log" 2>&1 || fail "no atlas $a"; done
cat >"$dir/tiny.yaml" <<'EOF'
model: {name: tiny, layers: 2, width: 32, heads: 2, value_width: 16, min_genes: 20, max_genes: 200}
train: {steps: 30, batch: 6, micro_batch: 2, rate: 2e-3, schedule: cosine, warmup: 5, checkpoint_every: 8, evaluate_every: 10, evaluate_cells: 8}
run: {precision: fp32, seed: 3}
EOF
pretrain() { # ranks out option...
    local ranks=$1 out=$2; shift 2
    if [ "$ranks" = 1 ]; then cytomill-pretrain --config "$dir/tiny.yaml" --atlas "$dir/atlas-a" --out "$out" "$@" >"$dir/log" 2>&1
    else mpirun -n "$ranks" cytomill-pretrain --config "$dir/tiny.yaml" --atlas "$dir/atlas-a" --out "$out" "$@" >"$dir/log" 2>&1; fi
}

# dry run: everything checked, nothing written
pretrain 2 "$dir/dry" --dry-run || fail "dry run"
[ -e "$dir/dry" ] && fail "a dry run wrote something"
grep -q "parameters; .* a rank" "$dir/log" && grep -q "GFLOP/s" "$dir/log" || fail "no cost"
pretrain 1 "$dir/dry" --dry-run --set model.max_genes=20 --set model.drop_long_cells=false || fail "dry run of drawn genes"
grep -q "step: 6 cells, about 126 tokens" "$dir/log" || fail "genes that the model leaves out count in the cost" # 20 and cls

# whole runs on 1, 2, 3 ranks
for n in 1 2 3; do
    pretrain $n "$dir/r$n" || fail "training on $n ranks"
    for f in checkpoint-24.h5 checkpoint-30.h5 metrics.jsonl learning.tsv run.json; do [ -s "$dir/r$n/$f" ] || fail "$n ranks left no $f"; done
    [ -e "$dir/r$n/checkpoint-16.h5" ] && fail "more than train.keep checkpoints"
    [ -z "$(find "$dir/r$n" -name "*partial*")" ] || fail "a partial file is left"
    [ "$(grep -c '"kind":"train"' "$dir/r$n/metrics.jsonl")" -eq 30 ] || fail "metrics lack steps"
    [ "$(grep -c '"kind":"evaluate"' "$dir/r$n/metrics.jsonl")" -eq 3 ] || fail "metrics lack evaluations"
    grep -q "mean squared error is" "$dir/log" || fail "no sentence about learning"
done
loss() { sed -n 's/.*"kind":"train","step":30,"loss":\([0-9.]*\).*/\1/p' "$dir/$1/metrics.jsonl"; }
first=$(sed -n 's/.*"kind":"train","step":1,"loss":\([0-9.]*\).*/\1/p' "$dir/r1/metrics.jsonl")
awk -v a="$(loss r1)" -v b="$(loss r2)" -v c="$(loss r3)" -v f="$first" \
    'BEGIN { exit !(a > 0 && (a-b)^2 < 1e-6*a*a && (a-c)^2 < 1e-6*a*a && a < 0.5 * f) }' || fail "losses differ: $(loss r1) $(loss r2) $(loss r3), from $first"
mse() { awk -F'\t' -v k="$2" '$1 == k { print $2 }' "$dir/$1/learning.tsv"; }
for k in "gene mean" "gene + cell offset" "zero-truncated Poisson"; do
    [ "$(mse r1 "$k")" = "$(mse r3 "$k")" ] || fail "the reference '$k' depends on ranks: $(mse r1 "$k") $(mse r3 "$k")"
done

# resume: killed, asked to stop in three ways, two of them on two ranks; the same bytes as an uninterrupted run
same_as() { cmp "$dir/$1/checkpoint-30.h5" "$dir/$2/checkpoint-30.h5" || fail "$2 ends with other weights than $1"; }
interrupt() { # ranks name how
    local launcher=() pid rc attempt
    [ "$1" -gt 1 ] && launcher=(mpirun -n "$1")
    for attempt in 1 2 3 4 5; do
        rm -rf "${dir:?}/$2"
        "${launcher[@]}" cytomill-pretrain --config "$dir/tiny.yaml" --atlas "$dir/atlas-a" --out "$dir/$2" >"$dir/log" 2>&1 &
        pid=$!
        for _ in $(seq 2000); do
            [ "$(grep -c '"kind":"train"' "$dir/$2/metrics.jsonl" 2>/dev/null || true)" -ge 10 ] 2>/dev/null && break
            sleep 0.01
        done
        case $3 in stop) touch "$dir/$2/stop" ;; *) kill -"$3" $pid ;; esac
        wait $pid; rc=$?
        rm -f "$dir/$2/stop"
        [ $rc -ne 0 ] && [ ! -e "$dir/$2/checkpoint-30.h5" ] && break # else it was too late: again
    done
    [ $rc -eq "$([ "$3" = KILL ] && echo 137 || echo 75)" ] || fail "$3 ended with exit $rc in attempt $attempt"
}
for how in KILL TERM USR1; do
    interrupt 1 "i$how" $how
    pretrain 1 "$dir/i$how" || fail "resume after $how"
    same_as r1 "i$how"
done
interrupt 2 istop stop
pretrain 2 "$dir/istop" || fail "resume after a stop file"
same_as r2 istop
interrupt 2 iranks stop
pretrain 3 "$dir/iranks" || fail "resume on another number of ranks"
grep -q 'resuming from' "$dir/log" || fail "another number of ranks began anew"
awk -v a="$(loss r1)" -v b="$(loss iranks)" 'BEGIN { exit !(b > 0 && (a-b)^2 < 1e-6*a*a) }' ||
    fail "resumed on another number of ranks the loss is $(loss iranks), not $(loss r1)"
pretrain 1 "$dir/r1" || fail "the same command on a finished run"
[ "$(grep -c '"kind":"train"' "$dir/iTERM/metrics.jsonl")" -eq 30 ] || fail "metrics of a resumed run repeat steps"

# without metrics.jsonl, as on another machine, the course of the losses comes from the checkpoint
course() { sed -nE 's/.*"kind":"(train|evaluate)","step":([0-9]+),.*"loss":([0-9.]+),.*"genewise_hidden":([0-9.]+)[,}].*/\1 \2 \3 \4/p' "$dir/$1/metrics.jsonl" | sort -u; }
cp -r "$dir/r1" "$dir/moved"; rm "$dir/moved/metrics.jsonl"
pretrain 1 "$dir/moved" || fail "the same command elsewhere"
[ "$(course r1 | wc -l)" = 33 ] && cmp <(course r1) <(course moved) || fail "the checkpoint tells another course of the losses"

# the last evaluation stops too, between two micro-batches, and the same command ends it
slow=(--set train.steps=1 --set train.warmup=0 --set model.layers=6 --set model.width=256 --set model.value_width=64
    --set data.held_out=0.9 --set train.micro_batch=1)
for n in 1 3; do
    pretrain $n "$dir/late$n" "${slow[@]}" & pid=$!
    until [ -e "$dir/late$n/checkpoint-1.h5" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    touch "$dir/late$n/stop"
    wait $pid; rc=$?
    [ $rc -eq 75 ] && grep -q 'goes on with the last evaluation' "$dir/log" || fail "$n ranks: the last evaluation ended with $rc"
    [ ! -e "$dir/late$n/learning.tsv" ] || fail "an evaluation that was stopped left its table"
    rm "$dir/late$n/stop"
    pretrain $n "$dir/late$n" "${slow[@]}" --set train.final_cells=12 && [ -s "$dir/late$n/learning.tsv" ] || fail "$n ranks: evaluating again"
done

# a log tells step, rate and time left; the precision and the kernels are told once
CYTOMILL_PROGRESS_S=0 pretrain 1 "$dir/lines" --precision bf16 --isa generic --set train.steps=6 --set train.warmup=0 || fail "progress"
[ "$(grep -cE '^step=[1-6] of=6 loss=[0-9.]+ genewise_hidden=[0-9.]+ cells_per_s=[0-9.e+]+ eta=[0-9]+s$' "$dir/log")" -eq 6 ] ||
    fail "a log lacks its progress lines"
[ "$(grep -cE 'precision bf16: as asked; kernels generic: as asked; oneDNN [0-9]' "$dir/log")" -eq 1 ] || fail "precision is not told"

# time given is over: exit 0 with a checkpoint
pretrain 1 "$dir/short" --set train.max_seconds=0.001 --set train.steps=100000 || fail "max_seconds"
ls "$dir/short"/checkpoint-*.h5 >/dev/null 2>&1 || fail "max_seconds left no checkpoint"

# a damaged newest checkpoint: one generation back, and the same end
cp -r "$dir/r1" "$dir/damaged"
size=$(stat -c %s "$dir/damaged/checkpoint-30.h5")
printf 'XXXX' | dd of="$dir/damaged/checkpoint-30.h5" bs=1 seek=$((size * 2 / 3)) conv=notrunc 2>/dev/null
pretrain 1 "$dir/damaged" || fail "resume from the generation before"
grep -q "going back" "$dir/log" || fail "damage was not told"
same_as r1 damaged

# wrong inputs: one line, the right exit code, on 1 and 3 ranks
refused() { # exit code, words of the error line, out, option...
    local n
    for n in 1 3; do
        pretrain $n "${@:3}"
        check_error $? "$1" "$2" "$n ranks, ${*:3}"
    done
}
refused 4 "atlas" "$dir/r1" --atlas "$dir/atlas-b" --set train.steps=40
refused 4 "model.heads 2, this run asks for 4" "$dir/r1" --set model.heads=4
refused 4 "run.seed" "$dir/r1" --seed 9
refused 3 "data.held_out is '0.2'; .*checkpoint-30.h5 was trained with '0.1'" "$dir/r1" --set data.held_out=0.2
refused 3 "data.split_by is 'source_file'; .* was trained with ''" "$dir/r1" --set data.split_by=source_file
refused 3 "data.balance_by is 'source_file'" "$dir/r1" --set data.balance_by=source_file
refused 3 "run.cells is 'qc_total > 1'; .* was trained with ''" "$dir/r1" --cells "qc_total > 1"
refused 3 "train.batch is '12'; .* was trained with '6'" "$dir/r1" --set train.batch=12
head -c 3000 <(gunzip -c configs/genes/vocabulary.tsv.gz) | sed '$d' >"$dir/other.tsv"
refused 4 "vocabulary" "$dir/r1" --set data.vocabulary="$dir/other.tsv"
printf 'id\tsymbol\tensembl\thgnc\n1\tNOSUCH\tENSG99999999999\tHGNC:0\n' >"$dir/none.tsv"
refused 4 "none of its .* features is in the vocabulary" "$dir/new" --set data.vocabulary="$dir/none.tsv"
awk -F'\t' 'NR == 1 { print "id\tsymbol\tensembl\thgnc"; print "1\t" $2 "\t" $1 "\t" }' "$dir/a/genes.tsv" >"$dir/one.tsv"
refused 4 "vocabulary keeps .* of the counts" "$dir/new" --set data.vocabulary="$dir/one.tsv"
refused 4 "no modality 'protein'; it has rna" "$dir/new" --set data.modality=protein
refused 4 "no cell is left" "$dir/new" --set model.min_genes=399
refused 3 "nosuch" "$dir/new" --cells "nosuch == 'B'"
refused 4 "atlas" "$dir/new" --atlas "$dir/nowhere"
refused 5 "not empty" "$dir/r1" --fresh
refused 5 "/proc/none" /proc/none
mkdir "$dir/log-normalised"
cp "$dir/a/genes.tsv" "$dir/a/barcodes.tsv" "$dir/log-normalised"
sed '1s/integer/real/; 3,$s/\([0-9]*\)$/\1.25/' "$dir/a/matrix.mtx" >"$dir/log-normalised/matrix.mtx"
cytomill-ingest "$dir/log-normalised" --out "$dir/atlas-log" >"$dir/log" 2>&1 || fail "no atlas of fractions"
refused 4 "modality 'rna' holds [a-z-]* values; pre-training needs counts" "$dir/new" --atlas "$dir/atlas-log"
refused 3 "train.warmup" "$dir/new" --set train.warmup=30
refused 3 "model.heads" "$dir/new" --set model.heads=3
wild=(--set train.rate=10 --set train.decay=10 --set train.decay_kind=decoupled --set train.checkpoint_every=1)
refused 7 "the loss is .* or set train.on_nan to skip; the last checkpoint stays" "$dir/nan" "${wild[@]}"
ls "$dir/nan"/checkpoint-*.h5 >/dev/null 2>&1 || fail "a run that diverged keeps no checkpoint"
grep -q "the batches of step [0-9]* are in $dir/nan/bad-step-" "$dir/log" || fail "nothing says where the batches are"
[ "$(find "$dir/nan" -name 'bad-step-*-rank[012].h5' | wc -l)" -ge 3 ] || fail "not a bad-step file for each rank"
! "$python" -c 'import h5py' 2>/dev/null || "$python" - "$dir"/nan/bad-step-*.h5 >"$dir/log" 2>&1 <<'EOF' || fail "h5py on the batches of a bad step"
import h5py, math, sys
finite = []
for path in sys.argv[1:]:
    with h5py.File(path) as f:
        tokens = f["offsets"][-1]
        assert 0 < len(f["cell_id"]) == len(f["offsets"]) - 1 <= 6 and tokens > 20
        assert all(len(f[k]) == tokens for k in ("feature", "value", "target", "visible", "loss_weight"))
        assert f"bad-step-{f.attrs['step']}-rank{f.attrs['rank']}.h5" in path
        finite.append(math.isfinite(f.attrs["loss"]) and math.isfinite(f.attrs["gradient_norm"]))
assert not all(finite)
EOF
mpirun -n 3 cytomill-pretrain --config "$dir/tiny.yaml" --atlas "$dir/atlas-a" --out "$dir/new" --set train.batch=2 >"$dir/log" 2>&1
[ $? -eq 3 ] && grep -q "error\[3 .*3 replicas, but the global batch has 2 cells" "$dir/log" || fail "more ranks than cells"
[ -z "$(find "$dir/new" -mindepth 1 2>/dev/null)" ] || fail "a refused run left something"

# bad steps are left out: a run that has no others ends, one with some goes on; norms fall here, so a "spike" is above 0.7
skipped() { sed -n 's/.*"step":\([0-9]*\),.*"skipped":1,.*/\1/p' "$dir/$1/metrics.jsonl" | xargs; } # their steps
for n in 1 3; do
    pretrain $n "$dir/skip$n" "${wild[@]}" --set train.on_nan=skip --set train.max_skips=3
    check_error $? 7 "after 3 skipped steps (train.max_skips)" "$n ranks, on_nan skip"
    [ "$(skipped "skip$n" | wc -w)" = 3 ] && [ "$(grep -c 'is skipped, no update: the loss is' "$dir/log")" = 3 ] || fail "$n ranks: skipped $(skipped "skip$n")"
    pretrain $n "$dir/spike$n" --set train.spike_factor=0.7 --set train.max_skips=30 || fail "$n ranks: spikes"
    [ "$(grep -c 'is skipped, no update: the gradient norm is' "$dir/log")" = "$(skipped "spike$n" | wc -w)" ] || fail "$n ranks: spikes are not told"
    tail -n 2 "$dir/spike$n/metrics.jsonl" | grep -q '"step":30,' || fail "$n ranks: a skipped step is not counted as done"
done
[ -n "$(skipped spike1)" ] && [ "$(skipped spike1)" = "$(skipped spike3)" ] || fail "spikes depend on ranks: '$(skipped spike1)' '$(skipped spike3)'"

# a replica whose weights are not those of the others ends the run before it gets into a checkpoint
mpirun -n 3 "$B/tests/tool_spoil" --config "$dir/tiny.yaml" --atlas "$dir/atlas-a" --out "$dir/spoilt" --set train.check_replicas=4 >"$dir/log" 2>&1
check_error $? 7 "of 3 ranks of the data axis, rank 2 on [^ ]* not as rank 0 on [^ ]*; the first tensor that differs is .*norm" "a replica that differs"
[ -e "$dir/spoilt/metrics.jsonl" ] && [ ! -e "$dir/spoilt/checkpoint-8.h5" ] || fail "weights that differ between replicas were saved"

# donors are held out whole, and cells can be drawn equally often from every donor
awk 'BEGIN { print "barcode\tdonor"; for (c = 1; c <= 220; c++) print "CELL" c "-1\t" (c <= 100 ? "d1" : c <= 160 ? "d2" : c <= 190 ? "d3" : "d4") }' >"$dir/labels.tsv"
cytomill-ingest "$dir/a" --out "$dir/atlas-d" --obs-table "$dir/labels.tsv" >"$dir/log" 2>&1 || fail "no atlas with donors"
pretrain 2 "$dir/donor" --atlas "$dir/atlas-d" --set data.split_by=donor --set data.balance_by=donor --set train.steps=4 --set train.warmup=0 || fail "split by donor"
held=$(sed -n 's/.* train on and \([0-9]*\) held out.*/\1/p' "$dir/log")
case $held in 97|98|99|100|57|58|59|60|27|28|29|30) ;; *) fail "$held cells held out: not one donor" ;; esac
refused 4 "not categorical" "$dir/new" --atlas "$dir/atlas-d" --set data.balance_by=qc_total

# a full disk: exit 5, the last good checkpoint stays and the run goes on from it
cp -r "$dir/iTERM" "$dir/full"; rm "$dir/full/checkpoint-30.h5"
before=$(cksum <"$dir/full/checkpoint-24.h5")
(ulimit -f 8000; pretrain 1 "$dir/full"); rc=$?
[ $rc -eq 5 ] || fail "exit $rc instead of 5 on a full disk"
[ "$before" = "$(cksum <"$dir/full/checkpoint-24.h5")" ] && [ ! -e "$dir/full/checkpoint-30.h5" ] || fail "a full disk hurt a checkpoint"
[ -z "$(find "$dir/full" -name "*partial*")" ] || fail "a full disk left a partial file"
pretrain 1 "$dir/full" || fail "going on after a full disk"
same_as r1 full
exit 0
