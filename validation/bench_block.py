#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One ERetNet block, ours against PyTorch, eager and compiled, on equal cores and equal cells.

    B=build/release validation/bench_block.py

kind: bars. Width 1536, one cell of 2,048 tokens, forward + backward, 1 and 2 threads, in the types that
tests/bench_block.c reports. Prints the same tab-separated lines: BENCH, name, value, unit, bar, holds.
Where the processor does not multiply bfloat16, PyTorch takes about two minutes a pass in it: it gets one
turn there, and a smaller block would flatter us. Takes twenty minutes then, else five; run it alone.
Exit 3 if a bar is missed, 77 if no peer ran.
"""
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

WIDTH, HEADS, TOKENS, ROUNDS = 1536, 48, 2048, 5


class Block(torch.nn.Module):
    """The equations of twin.py for a dense batch of equal-length cells, written for speed."""

    def __init__(self):
        super().__init__()
        linear = lambda: torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.q, self.k, self.v, self.u, self.o, self.fu, self.fv, self.fo = (linear() for _ in range(8))
        self.norm1, self.norm2 = (torch.nn.LayerNorm(WIDTH, eps=1e-7) for _ in range(2))

    def forward(self, x, keys):
        heads = lambda y: y.reshape(1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
        q, v = torch.relu(heads(self.q(x))), heads(self.v(x)) / TOKENS**0.5
        k = torch.relu(heads(self.k(x))) * keys
        o = (q @ (k.transpose(-1, -2) @ v)).float()
        o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + 1e-24)
        o = o.to(x.dtype).transpose(1, 2).reshape(1, TOKENS, WIDTH) * F.silu(self.u(x))
        y = self.norm1(1.4142 * x + F.dropout(self.o(o), 0.05))
        return self.norm2(1.4142 * y + F.dropout(self.fo(self.fu(y) * self.fv(y)), 0.05))


class Torch:
    """The block on `threads` threads; .run(form) gives milliseconds of one forward + backward."""

    def __init__(self, dtype):
        torch.manual_seed(0)
        block = Block().to(dtype)
        self.forms = {"eager": block, "compiled": torch.compile(block)}
        self.x = torch.randn(1, TOKENS, WIDTH, dtype=dtype, requires_grad=True)
        self.keys = (torch.arange(TOKENS) % 6 != 3).to(dtype)[:, None]
        self.dy = torch.randn(1, TOKENS, WIDTH, dtype=dtype)

    def run(self, form, threads):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        self.forms[form](self.x, self.keys).backward(self.dy)
        return 1e3 * (time.perf_counter() - start)


def our_times():
    """{(threads, "fp32"|"bf16"|"bf16 emulated"): ms} of forward + backward, from one round of bench_block."""
    out = {}
    program = os.path.join(os.environ.get("B", "build/release"), "tests/bench_block")
    for line in subprocess.run([program, "1"], capture_output=True, text=True, check=True).stdout.splitlines():
        _, name, value, *_ = line.split("\t")
        what, kind, threads = name.rsplit(", ", 2)
        if what == "ERetNet block, forward + backward, time": out[int(threads.split()[0]), kind] = float(value)
    return out


if __name__ == "__main__":
    # Ours and the peers take turns, so that a machine that grows slower does so for all; the ratio is of medians.
    ours = {}
    for key, ms in our_times().items(): ours[key] = [ms]
    peers = {kind: Torch(torch.bfloat16 if kind.startswith("bf16") else torch.float32) for _, kind in ours}
    theirs = {(key, form): [] for key in ours for form in ("compiled", "eager")}
    for turn in range(ROUNDS + 1):
        for (threads, kind), form in theirs:
            try:
                if kind == "bf16 emulated":
                    if turn > 1 or turn == 0 and form == "eager": continue
                    ms = peers[kind].run(form, threads)
                    if turn == 1: theirs[(threads, kind), form].append(ms)
                elif turn == 0: peers[kind].run(form, threads)  # compiles
                elif theirs[(threads, kind), form] is not None:
                    # the better of two: ours has a warm pass before the one that counts
                    theirs[(threads, kind), form].append(min(peers[kind].run(form, threads) for _ in range(2)))
            except Exception as error:  # no C++ compiler: the row says "not run"
                theirs[(threads, kind), form] = None
                print(f"PyTorch {form}: {str(error).splitlines()[0]}", file=sys.stderr)
        if turn:
            for key, ms in our_times().items(): ours[key].append(ms)
    ratios = []
    for ((threads, kind), form), times in theirs.items():
        bar = 1.0 if form == "compiled" else 1.15
        name = f"ERetNet block, forward + backward, {kind}, {threads} threads, times PyTorch {torch.__version__} {form}"
        if not times: print(f"BENCH\t{name}\tnot run\t-\t>= {bar:.2f}\t-")
        else:
            ratio = statistics.median(times) / statistics.median(ours[threads, kind])
            ratios.append(ratio / bar)
            print(f"BENCH\t{name}\t{ratio:.3f}\tx\t>= {bar:.2f}\t{'yes' if ratio >= bar else 'no'}")
    if not ratios: print("no peer ran")
    sys.exit(77 if not ratios else 3 if min(ratios) < 1 else 0)
