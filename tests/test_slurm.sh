#!/usr/bin/env bash
# Four nodes under Slurm: the chain of all five jobs, one of them through its time limit, bit for bit.
# plan: limit=600
exec tests/slurm/chain
