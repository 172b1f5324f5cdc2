#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write tests/data/golden/cellfm.bin from the twin: what src/model must compute on parity weights.

    validation/make_golden.py [OUT [--realistic]]

--realistic: width 384, 200 and 300 genes a cell, without the deleted terms (for check_twin.sh).

Everything is float64 truth from float32 inputs. Records (see tests/data/golden/README.md):
  shape.*         sizes and settings                 cell.*     the batch, ragged
  tap.<name>      inner values, [S, width]           loss       gene-wise, cell-wise, weight
  grad.<tensor>   gradient of L1 + L2                 step.<tensor>  weights after ten Adam steps
  bf16.<name>     the twin's own relative error when it runs in bfloat16
  draw.<k>.<name> truth of a few quantities on other draws of the weights; bf16.draws.<name>
                  the twin's median bfloat16 error over them; every gradient with --realistic
  without.<term>  (gene-wise, cell-wise, cls rows) with one term of the network left out
"""
import struct
import sys
from pathlib import Path

import numpy as np
import torch

from twin import TERMS, Shape, Twin, adam_steps, make_cell, parity_weights

CELL_GENES = (13, 9, 4, 20)  # 4: fewer than five genes, so all are in the loss and none is hidden
REALISTIC_GENES = (211, 302)
SHORT = ("cellwise", "value_enc.value_enc.a", "value_enc.value_enc.w1.weight", "value_enc.value_enc.w3.weight")
DRAWS = 8
ADAM = {"steps": 10, "rate": 1e-3}


class Writer:
    """Records: name length, name, type letter, number of dimensions, dimensions, little-endian data."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.file.write(b"CYGOLD01")

    def add(self, name, array):
        array = np.ascontiguousarray(array)
        kind = {"float64": b"d", "float32": b"f", "int32": b"i", "uint8": b"B"}[array.dtype.name]
        head = struct.pack("<H", len(name)) + name.encode() + kind + struct.pack("<B", array.ndim)
        self.file.write(head + struct.pack(f"<{array.ndim}q", *array.shape) + array.tobytes())


def batch_arrays(cells):
    """The batch with cls tokens, as struct batch holds it."""
    with_cls = lambda field, dtype: np.concatenate(
        [np.concatenate([[0], getattr(c, field)]) for c in cells]).astype(dtype)
    return {"length": np.array([len(c.gene) + 1 for c in cells], np.int32), "gene": with_cls("gene", np.int32),
            "value": with_cls("value", np.float32), "target": with_cls("target", np.float32),
            "visible": with_cls("visible", np.uint8), "weight": with_cls("weight", np.float32)}


def run(shape, cells, act, without=(), draw=0):
    """(taps by name, losses, gradients) of one pass, as float64 arrays."""
    masters = torch.float64 if act == torch.float64 else torch.float32
    twin = Twin(shape, parity_weights(shape, masters, draw), act, frozenset(without))
    gradients = {k: g.double().numpy() for k, g in twin.gradients(cells).items()}
    twin.taps.clear()
    with torch.no_grad(): losses = np.array([float(x) for x in twin.losses(cells)])
    return {k: torch.cat(v).double().numpy() for k, v in twin.taps.items()}, losses, gradients


def relative_error(found, truth):
    """Root mean square error over root mean square."""
    scale = np.sqrt(np.mean(truth**2))
    return float(np.sqrt(np.mean((found - truth)**2)) / scale) if scale > 0 else 0.0


def write_draws(out, shape, cells, names):
    """Quantities made of a few numbers (a sum over all tokens, one number per cell) have an error by
    luck, and with few cells so have all gradients together; so bf16 is judged on them by the median
    over several draws of the weights."""
    errors = {name: [] for name in names}
    for draw in range(1, DRAWS + 1):
        truth, low = (run(shape, cells, act, draw=draw) for act in (torch.float64, torch.bfloat16))
        for name in names:
            pick = lambda r: r[0][name] if name in r[0] else r[2][name]
            out.add(f"draw.{draw}.{name}", pick(truth))
            errors[name].append(relative_error(pick(low), pick(truth)))
    for name in names: out.add("bf16.draws." + name, np.array([np.median(errors[name])]))


def cls_rows(tap, cells):
    first = np.cumsum([0] + [len(c.gene) + 1 for c in cells[:-1]])
    return tap[first]


def write(out, shape, cells, terms, drawn):
    last = f"block.{shape.layers - 1}.norm2"
    taps, losses, gradients = run(shape, cells, torch.float64)
    out.add("shape.sizes", np.array([shape.layers, shape.width, shape.heads, shape.value_width, shape.genes], np.int32))
    for name, array in batch_arrays(cells).items(): out.add("cell." + name, array)
    for name, array in taps.items(): out.add("tap." + name, array)
    out.add("loss", losses)
    for name, array in gradients.items(): out.add("grad." + name, array)

    twin = Twin(shape, parity_weights(shape, torch.float64), torch.float64)
    adam_steps(twin, cells, **ADAM)
    for name, w in twin.weights.items(): out.add("step." + name, w.detach().numpy())

    taps16, _, gradients16 = run(shape, cells, torch.bfloat16)
    for name in taps: out.add("bf16.tap." + name, np.array([relative_error(taps16[name], taps[name])]))
    for name in gradients: out.add("bf16.grad." + name, np.array([relative_error(gradients16[name], gradients[name])]))
    write_draws(out, shape, cells, SHORT + tuple(n for n in gradients if drawn == "all" and n not in SHORT))

    for term in terms:
        t, l, g = run(shape, cells, torch.float64, [term])
        size = np.array([np.sqrt(sum((x**2).sum() for x in g.values()))])
        out.add("without." + term, np.concatenate([l[:2], size, cls_rows(t[last], cells).ravel()]))


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--realistic"]
    path = Path(arguments[0]) if arguments else Path(__file__).parent.parent / "tests/data/golden/cellfm.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the same bits anywhere, and no waiting for busy cores
    if "--realistic" in sys.argv:
        shape, lengths, terms = Shape(layers=2, width=384, heads=12, value_width=256, genes=600), REALISTIC_GENES, ()
        drawn = "all"
    else:
        shape, lengths, terms = Shape(layers=2, width=64, heads=2, value_width=16, genes=37), CELL_GENES, TERMS
        drawn = "short"
    write(Writer(path), shape, [make_cell(shape.genes, n, 7 + n) for n in lengths], terms, drawn)
