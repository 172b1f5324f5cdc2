#!/usr/bin/env bash
# The frame all programs share: help, version, wrong options, exit codes, one error line.
# plan: ranks=1,3 limit=120
# Help fits one screen, goes to stdout and names every option's value; an unknown option or verb gets the nearest
# name; an option that other programs have and this one does not honour is unknown to it, also to its help; usage errors are exit 2, configuration errors exit 3; on 3 ranks exactly one line is printed.
set -eu
. tests/environment
out=$(mktemp -d /tmp/cytomill-programs.XXXXXX)
trap 'rm -rf "$out"' EXIT
run() { if [ "$RANKS" = 1 ]; then "$@"; else mpirun -n "$RANKS" "$@"; fi; }
complain() { echo "$*"; echo "--- stdout"; cat "$out/stdout"; echo "--- stderr"; cat "$out/stderr"; exit 1; }

# expect CODE PATTERN COMMAND...: its exit code, and one line on stderr that matches (mpirun's banner aside)
expect() {
    local code=$1 pattern=$2 rc=0; shift 2
    run "$@" >"$out/stdout" 2>"$out/stderr" || rc=$?
    [ "$rc" = "$code" ] || complain "$*: exit $rc, expected $code"
    [ "$(grep -c 'error\[' "$out/stderr")" = 1 ] || complain "$*: not exactly one error line"
    grep -qE -- "$pattern" "$out/stderr" || complain "$*: no line matches '$pattern'"
    [ ! -s "$out/stdout" ] || complain "$*: an error printed to stdout"
}
quiet() { # command that must succeed with nothing on stderr
    run "$@" >"$out/stdout" 2>"$out/stderr" || complain "$*: failed"
    [ ! -s "$out/stderr" ] || complain "$*: printed to stderr"
}

check_help() { # program words: help of one screen with its parts
    quiet "$@" --help
    [ "$(wc -l < "$out/stdout")" -le 42 ] || complain "$*: help is longer than a screen"
    [ "$(grep -c '^usage:' "$out/stdout")" = 1 ] || complain "$*: help was not printed once"
    grep -q '^exit codes: 0 ok, 2 usage' "$out/stdout" || complain "$*: help lacks exit codes"
    grep -q '^example: ' "$out/stdout" || complain "$*: help lacks an example"
    awk 'length($0) > 132 { exit 1 }' "$out/stdout" || complain "$*: help has a line over 132 columns"
}
check_options() { # program words
    expect 2 "unknown option '--thread-'; did you mean '--threads'" "$@" --thread- 3
    expect 2 'option --threads needs a value' "$@" --threads
    expect 2 'option --oversubscribe takes no value' "$@" --oversubscribe=3
    expect 2 "unknown option '-x'" "$@" -x
    expect 3 "error\[3 configuration\].*--threads: run.threads is '12x'; allowed is a whole number" "$@" --threads 12x
    expect 3 "unknown key 'trian.steps'; did you mean 'train.steps'" "$@" --set trian.steps=3
    expect 3 'nowhere.yaml: cannot be opened' "$@" --config "$out/nowhere.yaml"
}

# The shared options a program does not honour: not in its help, exit 2, one line with the program's name. Their keys
# may stand in a file, which programs share.
declare -A refuses=(
    [ingest]="atlas model precision isa io cells" [pretrain]="model" [embed]="seed io" [sweep]="io"
    [plan]="atlas model seed io cells fresh" [pca]="model seed precision isa io fresh" [score]="model seed precision isa io fresh"
    [umap]="atlas model precision isa io cells fresh" [report]="model precision isa io fresh")
shared="atlas model out seed threads precision isa io cells stop-file oversubscribe fresh"
printf 'run: {model: m, seed: 3, precision: fp32, isa: generic, io: posix, cells: "x > 1", atlas: a}\ncluster: {cores: 2, memory_gib: 512, fp32_gflops: 1, memory_gb_per_s: 1}\n' >"$out/shared.yaml"
check_shared() { # verb, program words
    local verb=$1 option tried=; shift
    [ "$RANKS" = 1 ] || return 0
    [ -n "${refuses[$verb]}" ] || complain "$*: which shared options does it refuse?"
    run "$@" --help >"$out/help" 2>/dev/null
    for option in $shared; do
        case " ${refuses[$verb]} " in
        *" $option "*)
            ! grep -q -- "^  --$option " "$out/help" || complain "$*: --$option is in its help"
            # one is enough: help and parser read the same table
            [ -n "$tried" ] || expect 2 "^$*: .*unknown option '--$option'.*see $* --help" "$@" --$option
            tried=1 ;;
        *) grep -q -- "^  --$option " "$out/help" || complain "$*: --$option is not in its help" ;;
        esac
    done
    run "$@" --config "$out/shared.yaml" --out "$out/none" >"$out/stdout" 2>"$out/stderr" || true
    ! grep -q 'error\[3' "$out/stderr" || complain "$*: refuses keys that programs share"
}

verbs_of() { "$1" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p'; }

found=0
for program in "$B"/bin/cytomill-*; do
    name=$(basename "$program")
    [ -x "$program" ] && [ "$name" != cytomill-probe ] || continue
    found=$((found + 1))
    quiet "$name" --version
    [ "$(grep -cE '^(cytomill [0-9]|compiler|MPI|HDF5|oneDNN)' "$out/stdout")" = 5 ] || complain "$name: version is not five lines"
    cytomill --help | grep -q "^  ${name#cytomill-} " || complain "$name is not among the umbrella's verbs"
    verbs=$(verbs_of "$name")
    if [ -n "$verbs" ]; then
        quiet "$name" --help
        expect 2 'a verb is missing' "$name"
        expect 2 "unknown verb 'zzz'" "$name" zzz
        for verb in $verbs; do check_help "$name" "$verb"; check_shared "$verb" "$name" "$verb"; done
        check_options "$name" "${verbs%%$'\n'*}"
    else
        check_help "$name"
        check_options "$name"
        check_shared "${name#cytomill-}" "$name"
    fi
done
[ "$found" -ge 5 ] || { echo "only $found programs under $B/bin"; exit 1; }

# where ranks run is told at the start
run cytomill-ingest tests/data/formats/pbmc_small.h5ad --out "$out/atlas" --dry-run >"$out/stdout" 2>"$out/stderr" || complain "dry run"
[ "$(grep -cE "host .*: $RANKS ranks? of $RANKS, [0-9]+ threads? each, [0-9]+ cores?, [0-9]+ NUMA nodes?" "$out/stderr")" = 1 ] ||
    complain "the placement is not told"
if [ "$RANKS" != 1 ] && [ "$(env -u OMP_NUM_THREADS nproc)" -ge 2 ]; then
    grep -q 'not bound' "$out/stderr" || complain "ranks that are not bound are not told"
    mpirun -n 2 --bind-to core cytomill-ingest tests/data/formats/pbmc_small.h5ad --out "$out/atlas" --dry-run >"$out/stdout" 2>"$out/stderr"
    [ "$(grep -cE '  rank [01]: cores [0-9,-]+, NUMA node [0-9]+$' "$out/stderr")" = 2 ] || complain "the cores of bound ranks are not told"
fi

quiet cytomill --help
for verb in $(verbs_of cytomill); do
    [ "$verb" = config ] || [ -x "$B/bin/cytomill-$verb" ] || complain "the umbrella lists $verb, which is not a program"
done
expect 2 "unknown verb 'ingst'; did you mean 'ingest'" cytomill ingst
expect 2 'a verb is missing' cytomill
expect 2 "unknown option '--sed'; did you mean '--seed'" cytomill pretrain --sed 3
expect 3 "unknown key 'run.uot'; did you mean 'run.out'" cytomill config run.uot
