#!/usr/bin/env bash
# plan: ranks=1 limit=400
# Every format that ships under tests/data: each value of the source is in the atlas, read back with
# anndata and compared with what h5py and scipy read from the source; the same bytes on 1, 2 and 3 ranks.
set -u
. tests/environment
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python=/usr/bin/python3
$python -c 'import anndata, h5py, scipy' 2>/dev/null || { echo "skipped: no anndata for $python (Debian package python3-anndata)"; exit 77; }
failed=0
fail() { echo "$*"; failed=1; }
ingest() { # ranks out arguments...
    local n=$1 out=$2; shift 2
    rm -rf "$out"
    local start=; [ "$n" = 1 ] || start="mpirun -n $n"
    $start cytomill-ingest "$@" --out "$out" >"$work/log" 2>&1 || { fail "ingest $* on $n ranks: exit $?"; cat "$work/log"; }
    [ ! -e "$out.partial" ] && [ ! -e "$out.spool" ] || fail "$* leaves $(ls -d "$out".*)"
}
digest() { (cd "$1" && find . -type f | sort | xargs sha256sum | sha256sum); }
same() { # source taken arguments...: one input, every value
    local source=$1 taken=$2; shift 2
    ingest 1 "$work/atlas" "$source" "$@"
    $python tests/compare_atlas.py "$work/atlas" "$source${taken:+::$taken}" || fail "$source differs"
}
f=tests/data/formats
same tests/data/pbmc3k ""
same $f/cellranger_1.2.0_filtered_gene_bc_matrices_h5.h5 ""
same $f/cellranger_1.2.0_hg19_chr21 ""
same $f/cellranger_1.2.0_multiple_genomes.h5 another_genome --genome another_genome
same $f/cellranger_2.1.0_visium_raw_probe_bc_matrix.h5 ""
same $f/cellranger_3.0.0_filtered_feature_bc_matrix.h5 ""
same $f/cellranger_3.0.0_filtered_feature_bc_matrix ""
same $f/anndata_v0.5.0.h5ad X
same $f/anndata_v0.5.0.h5ad raw.X --counts raw/X
same $f/anndata_v0.7.0.h5ad X
same $f/anndata_v0.7.0.h5ad raw/X --counts raw/X
same $f/anndata_v0.7.0.h5ad layers/array --counts layers/array
same $f/anndata_v0.7.8.h5ad layers/sparse --counts layers/sparse
same $f/pbmc_small.h5ad X

# several inputs, one table of features: the same bytes however many ranks; small shards, so that rows of one rank go to many
inputs="tests/data/pbmc3k $f/pbmc_small.h5ad $f/cellranger_1.2.0_hg19_chr21 $f/cellranger_1.2.0_filtered_gene_bc_matrices_h5.h5"
for n in 1 2 3; do
    # shellcheck disable=SC2086
    ingest $n "$work/many$n" $inputs --set ingest.shard_rows=640
    digest "$work/many$n" >"$work/digest$n"
done
cmp "$work/digest1" "$work/digest2" && cmp "$work/digest1" "$work/digest3" || fail "the bytes depend on the number of ranks"
# shellcheck disable=SC2086
$python tests/compare_atlas.py "$work/many3" $inputs || fail "several inputs differ"

# the same command on a finished atlas; another one; --fresh; progress in a log has a rate and the time left
cp -r "$work/many1" "$work/done"
again() { # ranks option...: the command that made $work/done
    # shellcheck disable=SC2086
    mpirun -n "$1" cytomill-ingest $inputs --set ingest.shard_rows=640 --out "$work/done" "${@:2}" >"$work/log" 2>&1
}
for n in 1 3; do
    again $n && grep -q 'complete already' "$work/log" || fail "$n ranks: a finished atlas is not seen as complete"
    others=("--seed 5" "--fresh")
    [ $n = 3 ] || others+=("--set ingest.min_features=100" "--counts X" "tests/data/pbmc3k")
    for other in "${others[@]}"; do
        # shellcheck disable=SC2086
        again $n $other; rc=$?
        [ $rc = 5 ] && [ "$(grep -c 'error\[5' "$work/log")" = 1 ] || { fail "a finished atlas and $other: exit $rc"; cat "$work/log"; }
    done
done
digest "$work/done" | cmp - "$work/digest1" || fail "a finished atlas was changed"
CYTOMILL_PROGRESS_S=0 ingest 2 "$work/atlas" tests/data/pbmc3k
grep -qE '^rank0_cells=[0-9]+ of=[0-9]+ cells_per_s=[0-9.e+]+ eta=[0-9]+s$' "$work/log" || fail "no progress lines in a log"

# killed between the commit and the compression, or while shards are put into place: the same command ends it
squeeze() { cytomill-ingest tests/data/pbmc3k --set ingest.shard_rows=640 --set ingest.compress=4 --out "$work/$1" >"$work/log" 2>&1; }
squeeze packed || fail "compressed"
for _ in 1 2 3 4 5; do
    rm -rf "$work/cut"
    squeeze cut & job=$!
    until [ -e "$work/cut" ] || ! kill -0 $job 2>/dev/null; do sleep 0.01; done
    pkill -9 -P $job; wait $job 2>/dev/null
    cmp -s "$work/cut/index.h5" "$work/packed/index.h5" || break
done
cmp -s "$work/cut/index.h5" "$work/packed/index.h5" && fail "the compression could not be interrupted"
cp -r "$work/cut" "$work/half"
squeeze cut && diff -r "$work/cut" "$work/packed" >/dev/null || { fail "the compression of a killed run is not finished"; cat "$work/log"; }
find "$work/half" -name '*.deflated' -exec rm {} +
cp "$work/packed/index.h5" "$work/half/index.h5.deflated"
cp "$work/packed/mod/rna/shard-00000.h5ad" "$work/half/mod/rna/"
for shard in "$work"/packed/mod/rna/shard-0000[1-9].h5ad; do cp "$shard" "$work/half/mod/rna/$(basename "$shard").deflated"; done
squeeze half && diff -r "$work/half" "$work/packed" >/dev/null || { fail "shards half in place stay so"; cat "$work/log"; }

# a dry run does everything but write
mpirun -n 2 cytomill-ingest $f/pbmc_small.h5ad --out "$work/dry" --dry-run >"$work/log" 2>&1 || fail "dry run: exit $?"
[ -z "$(ls -d "$work"/dry* 2>/dev/null)" ] || fail "the dry run left $(ls -d "$work"/dry*)"
grep -q 'plan: 80 cells' "$work/log" || fail "the dry run printed no plan"

# labels: joined, matched and unmatched counted and listed
printf 'barcode\tkind\tscore\n' >"$work/labels.tsv"
zcat tests/data/pbmc3k/barcodes.tsv.gz | head -2000 | awk '{ print $1 "\t" (NR % 3 ? "a" : "b") "\t" NR }' >>"$work/labels.tsv"
printf 'NOBODY-1\ta\t1\n' >>"$work/labels.tsv"
ingest 3 "$work/labelled" tests/data/pbmc3k --obs-table "$work/labels.tsv"
report=$work/labelled/ingest_report.tsv
grep -qP '^labels\tmatched\t2000\t' "$report" && grep -qP '^labels\tunmatched\t700\t' "$report" || fail "labels are counted wrong"
grep -qP '^label_unused_row\tNOBODY-1\t' "$report" || fail "an unused label is not listed"
[ "$(grep -c '^label_unmatched_cell' "$report")" = 700 ] || fail "unmatched cells are not listed"
$python - "$work" <<'P' || fail "labels are wrong"
import anndata, glob, sys
a = anndata.read_h5ad(glob.glob(sys.argv[1] + "/labelled/mod/rna/*.h5ad")[0])
rows = [l.split("\t") for l in open(sys.argv[1] + "/labels.tsv").read().splitlines()[1:]]
want = {r[0]: r[1:] for r in rows}
for name, kind, score in zip(a.obs["source_obs_name"], a.obs["kind"], a.obs["score"]):
    if name in want: assert kind == want[name][0] and score == float(want[name][1]), name
    else: assert kind != kind or kind is None, name
import numpy as np
x = a.X.tocsr()
mt = np.flatnonzero([n.startswith("MT-") for n in a.var["name"]])
assert np.allclose(a.obs["qc_total"], np.asarray(x.sum(1)).ravel())
assert np.array_equal(a.obs["qc_n_features"], np.diff(x.indptr))
assert np.allclose(a.obs["qc_pct_mt"], 100 * np.asarray(x[:, mt].sum(1)).ravel() / np.asarray(x.sum(1)).ravel())
assert set(a.obs["qc_flags"][a.obs["qc_pct_mt"] > 20]) <= {"high_mt", "low_features;high_mt"}
assert a.obs.index.is_unique
P
# shares of the default vocabulary: PBMC 3k loses less than a percent
awk -F'\t' '$1 == "vocabulary_share" && $2 == "default" && $3 > 99 { found = 1 } END { exit !found }' "$report" || fail "the vocabulary keeps too little"
grep -qP '^hgnc_genes\thgnc\t42017\t2020-05, sha256 bf8fdaae3bed7476' "$report" || fail "the report does not name the HGNC file"
exit $failed
