#!/usr/bin/env bash
# kind: table
# Do embeddings keep what biologists know? kNN macro-F1 of a trained model beside the same network untrained, PCA and
# sequencing depth alone, on three labelled data sets, all through our own programs.
#
#   validation/check_embeddings.sh [OUT [MODEL TRAINING_ATLAS]]
#
# Without MODEL a demo-sized one is trained first, for STEPS steps (default 1500), on two blood data sets that none of
# the tests is of (10x PBMC 1k v2, ECCITE-seq control). Writes OUT/embeddings.md; UPDATE=1 makes that page
# validation/embeddings.md. Needs CYTOMILL_DATA.
set -eu
cd "$(dirname "$0")/.."
. tests/environment
steps=${STEPS:-1500}
out=${1:-build/validation/embeddings} model=${2:-} atlas=${3:-}
data=$CYTOMILL_DATA
ranks=${RANKS:-1}
page=$out/embeddings.md
[ -d "$data" ] || { echo "the shared data are not at $data; set CYTOMILL_DATA"; exit 77; }
mkdir -p "$out"
run() { echo "+ $*" >>"$out/log"; mpirun -n "$ranks" "$@" >>"$out/log" 2>&1 || { tail -3 "$out/log"; exit 1; }; }

if [ -z "$model" ]; then
    atlas=$out/training
    [ -d "$atlas" ] || run cytomill-ingest "$data/pbmc_1k_v2/pbmc_1k_v2_filtered_feature_bc_matrix.h5" "$data/citeseq_pbmc/rna.h5ad" --out "$atlas"
    run cytomill-pretrain --config configs/demo.yaml --atlas "$atlas" --out "$out/pretrain" --set "train.steps=$steps" --set train.evaluate_every=250
    model=$(find "$out/pretrain" -name 'checkpoint-*.h5' | sort -V | tail -1)
fi

# The same network untrained: its architecture comes out of the checkpoint.
architecture() {
    /usr/bin/python3 - "$model" <<'PY'
import sys, h5py
text = h5py.File(sys.argv[1])["config"][()].decode()
section = ""
for line in text.rstrip("\0").splitlines():
    if not line.startswith(" "): section = line.split(":")[0]
    elif section == "model":
        key, value = line.strip().split(":", 1)
        if value.strip(' "\''): print(f"model.{key}={value.strip().strip(chr(34) + chr(39))}")
PY
}
mapfile -t keys < <(architecture)
"$B/tests/tool_untrained" "$out/untrained.h5" configs/genes/vocabulary.tsv.gz 1 1 "${keys[@]}" 2>>"$out/log"

{
    echo "# Embeddings beside their baselines"
    echo
    echo "kNN macro-F1 (k = 15, Euclidean): each test cell takes the majority label of its nearest training cells. Made by \`STEPS=$steps validation/check_embeddings.sh\`."
    echo "PCA: 50 components of the 2,000 most variable genes, fitted on all cells of the data set. Depth alone: ln(1 + total counts). Untrained: the same network as initialised."
    echo
    echo "Model: \`$(basename "$model")\`, trained on the atlas made of:"
    awk -F'\t' '$1 == "source_cells" {n = split($2, p, "/"); print "- " p[n-1] "/" p[n] ": " $3 " cells"}' "$atlas/ingest_report.tsv"
} >"$page"

# How many cells of a test atlas bear a name that the training atlas has too (10x barcodes coincide by chance now and then).
shared_names() {
    /usr/bin/python3 -W ignore - "$atlas" "$1" <<'PY'
import glob, sys, anndata
names = [[n for f in sorted(glob.glob(f"{a}/mod/rna/shard-*.h5ad")) for n in anndata.read_h5ad(f, backed="r").obs["source_obs_name"].astype(str)]
         for a in sys.argv[1:]]
seen = set(names[0])
both = sum(n in seen for n in names[1])
print(f"{both} of {len(names[1])} cell names also occur in the training atlas" + (": **the model has seen these cells**." if both > len(names[1]) / 2 else "."))
PY
}

# table NAME TITLE REMARK LABEL CELLS TRAIN TEST FILE...
table() {
    local name=$1 title=$2 remark=$3 label=$4 cells=$5 train=$6 test=$7; shift 7
    local where=$out/$name
    [ -d "$where/atlas" ] || run cytomill-ingest "$@" --out "$where/atlas"
    run cytomill-embed --model "$model" "$where/atlas" --cells "$cells" --out "$where/trained.h5ad"
    run cytomill-embed --model "$out/untrained.h5" "$where/atlas" --cells "$cells" --out "$where/untrained.h5ad"
    run cytomill-analyze score "$where/trained.h5ad" "$where/untrained.h5ad" --atlas "$where/atlas" --cells "$cells" --label "$label" \
        --train "$train" --test "$test" --out "$where/scores.tsv"
    {
        echo; echo "## $title"; echo
        echo "$remark $(shared_names "$where/atlas")"
        echo; echo "| representation | trained on | tested on | cells | macro-F1 | accuracy |"; echo "|---|---|---|---|---|---|"
        awk -F'\t' '!/^#/ && $1 != "representation" {sub(/\.h5ad X_.*/, " network", $1); print "| " $1 " | " $2 " | " $3 " | " $4 " / " $5 " | " $7 " | " $8 " |"}' \
            "$where/scores.tsv"
    } >>"$page"
}

table mixology "Lung cancer cell lines across technologies" "sc_mixology, singlets by genotype; label: cell line." \
    cell_line "demuxlet_cls == 'SNG'" "technology == 'CEL-seq2'" "technology == 'Drop-seq'" \
    "$data/sc_mixology/celseq2_3cl.h5ad" "$data/sc_mixology/dropseq_3cl.h5ad"
table kang "Interferon-beta stimulation across donors" "Kang 2018, donors 101 and 107; label: control or stimulated." \
    condition "" "sample in ('ctrl101', 'stim101')" "sample in ('ctrl107', 'stim107')" "$data/kang_pbmc/kang_ifnb_labelled.h5ad"
table pbmc3k "PBMC 3k cell types" "**The labels derive from PCA of these cells**, so PCA has an advantage here; leave-one-out." \
    cell_type "" "" "" "$data/pbmc3k/pbmc3k_labelled.h5ad"
cat "$page"
[ -z "${UPDATE:-}" ] || cp "$page" validation/embeddings.md
