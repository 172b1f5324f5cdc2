#!/usr/bin/env bash
# Kernels in the double build: gradients against central differences, products through OpenBLAS.
# plan: ranks=1 limit=300
set -u
cd "$(dirname "$0")/.." || exit
. tests/environment
tests="double_kernels test_kernel_product test_kernel_parts test_kernel_norm test_kernel_retention"
mapfile -t built < <(printf 'build/double/tests/%s\n' $tests)
make -s -j2 CONFIG=double "${built[@]}" || exit 1
for t in $tests; do build/double/tests/"$t" || exit 1; done
