#!/usr/bin/env bash
# Cells ingested per second and core, writing included, on generated .h5ad inputs (CSR, gzip 4 + shuffle, chunks of
# 64 k, about 850 values a cell, files of unequal size): page cache warm and cold, on 1 and 2 ranks; and peak memory
# of one rank at a tenth of the cells. CELLS=200000 FILES=24 change the size.
# plan: ranks=1 limit=900
set -u
. tests/environment
dir=$(mktemp -d "${BENCH_TMP:-/tmp}/ingest.XXXXXX"); trap 'rm -rf "$dir"' EXIT
cells=${CELLS:-200000} files=${FILES:-24}
cytomill-ingest tests/data/pbmc3k --out "$dir/real" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
mpirun -n 2 "$B/tests/tool_generate" h5ad "$dir/real" "$dir/large" "$cells" "$files" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
mpirun -n 2 "$B/tests/tool_generate" h5ad "$dir/real" "$dir/small" $((cells / 10)) "$files" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
row() { # name value unit bar holds
    printf 'BENCH\t%s\t%s\t%s\t%s\t%s\n' "$@"
}
peak_kib=0 seconds=0
ingest() { # ranks inputs...: sets seconds (start and end of the program included) and peak_kib of the largest rank
    local n=$1 begin end; shift
    rm -rf "$dir/atlas"; sync
    begin=$(date +%s.%N)
    if [ "$n" = 1 ]; then
        /usr/bin/python3 -c 'import resource, subprocess, sys
rc = subprocess.call(sys.argv[2:], stdout=open(sys.argv[1] + "/log", "w"), stderr=subprocess.STDOUT)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(rc)' "$dir" cytomill-ingest "$@" --out "$dir/atlas" >"$dir/peak" || { cat "$dir/log"; exit 1; }
        peak_kib=$(cat "$dir/peak")
    else
        mpirun -n "$n" cytomill-ingest "$@" --out "$dir/atlas" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
    fi
    end=$(date +%s.%N)
    seconds=$(echo "$begin $end" | awk '{ print $2 - $1 }')
}
median() { sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }
evict() { # drop the inputs from the page cache; prints the share that stayed
    sync
    /usr/bin/python3 - "$@" <<'P'
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mincore.argtypes = libc.munmap.argtypes = None
stayed = pages = 0
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    n = (size + 4095) // 4096
    seen = (ctypes.c_ubyte * n)()
    libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), seen)
    stayed += sum(b & 1 for b in seen); pages += n
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    os.close(fd)
print(f"{stayed / pages:.3f}")
P
}
rate() { awk -v c="$cells" -v s="$1" -v n="$2" 'BEGIN { printf "%.0f", c / s / n }'; }
holds() { awk -v a="$1" -v b="$2" 'BEGIN { print (a >= b ? "yes" : "no") }'; }
bar=10000
for n in 1 2; do
    cat "$dir"/large/*.h5ad >/dev/null
    warm=$(for _ in 1 2 3; do ingest $n "$dir"/large/*.h5ad; echo "$seconds"; done | median)
    stayed=$(evict "$dir"/large/*.h5ad)
    ingest $n "$dir"/large/*.h5ad
    warm=$(rate "$warm" $n) cold=$(rate "$seconds" $n)
    row "ingest, $cells cells in $files files, $n rank(s), warm cache" "$warm" "cells/s/core" ">= $bar" "$(holds "$warm" $bar)"
    row "ingest, $cells cells in $files files, $n rank(s), cold cache ($stayed of pages stayed)" "$cold" "cells/s/core" ">= $bar" "$(holds "$cold" $bar)"
done
ingest 1 "$dir"/small/*.h5ad; small=$peak_kib
ingest 1 "$dir"/large/*.h5ad; large=$peak_kib
row "ingest, peak memory at $((cells / 10)) cells" "$((small / 1024))" MiB - -
row "ingest, peak memory at $cells cells" "$((large / 1024))" MiB - -
ratio=$(awk -v a="$large" -v b="$small" 'BEGIN { printf "%.2f", a / b }')
row "ingest, memory at $cells over memory at $((cells / 10)) cells" "$ratio" ratio "<= 1.10" "$(holds 1.10 "$ratio")"
