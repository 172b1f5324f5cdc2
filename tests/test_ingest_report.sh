#!/usr/bin/env bash
# plan: ranks=1,3 limit=60
# What cytomill-ingest reports, on cells counted by hand: cells flagged by which filter, genes by which rule of a
# user's own HGNC file (its date and sha256 recorded), ambiguous names and conflicts listed, the share of counts a
# vocabulary keeps, the genes it loses in order of their counts, and a warning about each HLA and MT gene among them.
set -u
. tests/job_checks
tab() { printf '%s\n' "$@" | tr ' ' '\t'; }
mkdir "$dir/in"
tab "ENSG00000206503 HLA-A" "ENSG00000198804 MT-CO1" "ENSG00000167286 CD3D" "OLDX OLDX" "ALX ALX" "SHARED SHARED" \
    "NOBODY NOBODY" "ENSG00000090382 WRONG" >"$dir/in/genes.tsv"
printf 'CELL%d\n' 1 2 3 4 5 >"$dir/in/barcodes.tsv"
{
    printf '%%%%MatrixMarket matrix coordinate integer general\n8 5 20\n'
    for g in 1 2 3 4 5 6 7 8; do echo "$g 1 1"; done # all genes once: nothing wrong
    printf '%s\n' "3 2 4" "4 2 1"                    # two features: few
    printf '%s\n' "1 3 1" "2 3 90" "3 3 1" "5 3 1"   # 97 % mitochondrial
    printf '%s\n' "1 4 2" "3 4 200" "6 4 1" "7 4 3"  # a large total
    printf '%s\n' "1 5 1" "2 5 10"                   # few features and mitochondrial
} >"$dir/in/matrix.mtx"
{
    tab "hgnc_id symbol locus_group status location alias_symbol prev_symbol ensembl_gene_id"
    tab "HGNC:1 HLA-A protein-coding Approved 6p22   ENSG00000206503" "HGNC:2 MT-CO1 protein-coding Approved mitochondria   ENSG00000198804" \
        "HGNC:3 CD3D protein-coding Approved 11q23   ENSG00000167286" "HGNC:4 NEWX protein-coding Approved 1p1  OLDX ENSG00000000004" \
        "HGNC:5 ALIASED protein-coding Approved 1p1 ALX  ENSG00000000005" "HGNC:6 S1 protein-coding Approved 1p1 SHARED  ENSG00000000006" \
        "HGNC:7 S2 protein-coding Approved 1p1 SHARED  ENSG00000000007" "HGNC:8 LYZ protein-coding Approved 12q15   ENSG00000090382" \
        "HGNC:9 WRONG protein-coding Approved 1p1   ENSG00000000009"
} >"$dir/mine_2024-02-03.tsv"
tab "id symbol ensembl hgnc" "1 CD3D ENSG00000167286 HGNC:3" "2 NEWX ENSG00000000004 HGNC:4" >"$dir/few.tsv"
mpirun -n "$RANKS" cytomill-ingest "$dir/in" --out "$dir/atlas" --hgnc "$dir/mine_2024-02-03.tsv" --vocabulary "$dir/few.tsv" \
    --set ingest.min_features=3 --set ingest.max_pct_mt=50 --set ingest.max_total=150 >"$dir/log" 2>&1 || fail "ingest"
report=$dir/atlas/ingest_report.tsv
has() { grep -qxP "$1" "$report" || { cp "$report" "$dir/log"; fail "no line '$1' in the report"; }; }
says() { grep -q -- "$1" "$dir/log" || fail "'$1' is not said"; }
has "source_cells_flagged\t.*/in\t2\tlow_features"
has "source_cells_flagged\t.*/in\t2\thigh_mt"
has "source_cells_flagged\t.*/in\t1\thigh_total"
has "source_cells_flagged\t.*/in\t1\tok"
has "source_total\t.*/in\t323\trna"
has "hgnc_genes\thgnc\t9\t2024-02-03, sha256 $(sha256sum <"$dir/mine_2024-02-03.tsv" | cut -d' ' -f1)"
rule() { has "genes_by_rule\t$1\t$2\t.*"; }
rule unmapped 1; rule 'exact id' 4; rule 'exact symbol' 0; rule 'earlier symbol' 1; rule alias 1; rule ambiguous 1
has "ambiguous\tSHARED\t1\talias of several genes"
has "id_symbol_conflict\tWRONG\t1\tENSG00000090382 LYZ WRONG ENSG00000000009"
has "vocabulary_share\tgiven\t64.396284829.*" # CD3D 206 and OLDX 2, of 323
has "vocabulary_genes\tgiven\t2\t.*"
lost=$(awk -F'\t' '$1 == "vocabulary_lost" && $4 ~ /^given/ { printf "%s:%s:%s ", $2, $3, $4 }' "$report" | sed -E 's/given [0-9.]*% ?//g')
[ "$lost" = "MT-CO1:101:MT HLA-A:5:HLA NOBODY:4: ALIASED:2: SHARED:2: LYZ:1: " ] || fail "lost genes are '$lost'"
says 'quality flags (nothing is left out): 2 low_features, 2 high_mt, 1 high_total, 1 ok'
says 'warning: MT gene MT-CO1 is lost (101 counts)'
says 'warning: HLA gene HLA-A is lost (5 counts)'
says 'gene identity: HGNC of 2024-02-03'
[ "$(grep -c 'warning:' "$dir/log")" = 2 ] || fail "other warnings"
exit 0
