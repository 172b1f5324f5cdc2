#!/usr/bin/env bash
# plan: ranks=1 limit=300
# Real files of other people's making, outside the repository (CYTOMILL_DATA): read equal to h5py and scipy, and the
# kind of their values is told right. Skipped without the data.
set -u
. tests/environment
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
[ -d "$CYTOMILL_DATA/kang_pbmc" ] || { echo "skipped: no shared data at $CYTOMILL_DATA"; exit 77; }
/usr/bin/python3 -c 'import anndata, h5py, scipy' 2>/dev/null || { echo "skipped: no anndata for /usr/bin/python3"; exit 77; }
failed=0
same() { # kind place file options...
    local kind=$1 place=$2 file=$CYTOMILL_DATA/$3; shift 3
    rm -rf "$work/atlas"
    cytomill-ingest "$file" --out "$work/atlas" "$@" >"$work/log" 2>&1 || { echo "$file: exit $?"; cat "$work/log"; failed=1; return; }
    grep -qP "^source_features\t.*\trna from [^,]*, $kind\$" "$work/atlas/ingest_report.tsv" || { echo "$file: not told to be $kind:"; grep source_features "$work/atlas/ingest_report.tsv"; failed=1; }
    /usr/bin/python3 tests/compare_atlas.py "$work/atlas" "$file${place:+::$place}" || { echo "$file differs"; failed=1; }
}
same counts "" pbmc_1k_v2/pbmc_1k_v2_filtered_feature_bc_matrix.h5
same counts X kang_pbmc/kang_ifnb_2000_csc.h5ad
same counts X kang_pbmc/kang_ifnb_labelled.h5ad
same counts X sc_mixology/dropseq_3cl.h5ad
same counts X mouse_neurons_10k/neurons_10k_chr1.h5ad
same continuous X pancreas_xin_wang/wang.h5ad
same continuous X pbmc68k_reduced/pbmc68k_reduced_processed.h5ad
same log-normalised raw/X pbmc68k_reduced/pbmc68k_reduced_processed.h5ad --counts raw/X
same log-normalised X perturb_devel/devel.h5ad
# not counts: refused by name when counts are needed
cytomill-ingest "$CYTOMILL_DATA/pbmc68k_reduced/pbmc68k_reduced_processed.h5ad" --out "$work/no" --need-counts >"$work/log" 2>&1; rc=$?
[ $rc = 4 ] && grep -q 'continuous values (negative value' "$work/log" || { echo "scaled values where counts are needed: exit $rc"; cat "$work/log"; failed=1; }
exit $failed
