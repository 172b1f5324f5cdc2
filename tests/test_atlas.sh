#!/usr/bin/env bash
# Atlases: written and read on 1, 2 and 3 ranks.
# plan: ranks=1 limit=120
# Same bytes from any number of ranks (rank 1 of 3 has no rows); every row verified by every way of reading;
# an interrupted run goes on; shards open in anndata; compressed ones read the same; damage, a full disk and
# an occupied name give one line and the right exit code.
set -u
. tests/job_checks
tool=$B/tests/tool_atlas

# the same bytes, and every row where it belongs
for order in shuffle ordered; do
    $tool make "$dir/$order-1" 1000 150 $order || fail "writing on one rank"
    for ranks in 2 3; do
        mpirun -n $ranks $tool make "$dir/$order-$ranks" 1000 150 $order || fail "writing on $ranks ranks"
        diff -r "$dir/$order-1" "$dir/$order-$ranks" || fail "$order: other bytes on $ranks ranks"
    done
    $tool verify "$dir/$order-2" || fail "verifying $order"
done
mpirun -n 3 $tool verify "$dir/shuffle-1" || fail "verifying on 3 ranks"
$tool make "$dir/tiny" 5 64 && $tool verify "$dir/tiny" || fail "five cells, one shard"
# more shards than a process may have files open
(ulimit -n 300 && $tool make "$dir/many" 1000 64 && $tool verify "$dir/many") || fail "few file descriptors"
[ -z "$(find "$dir" -maxdepth 1 -name "*partial*")" ] || fail "something unfinished is left"
[ "$($tool select "$dir/ordered-1" 'source_row < 10')" = 30 ] || fail "selection"

# a killed run goes on on another number of ranks, and gives the same bytes
$tool make "$dir/again" 1000 150 shuffle 17 2>/dev/null && fail "the killed run was not killed"
[ ! -e "$dir/again" ] && [ -e "$dir/again.partial" ] || fail "a killed run left something under the final name"
out=$(mpirun -n 3 $tool make "$dir/again" 1000 150 shuffle 2>&1) || fail "going on: $out"
grep -q "resumed with 391 rows" <<<"$out" || fail "did not go on: $out"
diff -r "$dir/shuffle-1" "$dir/again" || fail "going on gave other bytes"
# with other settings it starts over
$tool make "$dir/other" 1000 150 shuffle 5 2>/dev/null
out=$($tool make "$dir/other" 1000 300 shuffle 2>&1) || fail "starting over: $out"
grep -q "starting over" <<<"$out" && ! grep -q resumed <<<"$out" || fail "did not start over: $out"

/usr/bin/python3 - "$dir/ordered-1" <<'PY' || fail "anndata reads other values"
import sys, glob, warnings
warnings.simplefilter("error", UserWarning)
import anndata, numpy as np, pandas as pd
rows = 0
for path in sorted(glob.glob(sys.argv[1] + "/mod/*/shard-*.h5ad")):
    a = anndata.read_h5ad(path)
    assert a.shape[1] == (500 if "/rna/" in path else 7)
    assert a.var_names.is_unique and a.obs_names.is_unique
    rows = 0 if path.endswith("00000.h5ad") else rows
    for i in range(a.n_obs):
        row = rows + i
        assert a.obs["source_obs_name"][i] == f"bärcode-{row}"
        assert a.obs["flag"][i] == (row % 2 == 1)
        assert pd.isna(a.obs["age"][i]) == (row % 5 == 0)
        assert pd.isna(a.obs["label"][i]) == (row % 4 == 0)
        x = a.X[i]
        assert all((1 + (row * 7 + f) % 1000) == v for f, v in zip(x.indices, x.data))
        assert bool(a.obs["has_adt"][i]) or x.nnz == 0 or "/rna/" in path
        assert a.obs_names[i] == f"{a.obs['source_file'].cat.codes[i]}:{a.obs['source_row'][i]}"
    rows += a.n_obs
    assert a.uns["cytomill"]["kind"] == "counts"
    assert list(a.var["rule"][:2]) == ["unmapped", "exact id"] and pd.isna(a.var["start"][0])
assert rows == 1000
PY

# compressed
cp -r "$dir/shuffle-1" "$dir/deflated"
mpirun -n 3 $tool compress "$dir/deflated" 4 || fail "compressing"
$tool verify "$dir/deflated" || fail "verifying what was compressed"
/usr/bin/python3 -c "import anndata,sys; a=anndata.read_h5ad(sys.argv[1]); assert a.X.nnz > 1000" "$dir/deflated/mod/rna/shard-00000.h5ad" || fail "anndata on a compressed shard"

expect() { # code, pattern, ranks, arguments...
    local code=$1 pattern=$2 ranks=$3; shift 3
    local launch="mpirun -n $ranks"; [ "$ranks" = 1 ] && launch=
    $launch $tool "$@" >/dev/null 2>"$dir/err"
    local rc=$?
    [ $rc -eq "$code" ] || { cat "$dir/err"; fail "$pattern: exit $rc instead of $code on $ranks ranks"; }
    [ "$(grep -c 'tool_atlas: error' "$dir/err")" = 1 ] || { cat "$dir/err"; fail "$pattern: not one error line"; }
    grep -q "$pattern" "$dir/err" || { cat "$dir/err"; fail "no '$pattern' in the error line"; }
}
damage() { # name, file below, command on it
    rm -rf "${dir:?}/$1"; cp -r "$dir/shuffle-1" "$dir/$1"
    (cd "$dir/$1" && eval "$3" "$2") || fail "damaging $1"
}
poke() { printf "$2" | dd of="$3" bs=1 seek="$1" conv=notrunc status=none; }
shard=mod/rna/shard-00002.h5ad
places=$(/usr/bin/python3 -c "
import h5py,sys
f=h5py.File(sys.argv[1]); print(*[f['X/'+n].id.get_offset() for n in ('indptr','indices','data')])" "$dir/shuffle-1/$shard")
read -r indptr indices data <<<"$places"
for ranks in 1 3; do
    expect 5 "is there already" $ranks make "$dir/shuffle-1" 100 150
    expect 4 "does not exist" $ranks verify "$dir/none"
    expect 4 "is no atlas" $ranks verify "$dir/ordered-1/mod"
    damage a index.h5 "truncate -s 20000"; expect 4 "index.h5.*damaged" $ranks verify "$dir/a"
    damage b index.h5 "poke 30000 xyz"; expect 4 "index.h5.*damaged" $ranks verify "$dir/b"
    damage c $shard "rm"; expect 4 "shard-00002.*No such file" $ranks verify "$dir/c"
    damage d $shard "truncate -s 50000"; expect 4 "shard-00002.*truncated" $ranks verify "$dir/d"
    damage e $shard "poke $((indptr + 40)) '\\377\\377\\377\\177'"; expect 4 "shard-00002.*row 10 begins" $ranks verify "$dir/e"
    damage f $shard "poke $((indices + 400)) '\\377\\377\\377\\177'"; expect 4 "shard-00002.*feature index" $ranks verify "$dir/f"
    damage g $shard "poke $((data + 400)) '\\377\\377\\377\\377'"; expect 4 "shard-00002.*value" $ranks verify "$dir/g"
    expect 3 "did you mean 'score'" $ranks select "$dir/shuffle-1" "scor > 1"
    expect 4 "no cell of 1000" $ranks select "$dir/shuffle-1" "age < 0"
    expect 5 "cannot be created\|File exists\|Not a directory" $ranks make "$dir/shuffle-1/index.h5/x" 100 150
    mkdir -p "$dir/full"
    if mount -t tmpfs -o size=200k none "$dir/full" 2>/dev/null; then
        expect 5 "No space left" $ranks make "$dir/full/atlas" 1000 150
        [ ! -e "$dir/full/atlas" ] || fail "a full disk left something under the final name"
        umount "$dir/full"
    fi
done
exit 0
