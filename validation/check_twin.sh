#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kind: check
# The model against the PyTorch twin, run now: the committed golden file must still be what the twin
# says, and a realistic size (width 384, 200 and 300 genes a cell) must agree too, in fp32, bf16 and
# double. Prints, per build, file and kind of quantity: how many were compared, the largest relative
# error, of which quantity, and the largest share of its limit (1 = just allowed).
set -eu
cd "$(dirname "$0")/.."
B=${B:-build/release} python=${PYTHON:-python}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
"$python" validation/make_golden.py "$work/small.bin"
"$python" validation/make_golden.py "$work/realistic.bin" --realistic
make -s "$B/tests/test_golden"
make -s CONFIG=double build/double/tests/test_golden
summarise() { # build file
    awk -F'\t' -v where="$1, $2" '$1 == "PARITY" {
            n[$2]++; share = $5 > 0 ? $4 / $5 : 0
            if (!($2 in worst) || $4 + 0 > worst[$2]) { worst[$2] = $4 + 0; name[$2] = $3 }
            if (share > most[$2]) most[$2] = share }
        END { for (k in n) printf "TWIN\t%s\t%s\t%d\t%.2g\t%s\t%.2f\n", where, k, n[k], worst[k], name[k], most[k] }' | sort
}
printf 'TWIN\tbuild, file\tquantity\tcompared\tlargest error\tof\tshare of limit\n'
failed=0
for build in "$B" build/double; do
    for file in tests/data/golden/cellfm.bin "$work/small.bin" "$work/realistic.bin"; do
        "$build/tests/test_golden" "$file" --table >"$work/log" 2>&1 || { failed=1; grep -E 'allowed|ERROR' "$work/log" || true; }
        summarise "$(basename "$build")" "$(basename "$file")" <"$work/log"
    done
done
exit $failed
