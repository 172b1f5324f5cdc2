#!/usr/bin/env bash
# cytomill-analyze on small files: pca, score, umap, report.
# plan: ranks=1,3 limit=180
# PCA equals numpy's full SVD (explained variance to 1e-5 relative) and opens in anndata; kNN scores equal a
# brute-force count in numpy, both directions and leave-one-out; a marker list calls the planted types; table and
# page have the same bytes on 1 rank and here; the page parses, holds its parts and refers to nothing outside; every
# wrong request gives one line and its exit code. (tests/check_analyze.py compares.)
set -u
. tests/job_checks
RANKS=${RANKS:-1}
need_python anndata
command -v gnuplot >/dev/null || { echo "gnuplot is not installed"; exit 77; }
analyze() { mpirun -n "$RANKS" cytomill-analyze "$@" >"$dir/out" 2>"$dir/log"; }
alone() { cytomill-analyze "$@" >"$dir/out" 2>"$dir/log"; }
check() { "$python" -W ignore tests/check_analyze.py "$1" "$dir" 2>"$dir/log" || fail "$2"; }
refused() { # exit code, words of the error line, arguments...
    analyze "${@:3}"
    check_error $? "$@"
}
check make "no input"

# ---- pca ----
analyze pca --atlas "$dir/counts.h5ad" --out "$dir/dry.h5ad" --components 10 --dry-run || fail "dry run"
[ -e "$dir/dry.h5ad" ] && fail "a dry run wrote a file"
grep -q "180 cells, 251 genes, 10 components" "$dir/log" || fail "a dry run does not tell the cost"
analyze pca --atlas "$dir/counts.h5ad" --out "$dir/pca.h5ad" --components 10 --genes 100 || fail "pca"
analyze pca --atlas "$dir/counts.h5ad" --out "$dir/all.h5ad" --components 107 --genes all --cells "lane == 'one'" || fail "pca of all genes"
[ -e "$dir/pca.h5ad.partial" ] && fail "a partial file is left"
check pca "pca differs from numpy"

# ---- score ----
split=(--train "lane == 'one'" --test "lane == 'two'")
for how in alone analyze; do
    $how score "$dir/pca.h5ad" --atlas "$dir/counts.h5ad" --label kind "${split[@]}" --neighbours 5 --components 10 \
        --set analyze.genes=100 --out "$dir/$how.tsv" || fail "score"
done
cmp "$dir/alone.tsv" "$dir/analyze.tsv" || fail "$RANKS ranks score otherwise"
cmp "$dir/alone.labels.tsv" "$dir/analyze.labels.tsv" || fail "$RANKS ranks score labels otherwise"
analyze score "$dir/pca.h5ad" --label kind --out "$dir/loo.tsv" || fail "leave-one-out"
check score "scores differ from numpy"

# ---- umap and report ----
for how in alone analyze; do $how umap "$dir/pca.h5ad" --out "$dir/$how.umap" --map-cells 150 || fail "umap"; done
cmp "$dir/alone.umap" "$dir/analyze.umap" || fail "$RANKS ranks draw another map"
[ "$(wc -l < "$dir/alone.umap")" = 151 ] || fail "the map does not show 150 cells"
"$B/tests/tool_untrained" "$dir/m.h5" configs/genes/vocabulary.tsv.gz 1 3 model.layers=2 model.width=32 model.heads=1 \
    model.value_width=16 model.max_genes=128 model.name=tiny 2>"$dir/log" || fail "no model"
cytomill-ingest "$dir/counts.h5ad" --out "$dir/atlas" >"$dir/log" 2>&1 || fail "ingest"
cytomill-sweep --model "$dir/m.h5" --atlas "$dir/atlas" --out "$dir/sweep" --set sweep.genes=CD79A,LYZ,GNLY,NKG7 \
    --set sweep.min_cells=5 >"$dir/log" 2>&1 || fail "sweep"
for how in alone analyze; do
    $how report --atlas "$dir/counts.h5ad" --run "$dir/run" --embedding "$dir/pca.h5ad" --label kind --group lane \
        --scores "$dir/alone.tsv" --sweep "$dir/sweep" --out "$dir/$how.html" || fail "report"
done
cmp "$dir/alone.html" "$dir/analyze.html" || fail "$RANKS ranks write another page"
analyze report --atlas "$dir/atlas" --out "$dir/folder" || fail "report on an atlas alone"
analyze report --embedding "$dir/pca.h5ad,$dir/pca.h5ad" --set data.group_by=qc_total --out "$dir/groups.html" ||
    fail "many groups of two embeddings"
check report "the page is not whole"

# ---- wrong requests ----
refused 2 "no output given" pca --atlas "$dir/counts.h5ad"
refused 2 "no counts given" pca --out "$dir/x.h5ad"
refused 3 "at most 179" pca --atlas "$dir/counts.h5ad" --out "$dir/x.h5ad" --components 180
refused 3 "analyze.genes.*'many'" pca --atlas "$dir/counts.h5ad" --out "$dir/x.h5ad" --genes many
refused 4 "absent" pca --atlas "$dir/absent.h5ad" --out "$dir/x.h5ad"
refused 4 "log.h5ad.*log-normalised" pca --atlas "$dir/log.h5ad" --out "$dir/x.h5ad"
refused 5 "/proc/none" pca --atlas "$dir/counts.h5ad" --out /proc/none/x.h5ad --components 10
refused 2 "no embedding given" score --label kind --out "$dir/x.tsv"
refused 2 "--test is missing" score "$dir/pca.h5ad" --label kind --train "lane == 'one'" --out "$dir/x.tsv"
refused 3 "both training and test" score "$dir/pca.h5ad" --label kind --train "lane == 'one'" --test "kind == 'B'" --out "$dir/x.tsv"
refused 4 "did you mean 'kind'" score "$dir/pca.h5ad" --label kinds --out "$dir/x.tsv"
refused 4 "same label" score "$dir/pca.h5ad" --label same --out "$dir/x.tsv"
refused 4 "none of 180 embedded cells matches --train" score "$dir/pca.h5ad" --label kind --train "lane == 'ten'" \
    --test "lane == 'two'" --out "$dir/x.tsv"
refused 3 "several embeddings (X_a, X_b)" score "$dir/two.h5ad" --label kind --out "$dir/x.tsv"
refused 4 "obsm has no 'X_c'; it has: X_a, X_b" score "$dir/two.h5ad" --obsm X_c --label kind --out "$dir/x.tsv"
refused 4 "row 9 of 'X_a' holds NaN" score "$dir/nan.h5ad" --label kind --out "$dir/x.tsv"
refused 4 "has 180 cells, .* has 100" score "$dir/pca.h5ad" --atlas "$dir/fewer.h5ad" --label kind --out "$dir/x.tsv"
echo text > "$dir/text.h5ad"
refused 4 "text.h5ad" umap "$dir/text.h5ad" --out "$dir/x.tsv"
refused 2 "nothing to report" report --out "$dir/x.html"
refused 4 "absent/metrics.jsonl" report --run "$dir/absent" --out "$dir/x.html"
if [ "$RANKS" = 1 ]; then
    make_many_cells "$dir/many"
    limited cytomill-analyze pca --atlas "$dir/many" --out "$dir/x.h5ad" --components 50 --genes all >"$dir/out" 2>"$dir/log"
    check_error $? 5 'file size limit\|File too large\|No space' "pca under a limit on file sizes"
fi
mkdir "$dir/cut"
head -c 3000 "$dir/sweep/results.h5" > "$dir/cut/results.h5"
cp "$dir/sweep/hits.tsv" "$dir/cut/"
refused 4 "cut/results.h5" report --sweep "$dir/cut" --out "$dir/x.html"
refused 4 "data.group_by.*did you mean 'lane'" report --embedding "$dir/pca.h5ad" --group lanes --out "$dir/x.html"
refused 5 "/proc/none" report --run "$dir/run" --out /proc/none/x.html
for left in x.tsv x.h5ad x.h5ad.partial x.html x.html.partial; do [ -e "$dir/$left" ] && fail "$left is left after an error"; done
if [ "$RANKS" = 1 ]; then
    mkdir "$dir/bin"
    ln -s /usr/bin/* "$dir/bin/" && rm "$dir/bin/gnuplot"*
    PATH=$dir/bin "$PWD/$B/bin/cytomill-analyze" report --run "$dir/run" --out "$dir/x.html" 2>"$dir/log"
    [ $? = 3 ] || fail "a missing gnuplot is not exit 3"
    grep -q "gnuplot.*gnuplot-nox" "$dir/log" || fail "a missing gnuplot is not named"
fi
for verb in pca score umap report; do
    cytomill-analyze $verb --help | grep -q "^usage: cytomill-analyze $verb" || fail "$verb --help"
done
exit 0
