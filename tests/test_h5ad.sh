#!/usr/bin/env bash
# AnnData files: the same bytes from 1, 2 and 3 ranks, read back value by value by anndata itself.
# plan: ranks=1 limit=60
# Categories with missing ones, nullable integers and booleans, non-ASCII names, an empty rank, a file
# left and reopened half way, a nested column name; a full disk and a read-only folder are exit 5.
set -u
. tests/job_checks
tool=$B/tests/tool_h5ad
for x in csr dense; do
    $tool "$dir/$x-1.h5ad" $x || fail "writing $x on one rank"
    sleep 1.1 # a time stamp in the file would show now
    for ranks in 2 3; do
        mpirun -n $ranks $tool "$dir/$x-$ranks.h5ad" $x || fail "writing $x on $ranks ranks"
        cmp "$dir/$x-1.h5ad" "$dir/$x-$ranks.h5ad" || fail "$x differs on $ranks ranks"
    done
done
$tool "$dir/deflated.h5ad" csr compress || fail "compressing"
[ -z "$(find "$dir" -maxdepth 1 -name "*partial*")" ] || fail "something unfinished is left"

/usr/bin/python3 - "$dir" <<'PY' || fail "anndata reads other values"
import sys, warnings
warnings.simplefilter("error", UserWarning)
import anndata, numpy as np, pandas as pd
folder = sys.argv[1]
def check(a, dense):
    n = 11
    rows = np.arange(n)
    assert a.shape == (n, 4) and list(a.obs_names) == [f"cell-{i}" for i in rows], a
    assert list(a.var_names)[3] == "µ" and a.var_names[2].startswith("a gene with")
    assert np.allclose(a.var["length"][:3], [1.5, 2.5, 3.5]) and np.isnan(a.var["length"][3])
    categories = ["B", "Zelle mit ä", "日本"]
    want = [None if i % 4 == 0 else categories[i % 4 - 1] for i in rows]
    got = [None if pd.isna(v) else v for v in a.obs["type"]]
    assert got == want and list(a.obs["type"].cat.categories) == categories, got
    assert list(a.obs["depth"]) == [i * 1000003 for i in rows]
    assert [None if pd.isna(v) else int(v) for v in a.obs["age"]] == [None if i % 3 == 0 else i for i in rows]
    assert list(a.obs["good"]) == [i % 2 == 1 for i in rows] and a.obs["good"].dtype == bool
    assert [None if pd.isna(v) else bool(v) for v in a.obs["maybe"]] == [None if i % 5 == 0 else i % 2 == 1 for i in rows]
    share = np.where(rows % 4 == 0, np.nan, rows / 7)
    assert np.array_equal(a.obs["share"].values, share, equal_nan=True)
    assert np.array_equal(a.obs["nested/name"].values, share, equal_nan=True)
    assert list(a.obs["note"]) == [f"é{i}" for i in rows]
    assert a.obsm["X_model"].dtype == np.float32
    assert np.allclose(a.obsm["X_model"], np.stack([rows, np.full(n, -1.5), rows / 3], 1))
    assert a.uns["model"]["hash"] == "abc" and a.uns["model"]["width"] == 1536 and a.uns["licence"] == "© CC BY"
    x = np.zeros((n, 4))
    if dense: x[:, 0], x[:, 1:] = rows, [1, 2, 3]
    else: x[rows, rows % 3], x[:, 3] = rows + 1, 5
    got = a.X if dense else a.X.toarray()
    assert np.array_equal(got, x), got
for name in "csr-3", "dense-3", "deflated":
    check(anndata.read_h5ad(f"{folder}/{name}.h5ad"), name.startswith("dense"))
    backed = anndata.read_h5ad(f"{folder}/{name}.h5ad", backed="r")
    assert backed.shape == (11, 4)
    backed.file.close()
again = anndata.read_h5ad(f"{folder}/csr-1.h5ad")
again.write_h5ad(f"{folder}/rewritten.h5ad")
check(anndata.read_h5ad(f"{folder}/rewritten.h5ad"), False)
PY

refused() { # what, ranks, output: exit 5, one error line, nothing under the final name
    mpirun -n "$2" $tool "$3" csr 2>"$dir/err" >/dev/null
    [ $? -eq 5 ] || { cat "$dir/err"; fail "$1, $2 ranks: not exit 5"; }
    [ "$(grep -c 'error\[5 output\]' "$dir/err")" = 1 ] || { cat "$dir/err"; fail "$1, $2 ranks: not one error line"; }
    [ ! -e "$3" ] || fail "$1: something lies under the final name"
}
for ranks in 1 3; do refused "missing folder" $ranks "$dir/nowhere/x.h5ad"; done
mkdir "$dir/full"
if mount -t tmpfs -o size=12k none "$dir/full" 2>/dev/null; then
    trap 'umount "$dir/full"; rm -rf "$dir"' EXIT
    for ranks in 1 3; do refused "full disk" $ranks "$dir/full/x.h5ad"; rm -f "$dir"/full/*; done
fi
exit 0
