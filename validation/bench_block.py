#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One ERetNet block, ours against PyTorch, eager and compiled, on equal cores and equal cells.

    B=build/release validation/bench_block.py

Width 1536, one cell of 2,048 tokens, forward + backward, 1 and 2 threads; bfloat16 where the
processor multiplies it, else float32: the type tests/bench_block.c reports. Prints the same
tab-separated lines: BENCH, name, value, unit, bar, holds. Takes a few minutes; run it alone.
"""
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

WIDTH, HEADS, TOKENS, ROUNDS = 1536, 48, 2048, 7


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


def milliseconds(run):
    run()
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def torch_times(threads, dtype):
    """{"eager": ms, "compiled": ms or None if it cannot be compiled here}"""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    block = Block().to(dtype)
    x = torch.randn(1, TOKENS, WIDTH, dtype=dtype, requires_grad=True)
    keys = (torch.arange(TOKENS) % 6 != 3).to(dtype)[:, None]
    dy = torch.randn(1, TOKENS, WIDTH, dtype=dtype)
    out = {}
    for name, form in (("eager", block), ("compiled", torch.compile(block))):
        try:
            out[name] = milliseconds(lambda: form(x, keys).backward(dy))
        except Exception as error:  # no C++ compiler: the row says "not run"
            out[name] = None
            print(f"PyTorch {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    return out


def our_times():
    """{(threads, "fp32"): ms} of forward + backward, from bench_block's own lines."""
    out = {}
    program = os.path.join(os.environ.get("B", "build/release"), "tests/bench_block")
    for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines():
        _, name, value, *_ = line.split("\t")
        what, kind, threads = name.rsplit(", ", 2)
        if what == "ERetNet block, forward + backward, time": out[int(threads.split()[0]), kind] = float(value)
    return out


if __name__ == "__main__":
    for (threads, kind), ours in our_times().items():
        peers = torch_times(threads, torch.bfloat16 if kind == "bf16" else torch.float32)
        for peer, bar in (("compiled", 1.0), ("eager", 1.15)):
            name = f"ERetNet block, forward + backward, {kind}, {threads} threads, times PyTorch {torch.__version__} {peer}"
            if peers[peer] is None: print(f"BENCH\t{name}\tnot run\t-\t>= {bar:.2f}\t-")
            else: print(f"BENCH\t{name}\t{peers[peer] / ours:.3f}\tx\t>= {bar:.2f}\t{'yes' if peers[peer] >= bar * ours else 'no'}")
