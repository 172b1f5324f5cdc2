#!/usr/bin/env bash
# plan: limit=60
# One large input is cut between ranks by its non-zeros, not by its rows: within 10 % of the mean on 2 and 3 ranks for
# a CSR .h5ad and a 10x .h5 of 1.3 million values whose first cells are far longer than the last; and for both in a row.
set -u
. tests/job_checks
need_python "h5py, numpy"
"$python" - "$dir" <<'EOP' || fail "no inputs"
import sys, h5py, numpy as np
out = sys.argv[1]
genes, cells = 3000, 2000
rng = np.random.default_rng(3)
length = np.sort(rng.integers(20, 1280, cells))[::-1].copy()
indptr = np.concatenate([[0], np.cumsum(length)]).astype("i8")
indices = np.concatenate([np.sort(rng.permutation(genes)[:n]) for n in length]).astype("i4")
data = rng.integers(1, 9, len(indices)).astype("i4")
assert len(indices) > 1.2e6
text = lambda values: np.array([v.encode() for v in values])
with h5py.File(f"{out}/cells.h5ad", "w") as f:
    x = f.create_group("X")
    x.attrs["encoding-type"], x.attrs["encoding-version"], x.attrs["shape"] = "csr_matrix", "0.1.0", (cells, genes)
    for name, v in (("data", data.astype("f4")), ("indices", indices), ("indptr", indptr)):
        x.create_dataset(name, data=v, chunks=(65536,) if len(v) > 65536 else None)
    for name, n in (("obs", cells), ("var", genes)):
        g = f.create_group(name)
        g.attrs["encoding-type"], g.attrs["encoding-version"], g.attrs["_index"] = "dataframe", "0.2.0", "_index"
        g.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
        g.create_dataset("_index", data=[f"{name}{i}" for i in range(n)], dtype=h5py.string_dtype())
with h5py.File(f"{out}/cells.h5", "w") as f:
    m = f.create_group("matrix")
    m["barcodes"], m["data"], m["indices"], m["indptr"] = text(f"C{i}-1" for i in range(cells)), data, indices.astype("i8"), indptr
    m["shape"] = np.array([genes, cells], "i4")
    g = m.create_group("features")
    g["id"], g["name"] = text(f"var{i}" for i in range(genes)), text(f"var{i}" for i in range(genes))
    g["feature_type"], g["genome"] = text(["Gene Expression"] * genes), text(["GRCh38"] * genes)
EOP
for inputs in "$dir/cells.h5ad" "$dir/cells.h5" "$dir/cells.h5 $dir/cells.h5ad"; do
    for n in 2 3; do
        # shellcheck disable=SC2086
        mpirun -n $n "$B/tests/tool_cut" $inputs >"$dir/shares" 2>"$dir/log" || fail "$inputs on $n ranks"
        awk -v n=$n '{ x[NR] = $1; sum += $1 } END { for (r in x) if (x[r] < 0.9 * sum / n || x[r] > 1.1 * sum / n) exit 1; exit NR != n || sum < 1.2e6 }' \
            "$dir/shares" || fail "$inputs on $n ranks: shares of $(paste -sd, "$dir/shares")"
    done
done
exit 0
