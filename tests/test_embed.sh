#!/usr/bin/env bash
# plan: limit=240
# cytomill-embed on a small file: every row present or with its reason, obs carried, file bytes equal for 1, 2 and
# 3 ranks, rows equal when the input is shuffled or split, the own file of a large embedding, restart after
# kill -9 and after a stop, wrong input refused with its exit code. Files are read with anndata, which their users use.
set -u
. tests/job_checks
need_python anndata
make_cells() { "$python" -W ignore tests/make_cells.py "$dir/$1.h5ad" $vocabulary 300 "${2:-}" || fail "no $1.h5ad"; }
embed() { cytomill-embed --model "$dir/m.h5" "$@" 2>"$dir/log"; }

"$B/tests/tool_untrained" "$dir/m.h5" $vocabulary 1 3 model.layers=3 model.width=96 model.heads=3 model.value_width=32 \
    model.max_genes=256 model.name=tiny model.licence=CC0 || fail "no model"
make_cells whole; make_cells shuffled shuffle; make_cells first first; make_cells second second
make_cells foreign foreign; make_cells lognorm lognorm

# one, two, three ranks: the same bytes
for n in 1 2 3; do
    mpirun -n $n cytomill-embed --model "$dir/m.h5" "$dir/whole.h5ad" --out "$dir/e$n.h5ad" --set embed.chunk=32 \
        2>"$dir/log" || fail "embed on $n ranks"
    [ -e "$dir/e$n.h5ad.partial" ] && fail "a partial file is left"
    [ -s "$dir/e$n.h5ad.run.json" ] || fail "no run record"
    cmp "$dir/e1.h5ad" "$dir/e$n.h5ad" || fail "$n ranks write other bytes"
done

# other chunks, other micro-batches, shuffled, split, own file, compressed, selected
embed "$dir/whole.h5ad" --out "$dir/batch.h5ad" --set embed.chunk=7 --set embed.tokens=64 || fail "small batches"
for part in shuffled first second; do embed "$dir/$part.h5ad" --out "$dir/e-$part.h5ad" || fail "$part"; done
embed "$dir/whole.h5ad" --out "$dir/own.h5ad" --set embed.obsm_max_gib=0 || fail "own file"
embed "$dir/whole.h5ad" --out "$dir/packed.h5ad" --set embed.compress=4 || fail "compressed"
embed "$dir/whole.h5ad" --out "$dir/some.h5ad" --cells "cell_type == 'B' and depth > 200" || fail "selected"
"$python" -W ignore - "$dir" <<'EOF' || fail "what anndata reads is wrong"
import sys, anndata, numpy as np
read = lambda name: anndata.read_h5ad(f"{sys.argv[1]}/{name}.h5ad")
source, e = read("whole"), read("e1")
assert list(e.obs_names) == list(source.obs_names)
for column in source.obs.columns:
    a, b = source.obs[column], e.obs[column]
    assert a.astype(object).where(a.notna(), None).tolist() == b.astype(object).where(b.notna(), None).tolist(), column
z = e.obsm["X_tiny"]
assert z.shape == (300, 96) and z.dtype == np.float32
none = np.arange(300) % 17 == 5
assert (e.obs.embedded.values == ~none).all() and np.isnan(z[none]).all() and np.isfinite(z[~none]).all()
assert (e.obs.embedding_reason[none] == "no gene of the vocabulary").all() and e.obs.embedding_reason[~none].isna().all()
assert len(np.unique(z[~none], axis=0)) == (~none).sum(), "cells that differ have the same embedding"
facts = e.uns["cytomill"]
import h5py
with h5py.File(f"{sys.argv[1]}/m.h5") as m: stored = m["config"][()].decode()
assert facts["weights"].startswith("xxh3:") and len(facts["weights"]) == 21
assert "\n  layers: 3\n  width: 96\n" in facts["configuration"] and "model:" in stored
assert facts["version"].startswith("cytomill ") and "HDF5" in facts["version"]
assert facts["instruction_set"] in ("generic", "avx2", "avx512") and facts["precision"] in ("fp32", "bf16")
assert facts["counts"] == "X" and facts["products"] and len(facts["input_sha256"]) == 64
assert facts["weights_licence"] == "CC0" and facts["model"] == "tiny" and len(facts["vocabulary_sha256"]) == 64
for name in ["batch", "e-shuffled", "e-first", "e-second", "packed"]:
    other = read(name)
    assert other.obsm["X_tiny"].tobytes() == e[other.obs_names].obsm["X_tiny"].tobytes(), name
assert read("e-first").n_obs + read("e-second").n_obs == 300
own = read("own")
assert own.X.tobytes() == z.tobytes() and own.var_names[95] == "tiny_95" and "X_tiny" not in own.obsm
some = read("some")
assert list(some.obs_names) == list(source.obs_names[(source.obs.cell_type == "B") & (source.obs.depth > 200)])
assert some.obsm["X_tiny"].tobytes() == e[some.obs_names].obsm["X_tiny"].tobytes()
EOF

# from an atlas: its order and its names; two sources with the same names
cytomill-ingest "$dir/whole.h5ad" "$dir/first.h5ad" --out "$dir/atlas" 2>"$dir/log" || fail "ingest"
for n in 1 3; do
    mpirun -n $n cytomill-embed --model "$dir/m.h5" "$dir/atlas" --out "$dir/a$n.h5ad" 2>"$dir/log" || fail "atlas"
done
cmp "$dir/a1.h5ad" "$dir/a3.h5ad" || fail "other bytes of an atlas on 3 ranks"
# a network that overflows: every row is there, none is embedded
"$B/tests/tool_untrained" "$dir/nan.h5" $vocabulary 1 1e37 model.layers=1 model.width=32 model.heads=1 model.name=nan || fail "no nan model"
cytomill-embed --model "$dir/nan.h5" "$dir/first.h5ad" --out "$dir/nan.h5ad" 2>"$dir/log" || fail "nan"
grep -q 'embedding is not finite' "$dir/log" || fail "cells without a finite embedding are not reported"
"$python" -W ignore - "$dir" <<'EOF' || fail "embedding of an atlas, or of a network that overflows"
import sys, glob, anndata, numpy as np
read = lambda name: anndata.read_h5ad(f"{sys.argv[1]}/{name}.h5ad")
a, e = read("a1"), read("e1")
atlas = anndata.concat([anndata.read_h5ad(f) for f in sorted(glob.glob(f"{sys.argv[1]}/atlas/mod/rna/shard-*.h5ad"))])
assert "counts" not in a.uns["cytomill"], "an atlas has no place to take counts from"
assert list(a.obs_names) == list(atlas.obs_names) and a.obs_names.is_unique and a.n_obs == 400
assert a.obsm["X_tiny"].tobytes() == e[a.obs.source_obs_name].obsm["X_tiny"].tobytes(), "rows do not belong to their cells"
nan = read("nan")
assert np.isnan(nan.obsm["X_nan"]).all() and not nan.obs.embedded.any() and nan.obs.embedding_reason.notna().all()
EOF

# killed in the middle: the partial file opens; the rest, and only the rest, is done by the next run
done_chunks() { # records of the ledger that are not blank
    "$python" -c 'import sys; d=open(sys.argv[1],"rb").read()[512:]; print(sum(any(d[i:i+16]) for i in range(0,len(d),16)))' "$1" 2>/dev/null || echo 0
}
slow=(--set embed.chunk=3 --set embed.tokens=64) # 100 chunks
mpirun -n 2 cytomill-embed --model "$dir/m.h5" "$dir/whole.h5ad" --out "$dir/killed.h5ad" "${slow[@]}" 2>"$dir/log" &
launcher=$!
until [ "$(done_chunks "$dir/killed.h5ad.partial.ledger")" -ge 10 ] || ! kill -0 $launcher 2>/dev/null; do sleep 0.02; done
kill -9 $(pgrep -P $launcher) 2>/dev/null
wait $launcher && fail "the run ended before it could be killed"
[ -e "$dir/killed.h5ad" ] && fail "a killed run left a file under the final name"
before=$(done_chunks "$dir/killed.h5ad.partial.ledger")
[ "$before" -lt 100 ] || fail "nothing is left to do after the kill"
"$python" -W ignore - "$dir/killed.h5ad.partial" <<'EOF' || fail "the partial file does not open, or could not be damaged"
import sys, anndata, h5py
assert anndata.read_h5ad(sys.argv[1]).n_obs == 300
with h5py.File(sys.argv[1], "r+") as f: f["obsm/X_tiny"][0, 0] = 99 # cell 0 lies in the first chunk
EOF
embed "$dir/whole.h5ad" --out "$dir/killed.h5ad" "${slow[@]}" || fail "resume"
embed "$dir/whole.h5ad" --out "$dir/straight.h5ad" "${slow[@]}" || fail "straight"
cmp "$dir/killed.h5ad" "$dir/straight.h5ad" || fail "resumed bytes differ"
"$python" - "$dir/killed.h5ad.run.json" "$before" <<'EOF' || fail "the second run did not do just the rest"
import json, sys
cells, before = json.load(open(sys.argv[1]))["cells_this_run"], int(sys.argv[2])
assert 300 - 3 * before <= cells <= 300 - 3 * (before - 1), (cells, before) # one chunk was damaged by hand
EOF

# asked to stop: 75, then the same command ends it
(sleep 0.4; touch "$dir/stop") &
embed "$dir/whole.h5ad" --out "$dir/stopped.h5ad" "${slow[@]}" --stop-file "$dir/stop"
rc=$?
wait
[ $rc -eq 75 ] || fail "exit $rc after a stop file instead of 75"
embed "$dir/whole.h5ad" --out "$dir/stopped.h5ad" "${slow[@]}" || fail "resume after a stop"
cmp "$dir/stopped.h5ad" "$dir/straight.h5ad" || fail "bytes after a stop differ"

# killed after the commit: the same command compresses, and writes the record
packed=("$dir/whole.h5ad" --set embed.compress=4)
cp "$dir/own.h5ad" "$dir/late.h5ad"
for n in 1 3; do
    mpirun -n $n cytomill-embed --model "$dir/m.h5" "${packed[@]}" --set embed.obsm_max_gib=0 --out "$dir/late.h5ad" 2>"$dir/log" &&
        grep -q 'complete already' "$dir/log" || fail "a file that is complete but not compressed, $n ranks"
    [ -s "$dir/late.h5ad.run.json" ] || fail "the record of a complete file was not written"
done
embed "${packed[@]}" --set embed.obsm_max_gib=0 --out "$dir/squeezed.h5ad" || fail "compressed"
cmp "$dir/late.h5ad" "$dir/squeezed.h5ad" || fail "a complete file was not compressed"

# a log has progress lines with rate and time left; the place of the counts is told
CYTOMILL_PROGRESS_S=0 embed "$dir/whole.h5ad" --out "$dir/lines.h5ad" || fail "lines"
grep -qE '^chunk=[0-9]+ of=[0-9]+ cells_per_s=[0-9.e+]+ eta=[0-9]+s$' "$dir/log" || fail "no progress lines in a log"
[ "$(grep -c 'counts taken from X (auto' "$dir/log")" -eq 1 ] || fail "the place of the counts is not told"

# complete already; unfinished or finished work of another kind
embed "$dir/whole.h5ad" --out "$dir/e1.h5ad" --set embed.chunk=32 && grep -q 'complete already' "$dir/log" || fail "not seen as complete"
run() { cytomill-embed --model "$dir/m.h5" "$@"; }
run3() { mpirun -n 3 cytomill-embed --model "$dir/m.h5" "$@"; }
expect 5 'choose another --out' run "$dir/shuffled.h5ad" --out "$dir/e1.h5ad"
expect 5 'fresh' run "$dir/whole.h5ad" --out "$dir/e1.h5ad" --fresh
expect 5 'no/such' run3 "$dir/whole.h5ad" --out "$dir/no/such/e.h5ad"
for how in run run3; do
    expect 2 'no input' $how --out "$dir/x.h5ad"
    expect 2 'no output' $how "$dir/whole.h5ad"
    expect 4 'model.layers' $how "$dir/whole.h5ad" --out "$dir/x.h5ad" --set model.layers=7
    expect 4 'none of its' $how "$dir/foreign.h5ad" --out "$dir/x.h5ad"
    expect 4 'keeps .* of its counts, below data.min_vocabulary_share = 1' $how "$dir/whole.h5ad" --out "$dir/x.h5ad" --set data.min_vocabulary_share=1
    expect 4 'log-normalised' $how "$dir/lognorm.h5ad" --out "$dir/x.h5ad"
    expect 4 'rna' $how "$dir/whole.h5ad" --out "$dir/x.h5ad" --set data.modality=atac
    expect 3 'cell_typ' $how "$dir/whole.h5ad" --out "$dir/x.h5ad" --cells "cell_typ == 'B'"
    expect 4 'whole.h5ad' $how "$dir/first.h5ad" --out "$dir/x.h5ad" --model "$dir/whole.h5ad"
done
expect 2 'no model' cytomill-embed "$dir/whole.h5ad" --out "$dir/x.h5ad"
[ -e "$dir/x.h5ad" ] || [ -e "$dir/x.h5ad.partial" ] && fail "a refused run left a file"

mkdir "$dir/full"
if mount -t tmpfs -o size=64k none "$dir/full" 2>/dev/null; then
    for how in run run3; do
        expect 5 'no room\|No space' $how "$dir/whole.h5ad" --out "$dir/full/e.h5ad"
        [ -z "$(ls -A "$dir/full")" ] || fail "a full disk holds something unfinished: $(ls "$dir/full")"
    done
fi

make_many_cells "$dir/many"
expect 5 'file size limit\|File too large' limited run "$dir/many" --out "$dir/full/large.h5ad"
[ -z "$(ls -A "$dir/full")" ] || fail "a limit on file sizes left something unfinished: $(ls "$dir/full")"

run "$dir/whole.h5ad" --out "$dir/x.h5ad" --dry-run 2>"$dir/log" || fail "dry run"
grep -q 'about .* for 300 cells' "$dir/log" || fail "the dry run predicts nothing"
[ -e "$dir/x.h5ad.partial" ] && fail "a dry run wrote a file"
exit 0
