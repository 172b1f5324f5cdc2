#!/usr/bin/env bash
# kind: check
# The products build against oneDNN 3.x and pass the same tests. PyPI has the library on GNU OpenMP up to 3.2 and the
# headers, without a library, from 3.6 on: both are used. What 3.2 does not give is gradients whose bits do not depend
# on the number of threads (test_model passes but for that), so that test stays with Debian's 2.6.
set -eu
. tests/environment
wheels=(onednn-devel==2025.0.0 onednn-cpu-gomp==2023.2.0)
build=build/onednn3
if [ ! -e "$build/lib/libdnnl.so" ]; then
    mkdir -p "$build/wheels" "$build/lib"
    "${PYTHON:-python3}" -m pip download -q --no-deps -d "$build/wheels" "${wheels[@]}" ||
        { echo "the wheels ${wheels[*]} could not be fetched"; exit 77; }
    for wheel in "$build"/wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$build/wheels/open"; done
    cp -r "$build"/wheels/open/*.data/data/include "$build/"
    cp "$build"/wheels/open/*.data/data/lib/libdnnl.so.3 "$build/lib/"
    ln -sf libdnnl.so.3 "$build/lib/libdnnl.so"
fi
# A build of its own, so that objects of the two versions never meet.
make -j2 --no-print-directory CONFIG=onednn3 FLAGS_onednn3="-O3 -g -I$PWD/$build/include" \
    LDFLAGS="-L$PWD/$build/lib -Wl,-rpath,$PWD/$build/lib" \
    TEST_SRC_onednn3="$(echo tests/test_kernel_product*.c tests/test_golden.c)" all units | grep -v '^  CC' || true
build/onednn3/bin/cytomill-pretrain --version | grep '^oneDNN 3' || { echo "not linked with oneDNN 3"; exit 1; }
for test in build/onednn3/tests/test_*; do
    case $test in *.d) continue ;; esac
    "$test" >"build/onednn3/test.log" 2>&1 || { echo "$(basename "$test") failed with oneDNN 3"; tail -20 build/onednn3/test.log; exit 1; }
    echo "$(basename "$test") passes with $(build/onednn3/bin/cytomill-pretrain --version | grep oneDNN)"
done
