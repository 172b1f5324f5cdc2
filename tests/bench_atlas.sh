#!/usr/bin/env bash
# Reading an atlas from the page cache, one core: cells per second in order and in random blocks, checks included.
# plan: ranks=1 limit=300
# About 850 entries a cell (generated from PBMC 3k). The bar is 600,000 cells/s in random blocks of 64, uncompressed.
set -u
. tests/environment
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cytomill-ingest tests/data/pbmc3k --out "$dir/real" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
$B/tests/tool_generate atlas "$dir/real" "$dir/made" 20000 8192 || exit 1
$B/tests/tool_read "$dir/made" >"$dir/plain" || exit 1
$B/tests/tool_atlas compress "$dir/made" 1 && $B/tests/tool_read "$dir/made" >"$dir/deflated" || exit 1
awk -v OFS='\t' '
    function line(name, value, unit, bar) {
        holds = bar == "-" ? "-" : value + 0 >= bar + 0 ? "yes" : "no"
        print "BENCH", name, value, unit, bar == "-" ? "-" : ">= " bar, holds
    }
    FNR == 1 { part++ }
    $1 == "entries" && part == 1 { entries = $2 }
    $1 == "sequential" { line("atlas read, " (part == 1 ? "" : "deflated, ") "in order, blocks of 1024", $2, $3, "-")
                         if (part == 1) first = $2 }
    $1 == "random-64" { line("atlas read, " (part == 1 ? "" : "deflated, ") "random blocks of 64", $2, $3, part == 1 ? 600000 : "-") }
    $1 == "random-16" && part == 1 { line("atlas read, random blocks of 16", $2, $3, "-") }
    $1 == "random-1" && part == 1 { line("atlas read, random single rows", $2, $3, "-") }
    $1 == "plain" && part == 1 { line("atlas read, share of plain read(2)", sprintf("%.2f", first * entries * 8 / $2), "ratio", "-") }
' "$dir/plain" "$dir/deflated"
