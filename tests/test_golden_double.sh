#!/usr/bin/env bash
# The double build against the twin, where rounding hides nothing (limits 1e-13), and every op's
# gradient against central differences.
# plan: ranks=1 limit=300
set -u
cd "$(dirname "$0")/.." || exit
. tests/environment
tests="test_golden test_tape"
mapfile -t built < <(printf 'build/double/tests/%s\n' $tests)
make -s -j2 CONFIG=double "${built[@]}" || exit 1
for t in $tests; do build/double/tests/"$t" || exit 1; done
