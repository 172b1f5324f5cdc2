#!/usr/bin/env bash
# plan: ranks=1 limit=240
# One small matrix in every layout, number type and filter that .h5ad files come in (make_layouts.py): all of them as
# inputs of one atlas, on 1, 2 and 3 ranks. Every copy must read as the same values and obs, and the bytes of the
# atlas must not depend on the ranks. --counts=auto must find the counts wherever they lie.
set -u
. tests/environment
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python=/usr/bin/python3
$python -c 'import anndata, h5py, scipy' 2>/dev/null || { echo "skipped: no anndata for $python (Debian package python3-anndata)"; exit 77; }
mkdir "$work/in"
$python tests/make_layouts.py "$work/in" >"$work/list" 2>"$work/made" || { cat "$work/made"; exit 1; }
# gzip, LZF, and each other filter whose library python can load here
for name in type_f4 dense_chunks lz4 blosc bzip2 zstd csc dense unsorted zeros raw layer late fletcher contiguous nullable; do
    grep -q "/$name.h5ad " "$work/list" || grep -qx "absent: $name" "$work/made" || { echo "no file $name was made"; exit 1; }
done
inputs=$(cut -d' ' -f1 "$work/list")
for n in 1 2 3; do
    # shellcheck disable=SC2086
    mpirun -n $n cytomill-ingest $inputs --out "$work/atlas$n" --set ingest.shard_rows=512 >"$work/log" 2>&1 || { echo "$n ranks:"; cat "$work/log"; exit 1; }
    (cd "$work/atlas$n" && find . -type f | sort | xargs sha256sum | sha256sum) >"$work/digest$n"
done
cmp "$work/digest1" "$work/digest2" && cmp "$work/digest1" "$work/digest3" || { echo "the bytes depend on the number of ranks"; exit 1; }
while read -r file place; do
    awk -F'\t' -v f="$file" -v p="rna from $place, counts" '$1 == "source_features" && $2 == f && $4 == p { ok = 1 } END { exit !ok }' \
        "$work/atlas3/ingest_report.tsv" || { echo "$file: counts were not taken from $place"; exit 1; }
done <"$work/list"
$python - "$work" <<'P'
import glob, sys, warnings
warnings.filterwarnings("ignore")
import anndata, numpy as np, pandas as pd, scipy.sparse as sp
work = sys.argv[1]
x, want = np.load(work + "/in/x.npy"), pd.read_csv(work + "/in/obs.csv", index_col=0, float_precision="round_trip")
shards = [anndata.read_h5ad(f) for f in sorted(glob.glob(work + "/atlas3/mod/rna/shard-*.h5ad"))]
got = sp.vstack([sp.csr_matrix(s.X) for s in shards]).toarray()
obs = pd.concat([s.obs.astype(object) for s in shards])
for source in [l.split()[0] for l in open(work + "/list")]:
    mine = np.flatnonzero((obs["source_file"] == source).values)
    mine = mine[np.argsort(obs["source_row"].values[mine].astype(int))]
    assert np.array_equal(got[mine], x), f"{source}: {np.sum(got[mine] != x)} values differ"
    o = obs.iloc[mine]
    assert list(o["source_obs_name"]) == list(want.index), source
    assert list(o["kind"]) == list(want["kind"]), f"{source}: kind"
    assert np.array_equal(o["depth"].astype(float), want["depth"]), f"{source}: depth"
    assert np.array_equal(o["n"].astype(int), want["n"]), f"{source}: n"
    assert np.array_equal(o["flag"].astype(bool), want["flag"]), f"{source}: flag"
    if source.endswith("/nullable.h5ad"):
        missing = np.arange(len(x)) % 5 == 0
        for name in ("whole", "truth"): assert np.array_equal(pd.isna(o[name]).values, missing), name
        assert [int(v) for v in o["whole"].values[~missing]] == list(np.flatnonzero(~missing)), "whole"
        assert [bool(v) for v in o["truth"].values[~missing]] == [i % 2 == 0 for i in np.flatnonzero(~missing)], "truth"
        assert [w for w, m in zip(o["words"], missing) if not m] == [f"w{i}" for i in np.flatnonzero(~missing)], "words"
P
