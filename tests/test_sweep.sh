#!/usr/bin/env bash
# plan: limit=240
# cytomill-sweep on a small atlas: results and hits with the same bytes on 1, 2 and 3 ranks, after kill -9, and when
# two jobs of an array share the work; hits.tsv is what results.h5 says, in the right order; group, goal, read-out and
# over-expression; unknown genes named with their nearest; wrong options refused with their exit codes.
set -u
. tests/job_checks
need_python "anndata, h5py"
same() { # folder...: all with the bytes of the first
    local first=$1 other; shift
    for other; do
        for file in results.h5 hits.tsv hits_columns.tsv; do
            cmp "$dir/$first/$file" "$dir/$other/$file" || fail "$other/$file differs from $first"
        done
        [ -z "$(find "$dir/$other" -name '*partial*' -o -name '*ledger*')" ] || fail "$other: something unfinished is left"
    done
}

"$B/tests/tool_untrained" "$dir/m.h5" $vocabulary 1 3 model.layers=2 model.width=64 model.heads=4 model.value_width=32 \
    model.max_genes=256 model.name=tiny || fail "no model"
"$python" -W ignore tests/make_cells.py "$dir/cells.h5ad" $vocabulary 300 || fail "no cells"
cytomill-ingest "$dir/cells.h5ad" --out "$dir/atlas" 2>"$dir/log" || fail "ingest"
base=(--model "$dir/m.h5" --atlas "$dir/atlas" --set sweep.min_cells=10 --set sweep.max_cells=150)
sweep() { cytomill-sweep "${base[@]}" "$@" 2>"$dir/log" || fail "sweep $*"; }

# one, two, three ranks; a panel by the default rule
for n in 1 2 3; do
    mpirun -n $n cytomill-sweep "${base[@]}" --out "$dir/s$n" 2>"$dir/log" || fail "sweep on $n ranks"
done
same s1 s2 s3
rm "$dir/s1/run.json" # as if killed after the commit
sweep --out "$dir/s1"; grep -q 'complete already' "$dir/log" || fail "not seen as complete"
same s1 s2
[ -s "$dir/s1/run.json" ] || fail "the record of a complete screen was not written"
sweep --out "$dir/batch" --set embed.tokens=64; same s1 batch

# the table is what results.h5 says
cat >"$dir/check.py" <<'EOF'
import csv, sys
import h5py, numpy as np
folder, least, top = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
f = h5py.File(f"{folder}/results.h5")
s = {k: v[:] for k, v in f["sets"].items()}
symbol = [x.decode() for x in f["panel/symbol"][:]]
n = s["cells"].astype(float)
with np.errstate(invalid="ignore", divide="ignore"):
    for name in ["effect", "expected", "interaction"]:
        mean = s[f"sum_{name}"] / n
        np.testing.assert_allclose(s[name], mean, rtol=1e-12)
        se = np.sqrt(np.maximum(s[f"sum_{name}_squared"] - n * mean**2, 0) / (n - 1) / n)
        np.testing.assert_allclose(s[f"{name}_se"][n > 1], se[n > 1], rtol=1e-4, atol=1e-12)
m, order = len(symbol), int(f.attrs["order"])
sets = [tuple(g[g >= 0]) for g in s["genes"]]
from math import comb
assert len(set(sets)) == len(sets) == sum(comb(m, k) for k in range(1, order + 1))
assert all(len(g) == k for g, k in zip(sets, s["size"]))
carriers = f["panel/cells"][:]
if f.attrs["mode"].decode() == "knock-out":
    for g, c, bad in zip(sets, s["cells"], s["not_finite"]): assert c + bad <= min(carriers[list(g)])
    assert (s["cells"] + s["not_finite"])[:m].tolist() == carriers.tolist()
    assert (s["cells"] + s["not_finite"]).tolist() == s["carriers"].tolist()
assert s["carriers"][:m].tolist() == carriers.tolist() and f.attrs["min_cells"] == least
for g, c in zip(sets, s["carriers"]): assert c <= min(carriers[list(g)])
rows = list(csv.DictReader(open(f"{folder}/hits.tsv"), delimiter="\t"))
assert [r["column"] for r in csv.DictReader(open(f"{folder}/hits_columns.tsv"), delimiter="\t")] == list(rows[0])
good = s["cells"] >= least
key = np.where(s["size"] > 1, np.abs(s["interaction"]), np.abs(s["effect"]))
def ranked(which): return sorted(np.flatnonzero(which & good), key=lambda i: (-key[i], i))[:top]
want = ranked(s["size"] > 1) + ranked(s["size"] == 1) + list(np.flatnonzero(~good))[:top]
assert [int(r["set"]) for r in rows] == want, "order of the hits"
for r in rows:
    i = int(r["set"])
    assert r["genes"] == "+".join(symbol[g] for g in sets[i]) and int(r["n"]) == s["cells"][i]
    assert r["n_each"] == "+".join(str(carriers[g]) for g in sets[i])
    assert int(r["n_all"]) == s["carriers"][i]
    assert (r["rank"] == "") == (not good[i])
    if s["cells"][i]: np.testing.assert_allclose(float(r["interaction"]), s["interaction"][i], rtol=1e-8, atol=1e-300)
for name in f["sets"]: assert f["sets"][name].attrs["description"], name
print(good.sum(), (~good).sum(), len(symbol))
EOF
# other hits of complete results, on other ranks, and back
mpirun -n 3 cytomill-sweep "${base[@]}" --set sweep.min_cells=100 --set sweep.top=5 --out "$dir/s2" 2>"$dir/log" || fail "ranking anew"
"$python" "$dir/check.py" "$dir/s2" 100 5 >/dev/null || fail "hits.tsv does not follow sweep.min_cells and sweep.top"
cmp -s "$dir/s1/hits.tsv" "$dir/s2/hits.tsv" && fail "hits.tsv was left as it was"
sweep --out "$dir/s2"; same s1 s2
facts=$("$python" "$dir/check.py" "$dir/s1" 10 1000) || fail "hits.tsv is not what results.h5 says"
[ "${facts##* }" = 12 ] || fail "the default panel has not 12 genes: $facts"

# killed in the middle, restarted on other ranks: the same bytes
slow=(--set sweep.chunk=1 --set sweep.panel_size=16 --set embed.tokens=64)
sweep --out "$dir/straight" "${slow[@]}"
mpirun -n 2 cytomill-sweep "${base[@]}" --out "$dir/killed" "${slow[@]}" 2>"$dir/log" &
launcher=$!
done_sets() { "$python" -c 'import sys; d=open(sys.argv[1],"rb").read()[512:]; print(sum(any(d[i:i+16]) for i in range(0,len(d),16)))' \
    "$dir/killed/results.h5.partial.ledger" 2>/dev/null || echo 0; }
until [ "$(done_sets)" -ge 5 ] || ! kill -0 $launcher 2>/dev/null; do sleep 0.02; done
kill -9 $(pgrep -P $launcher) 2>/dev/null
wait $launcher && fail "the sweep ended before it could be killed"
[ -e "$dir/killed/hits.tsv" ] || [ -e "$dir/killed/results.h5" ] && fail "a killed sweep left something under a final name"
mpirun -n 3 cytomill-sweep "${base[@]}" --out "$dir/killed" "${slow[@]}" 2>"$dir/log" || fail "resume"
grep -q 'results.h5.partial: resuming' "$dir/log" || fail "the second run did not resume"
same straight killed

# two jobs of a Slurm array share one output
for task in 0 1; do
    SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_STEP=1 \
        cytomill-sweep "${base[@]}" --out "$dir/array" "${slow[@]}" 2>"$dir/log$task" &
    jobs[$task]=$!
done
for task in 0 1; do wait ${jobs[$task]} || { cat "$dir/log$task"; fail "array job $task"; }; done
same straight array

# triples, a group, a goal, read-out genes; over-expression; a panel from a file
panel=$(awk -F'\t' 'NR>1 {print $3}' "$dir/s1/hits.tsv" | tr + '\n' | sort -u)
genes=$(head -6 <<<"$panel") readout=$(sed -n 7,8p <<<"$panel" | paste -sd,)
printf '%s\n' "# my panel" $genes >"$dir/panel.txt"
read -r first second _ <<<"$(echo $genes)"
sweep --out "$dir/goal" --genes "$dir/panel.txt" --order 3 --group "cell_type == 'B'" --goal "cell_type == 'T'" \
    --set sweep.readout="$readout"
"$python" "$dir/check.py" "$dir/goal" 10 1000 >/dev/null || fail "goal: hits.tsv is not what results.h5 says"
"$python" - "$dir/goal/results.h5" <<'EOF' || fail "read-out"
import sys, h5py, numpy as np
f = h5py.File(sys.argv[1])
shift, cells = f["sets/readout_sum"][:], f["sets/cells"][:]
assert shift.shape == (41, 2) and np.isfinite(shift).all(), shift.shape # 6 + 15 + 20 sets
assert (shift[cells == 0] == 0).all() and (shift[cells > 0] != 0).all()
assert f["readout/symbol"].shape == (2,) and f.attrs["goal_cells_used"] > 0
EOF
sweep --out "$dir/over" --genes "$first,$second" --mode over-expression --set sweep.top=1
"$python" "$dir/check.py" "$dir/over" 10 1 >/dev/null || fail "over: hits.tsv is not what results.h5 says"
"$python" - "$dir" <<'EOF' || fail "over-expression"
import sys, anndata, glob, h5py, numpy as np
f = h5py.File(f"{sys.argv[1]}/over/results.h5")
a = anndata.read_h5ad(glob.glob(f"{sys.argv[1]}/atlas/mod/rna/shard-*.h5ad")[0])
assert (f["sets/cells"][:] == f.attrs["cells_used"]).all(), "a cell was left out"
assert (f["sets/carriers"][:] < f.attrs["cells_used"]).all() and (f["sets/carriers"][:] > 0).all(), "who carries them?"
for name, raised in zip(f["panel/ensembl"].asstr()[:], f["panel/raised_to"][:]):
    x = a.X[:, np.flatnonzero(a.var["id"] == name)[0]].toarray().ravel()
    x = np.sort(x[x > 0])
    assert raised == x[int(np.ceil(0.99 * len(x))) - 1], (name, raised)
EOF

# refused
"$python" -W ignore tests/make_cells.py "$dir/log.h5ad" $vocabulary 40 lognorm || fail "no log-normalised cells"
cytomill-ingest "$dir/log.h5ad" --out "$dir/atlas-log" 2>"$dir/log" || fail "ingest of log-normalised cells"
run() { cytomill-sweep "${base[@]}" "$@"; }
run3() { mpirun -n 3 cytomill-sweep "${base[@]}" "$@"; }
for how in run run3; do
    expect 4 "$first"'X (near' $how --out "$dir/x" --genes "$second,${first}X"
    expect 3 'given twice' $how --out "$dir/x" --genes "$first,$second,$first"
    expect 3 'read-out' $how --out "$dir/x" --genes "$first" --set sweep.readout="$first"
    expect 3 'cell_typ' $how --out "$dir/x" --group "cell_typ == 'B'"
    expect 4 'select' $how --out "$dir/x" --group "cell_type == 'nobody'"
    expect 2 'no output' $how
    expect 4 'keeps .* of its counts, below data.min_vocabulary_share' $how --out "$dir/x" --set data.min_vocabulary_share=1
    expect 4 'log-normalised' $how --out "$dir/x" --atlas "$dir/atlas-log"
    expect 5 'proc' $how --out /proc/no/such/folder
done
mkdir "$dir/full"
if mount -t tmpfs -o size=32k none "$dir/full" 2>/dev/null; then
    for how in run run3; do
        expect 5 'no room\|No space' $how --out "$dir/full"
        [ -z "$(find "$dir/full" -name 'hits*' -o -name results.h5)" ] || fail "a full disk holds something under a final name"
    done
fi
# no root needed: the results of half a million sets do not fit a limit on file sizes
expect 5 'file size limit\|File too large' limited run --out "$dir/limited" --order 4 --set sweep.panel_size=60
[ -z "$(find "$dir/limited" -name 'hits*' -o -name 'results.h5')" ] || fail "a limit on file sizes left something under a final name"
expect 5 'not this sweep' run --out "$dir/s1" --order 1
expect 5 'results.h5: .*fresh' run --out "$dir/s1" --fresh
mkdir "$dir/begun"; : >"$dir/begun/results.h5.partial"
expect 5 'results.h5.partial: .*fresh' run --out "$dir/begun" --fresh
expect 4 'not an atlas' cytomill-sweep --model "$dir/m.h5" --atlas "$dir/cells.h5ad" --out "$dir/x"
[ -e "$dir/x" ] && fail "a refused sweep left a folder"
run --out "$dir/x" --dry-run 2>"$dir/log" || fail "dry run"
grep -q '78 sets' "$dir/log" && grep -q 'measured' "$dir/log" || fail "the dry run predicts nothing"
[ -e "$dir/x" ] && fail "a dry run wrote something"
exit 0
