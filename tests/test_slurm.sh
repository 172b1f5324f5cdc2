#!/usr/bin/env bash
# Four nodes under Slurm: the chain of all five jobs, one of them through its time limit, bit for bit; and pipeline stages
# on the four nodes, one of which loses its rank, bit for bit.
# plan: limit=600
tests/slurm/chain && tests/slurm/mesh
