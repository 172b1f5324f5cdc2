#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The model against the PyTorch twin, run now: the small golden file made again (the committed one
# must still be what the twin says), and a realistic size (width 384, 200 and 300 genes a cell), in fp32,
# bf16 and double. Prints a table: what, file, result.
set -eu
cd "$(dirname "$0")/.."
B=${B:-build/release}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python validation/make_golden.py "$work/small.bin"
python validation/make_golden.py "$work/realistic.bin" --realistic
make -s "$B/tests/test_golden"
make -s CONFIG=double build/double/tests/test_golden
printf 'TWIN\tbuild\tfile\tresult\n'
failed=0
for build in "$B" build/double; do
    for file in tests/data/golden/cellfm.bin "$work/small.bin" "$work/realistic.bin"; do
        if "$build/tests/test_golden" "$file" >"$work/log" 2>&1; then result=agrees; else result=DIFFERS failed=1; fi
        printf 'TWIN\t%s\t%s\t%s\n' "$(basename "$build")" "$(basename "$file")" "$result"
        [ $result = agrees ] || grep -E 'relative error|loss|leaving' "$work/log" || true
    done
done
exit $failed
