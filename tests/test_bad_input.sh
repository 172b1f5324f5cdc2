#!/usr/bin/env bash
# plan: ranks=1,3 limit=500
# What cytomill-ingest must refuse: each fault gives its exit code, one error line that says what was
# found, and nothing under the final name. On RANKS ranks; a hang runs into the limit.
set -u
. tests/environment
work=$(mktemp -d); trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
/usr/bin/python3 -c 'import h5py' 2>/dev/null || { echo "skipped: no h5py for /usr/bin/python3"; exit 77; }
/usr/bin/python3 tests/make_bad_inputs.py "$work" || exit 1
failed=0
start=; [ "${RANKS:-1}" = 1 ] || start="mpirun -n $RANKS"
refused() { # code "words of the line" arguments...
    local code=$1 words=$2 rc; shift 2
    timeout 60 $start cytomill-ingest "$@" --out "$work/atlas" >"$work/out" 2>"$work/err"; rc=$?
    [ $rc = "$code" ] || { echo "$*: exit $rc instead of $code"; head -3 "$work/err"; failed=1; }
    [ "$(grep -c 'cytomill-ingest: error\[' "$work/err")" = 1 ] || { echo "$*: not one error line:"; cat "$work/err"; failed=1; }
    grep 'error\[' "$work/err" | grep -q -- "$words" || { echo "$*: '$words' is not in:"; grep 'error\[' "$work/err"; failed=1; }
    grep 'error\[' "$work/err" | grep -qE 'rank [0-9]+ of [0-9]+ on ' || { echo "$*: names no rank"; failed=1; }
    [ ! -e "$work/atlas" ] || { echo "$*: an atlas was left"; failed=1; }
    [ ! -e "$work/atlas.spool" ] || { echo "$*: a spool was left"; failed=1; }
    rm -rf "$work"/atlas*
}
w=$work
good=tests/data/formats/pbmc_small.h5ad
# damaged HDF5
refused 4 'truncated file' "$w/truncated.h5ad"
refused 4 'corrupt\|not a readable' "$w/corrupt.h5ad"
refused 4 'not an HDF5 file' "$w/text.h5ad"
refused 4 'not an HDF5 file' "$w/empty.h5ad"
refused 4 'filter 32008' "$w/filter.h5ad"
refused 4 'cannot be opened' "$w/nowhere.h5ad"
# missing parts
refused 4 "has no 'var'" "$w/no_var.h5ad"
refused 4 'has no X' "$w/no_x.h5ad"
refused 4 "no dataset 'indptr'" "$w/no_indptr.h5ad"
refused 4 'no usable index' "$w/no_index.h5ad"
refused 4 "has no 'matrix/features/id'" "$w/no_features.h5"
refused 4 "has no 'matrix/shape'" "$w/no_shape.h5"
refused 4 'has no barcodes.tsv' "$w/no_barcodes"
# values
refused 4 'negative value -2 in row' "$w/negative.h5ad" --need-counts
refused 4 'fraction 0.5 in row' "$w/fraction.h5ad" --need-counts
refused 4 'NaN or an infinite value in row' "$w/nan.h5ad"
refused 4 'NaN or an infinite value in row' "$w/infinite.h5ad"
refused 4 '16777217' "$w/large.h5ad"
refused 4 'one modality has one kind' "$good" "$w/fraction.h5ad"
# structure
refused 4 "'indptr' is" "$w/indptr_back.h5ad"
refused 4 "'indptr' runs from 0 to 4000" "$w/indptr_end.h5ad"
refused 4 "is 230; 0 to 229 are allowed" "$w/index_high.h5ad"
refused 4 "is -1; 0 to 229 are allowed" "$w/index_low.h5ad"
refused 4 'column [0-9]* twice' "$w/index_twice.h5ad"
refused 4 'has 81 rows and obs 80' "$w/rows.h5ad"
refused 4 'holds no cells' "$w/no_cells.h5ad"
# names
refused 4 'shares no feature' "$good" "$w/other_genes.h5ad"
refused 4 'gene id ENSG00000141510 stands twice' "$w/ids_twice.h5ad"
refused 4 'stands twice' "$w/ids_twice"
refused 4 'not UTF-8' "$w/latin1_var.h5ad"
refused 4 'not UTF-8' "$w/latin1_obs.h5ad"
# Matrix Market
refused 4 "coordinate integer|real general" "$w/mtx_header"
refused 4 'announces [0-9]* entries and holds' "$w/mtx_short"
refused 4 'line [0-9]* has an entry at cell 0, feature 507' "$w/mtx_range"
refused 4 "line [0-9]* is '0 1 1'" "$w/mtx_zero"
refused 4 "line [0-9]* is '5 1 many'" "$w/mtx_word"
refused 4 'transposed' "$w/mtx_turned"
refused 4 'damaged' "$w/gz_short"
# choices
refused 3 'hg19_chr21' tests/data/formats/cellranger_1.2.0_multiple_genomes.h5
refused 3 'auto, X, raw/X or layers/NAME' "$good" --counts elsewhere
refused 4 "has no 'layers/none'" "$good" --counts layers/none
refused 3 'ingest.counts' "$good" --set ingest.cuonts=X
refused 2 'no input'
refused 4 "has no column 'barcode'" "$good" --obs-table "$w/labels.tsv"
refused 4 'matches no cell' "$good" --obs-table "$w/labels.tsv" --obs-key cell
refused 4 'keeps 0.00% of the counts' "$good" --vocabulary "$w/vocabulary.tsv"
refused 4 'damaged gzip' "$good" --vocabulary "$w/cellfm.csv.gz"
refused 4 'line 401 has 3 comma-separated fields' "$good" --vocabulary "$w/cellfm.csv"
# outputs
mkdir "$w/there"
timeout 60 $start cytomill-ingest "$good" --out "$w/there" >"$w/out" 2>"$w/err"; rc=$?
[ $rc = 5 ] && grep -q 'already there' "$w/err" || { echo "an output that exists: exit $rc"; cat "$w/err"; failed=1; }
timeout 60 $start cytomill-ingest "$good" --out /proc/atlas >"$w/out" 2>"$w/err"; rc=$?
[ $rc = 5 ] && [ "$(grep -c 'error\[5' "$w/err")" = 1 ] || { echo "a read-only output: exit $rc"; cat "$w/err"; failed=1; }
# a disk that is full: a small tmpfs where one may mount, else a limit on the size of files
if mkdir "$w/small" && mount -t tmpfs -o size=8m tmpfs "$w/small" 2>/dev/null; then
    timeout 60 $start cytomill-ingest tests/data/pbmc3k --out "$w/small/atlas" >"$w/out" 2>"$w/err"; rc=$?
    leftovers=$(find "$w/small" -mindepth 1 ! -path "*partial*"); umount "$w/small"
else
    (ulimit -f 12000; timeout 60 $start cytomill-ingest tests/data/pbmc3k --out "$w/small/atlas" >"$w/out" 2>"$w/err"); rc=$?
    leftovers=$(find "$w/small" -mindepth 1 ! -path "*partial*")
fi
[ $rc = 5 ] && [ "$(grep -c 'error\[5' "$w/err")" = 1 ] && [ -z "$leftovers" ] || { echo "a full disk: exit $rc, left '$leftovers'"; cat "$w/err"; failed=1; }
# a folder that one may not read; root reads everything, unless it lays that right down for the run
mkdir "$w/locked" && chmod 000 "$w/locked"
run=$start
if [ "$(id -u)" = 0 ]; then start="setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -dac_override,-dac_read_search $run"; fi
refused 4 'cannot be read: Permission denied' "$w/locked"
start=$run
# the good ones among them still work
timeout 60 $start cytomill-ingest "$w/mtx_good" --out "$w/atlas" >"$w/out" 2>&1 || { echo "the good folder was refused"; cat "$w/out"; failed=1; }
exit $failed
