#!/usr/bin/env bash
# plan: limit=150
# The short form of make drill: 6 killed ranks and 2 signals over one run on 3 and one on 2 ranks, other ones each time.
exec tests/drill --kills 6 --signals 2 --quiet
