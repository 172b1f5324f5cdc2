#!/usr/bin/env bash
# Generated cells are like the real ones (PBMC 3k).
# plan: ranks=1 limit=120
# Mean depth and non-zeros within 4 %, correlations of the 200 strongest genes correlate above 0.9 with the real
# ones, all rows distinct, same bytes on 1 and 3 ranks; inputs of unequal size that anndata reads, in the
# storage of the ingest benchmark.
set -u
. tests/job_checks
cytomill-ingest tests/data/pbmc3k --out "$dir/real" >"$dir/log" 2>&1 || fail "ingest of PBMC 3k"
tool=$B/tests/tool_generate
$tool atlas "$dir/real" "$dir/made" 3000 1000 || fail "generating on one rank"
mpirun -n 3 $tool atlas "$dir/real" "$dir/made-3" 3000 1000 || fail "generating on 3 ranks"
diff -r "$dir/made" "$dir/made-3" || fail "other bytes on 3 ranks"
mpirun -n 3 $tool h5ad "$dir/real" "$dir/inputs" 1000 4 || fail "generating inputs"
/usr/bin/python3 - "$dir" <<'PY' || fail "generated cells are not like the real ones"
import sys, glob
import anndata, h5py, numpy as np, scipy.sparse as sp
folder = sys.argv[1]
def load(name):
    return sp.vstack([anndata.read_h5ad(p).X for p in sorted(glob.glob(f"{folder}/{name}/mod/rna/*.h5ad"))]).tocsr()
real, made = load("real"), load("made")
assert made.shape == (3000, real.shape[1])
depth = lambda x: np.asarray(x.sum(1)).ravel()
nnz = lambda x: np.diff(x.indptr)
for name, f in ("depth", depth), ("non-zeros", nnz):
    ratio = f(made).mean() / f(real).mean()
    assert 0.96 < ratio < 1.04, f"mean {name} is {ratio:.3f} times the real one"
    for q in 5, 50, 95:
        ratio = np.percentile(f(made), q) / np.percentile(f(real), q)
        assert 0.93 < ratio < 1.07, f"{q} % of {name}: {ratio:.3f}"
def log_normalised(x):
    x = sp.diags(1e4 / depth(x)) @ x
    x.data = np.log1p(x.data)
    return x
a, b = log_normalised(real), log_normalised(made)
top = np.argsort(-np.asarray(a.mean(0)).ravel())[:200]
pairs = np.triu_indices(200, 1)
r = np.corrcoef(np.corrcoef(a[:, top].toarray().T)[pairs], np.corrcoef(b[:, top].toarray().T)[pairs])[0, 1]
assert r > 0.9, f"correlations of genes correlate by {r:.3f} only"
assert np.array_equal(made.data, np.round(made.data)) and made.data.min() >= 1
rows = {(made.indices[s:e].tobytes(), made.data[s:e].tobytes()) for s, e in zip(made.indptr, made.indptr[1:])}
assert len(rows) == 3000, f"only {len(rows)} of 3000 rows are distinct"
inputs = [anndata.read_h5ad(p) for p in sorted(glob.glob(f"{folder}/inputs/*.h5ad"))]
sizes = [x.n_obs for x in inputs]
assert sum(sizes) == 1000 and len(set(sizes)) == 4, sizes
with h5py.File(f"{folder}/inputs/cells-000.h5ad") as f:
    d = f["X/data"]
    assert d.chunks == (65536,) and d.compression == "gzip" and d.compression_opts == 4 and d.shuffle
# an input's first cell is the atlas's cell of that number
places = {n: i for i, n in enumerate(np.concatenate([anndata.read_h5ad(p).obs_names for p in sorted(glob.glob(f"{folder}/made/mod/rna/*.h5ad"))]))}
assert (inputs[0].X[0] != made[places["generated-0"]]).nnz == 0
PY
exit 0
