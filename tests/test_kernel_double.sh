#!/usr/bin/env bash
# Kernels in the double build: gradients against central differences, products through OpenBLAS.
# plan: ranks=1 limit=300
set -u
cd "$(dirname "$0")/.."
. tests/environment
tests="double_kernels test_kernel_product test_kernel_parts test_kernel_norm test_kernel_retention"
make -s -j2 CONFIG=double $(printf 'build/double/tests/%s ' $tests) || exit 1
for t in $tests; do build/double/tests/"$t" || exit 1; done
