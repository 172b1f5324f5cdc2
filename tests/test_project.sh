#!/usr/bin/env bash
# The project as a whole: what the documents say is there, and an installed copy works on its own.
# plan: limit=120
# configs/README.md is what the key table says, every key is read and every variable of the environment named; every file README and INSTALL name exists; every program has its
# batch file and its line in README; layers hold; 'make install' into a DESTDIR gives programs that find their
# configurations, batch files that find their programs, and a manual page each.
set -eu
. tests/environment
out=$(mktemp -d /tmp/cytomill-project.XXXXXX)
trap 'rm -rf "$out"' EXIT
wrong() { echo "$*"; exit 1; }

"$B/tests/tool_reference" | cmp -s - configs/README.md || wrong "configs/README.md is out of date: make docs"
# every key is read somewhere: it is an argument of a call that is neither a message nor a change of its value
cat src/*/*.c mpi/*.c io/*.c jobs/*.c | tr '\n' ' ' | grep -oE '[A-Za-z_]+\([^;"()]*"[a-z]+\.[a-z0-9_]+"' |
    grep -vE '^(config_fail|config_put)\(' | cut -d'"' -f2 | sort -u >"$out/read"
"$B/tests/tool_reference" | sed -n 's/^| `\([a-z0-9_.]*\)` .*/\1/p' | sort -u | comm -23 - "$out/read" >"$out/unread"
[ ! -s "$out/unread" ] || wrong "nothing reads the keys $(cat "$out/unread")"
for name in $(cat src/*/*.c mpi/*.c io/*.c jobs/*.c | grep -oE 'getenv\("CYTOMILL_[A-Z_]*"' | cut -d'"' -f2 | sort -u); do
    grep -q "\`$name\`" configs/README.md || wrong "configs/README.md does not name the environment variable $name"
done
.ci/layers || wrong "a layer includes what it must not"
for file in $(grep -ohE '`(src|mpi|io|jobs|tests|configs|validation)/[A-Za-z0-9_./]*`|\]\([A-Za-z0-9_./]+\)' README.md | tr -d '`]()'); do
    [ -e "$file" ] || wrong "README.md names $file, which is not there"
done
for program in "$B"/bin/cytomill-*; do
    name=$(basename "$program")
    grep -q "\`$name\`" README.md || wrong "README.md does not name $name"
    case $name in cytomill-probe | cytomill-plan) continue ;; esac # part of others; runs on a login node
    [ -e "jobs/${name#cytomill-}.sbatch" ] || wrong "$name has no batch file"
done
for batch in jobs/*.sbatch; do
    bash -n "$batch" || wrong "$batch is not a script"
    for option in --requeue --open-mode=append --signal=USR1@; do
        grep -q -- "^#SBATCH $option" "$batch" || wrong "$batch lacks #SBATCH $option"
    done
    ! grep -qE '^#SBATCH --(account|partition)' "$batch" || wrong "$batch chooses an account or partition, which is the site's"
done

make --no-print-directory install DESTDIR="$out" prefix=/opt/cytomill >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
installed=$out/opt/cytomill
for program in "$B"/bin/cytomill*; do
    name=$(basename "$program")
    cmp -s "$program" "$installed/bin/$name" || wrong "$name was not installed"
    [ -s "$installed/share/man/man1/$name.1" ] || wrong "$name has no manual page"
done
for file in $(cd jobs && ls ./*.sbatch batch.sh); do [ -e "$installed/share/cytomill/jobs/$file" ] || wrong "$file was not installed"; done
grep -q '^\.SH NAME' "$installed/share/man/man1/cytomill-analyze.1" && grep -q '^\.SH REPORT' "$installed/share/man/man1/cytomill-analyze.1" ||
    wrong "the manual page of cytomill-analyze lacks its verbs"
if command -v man >/dev/null && man -l "$installed/share/man/man1/cytomill.1" >"$out/page" 2>/dev/null; then
    grep -q 'foundation models' "$out/page" || wrong "man shows an empty page"
fi
# away from the source tree: the shipped vocabulary and HGNC table are found under share/
(cd "$out" && "$installed/bin/cytomill" ingest "$OLDPWD/tests/data/pbmc3k" --out "$out/atlas" --dry-run >"$out/log" 2>&1) || { cat "$out/log"; exit 1; }
