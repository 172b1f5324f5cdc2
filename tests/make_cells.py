"""Small count matrices with every kind of obs column, as .h5ad, for tests of programs.

    make_cells.py OUT VOCABULARY.tsv.gz CELLS [shuffle|first|second|foreign|lognorm]

Row r of the same CELLS holds the same counts and obs however the file is cut or shuffled. Every 17th cell has no
gene of the vocabulary, every 11th many genes."""
import gzip
import sys

import anndata
import numpy as np
import pandas as pd
import scipy.sparse

out, vocabulary, cells, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), (sys.argv + [""])[4]
rng = np.random.default_rng(7)
genes = [line.split("\t")[:3] for line in gzip.open(vocabulary, "rt").read().splitlines()[1:]]
known = [genes[i] for i in rng.choice(len(genes), 600, replace=False)]
names = [g[1] for g in known] + [f"unknown-{i}" for i in range(20)]
ids = [g[2] for g in known] + [""] * 20
rows = np.zeros((cells, len(names)), np.float32)
for r in range(cells):
    many = rng.integers(300, 500) if r % 11 == 3 else rng.integers(20, 120)
    pick = rng.choice(600, many, replace=False, p=np.arange(600, 0, -1) / (600 * 601 / 2))
    rows[r, pick] = 1 + rng.geometric(0.4, many)
    rows[r, 600 + r % 20] = 1 + r % 3
    if r % 17 == 5:
        rows[r, :600] = 0
obs = pd.DataFrame({
    "cell_type": pd.Categorical.from_codes(np.where(np.arange(cells) % 9 == 4, -1, np.arange(cells) % 3), ["B", "NK céll", "T"]),
    "depth": rows.sum(1).astype("int64"),
    "share": np.where(np.arange(cells) % 7 == 2, np.nan, np.arange(cells) / 3.0),
    "good": np.arange(cells) % 2 == 0,
    "note": [f"note {r}" for r in range(cells)],
}, index=[f"cell-{r}" for r in range(cells)])
var = pd.DataFrame({"gene_ids": ids}, index=names)
order = np.arange(cells)
if how == "shuffle":
    order = rng.permutation(cells)
elif how == "first":
    order = order[:cells // 3]
elif how == "second":
    order = order[cells // 3:]
elif how == "foreign":
    var = pd.DataFrame(index=[f"ENSMUSG{i:011d}" for i in range(len(names))])
elif how == "lognorm":
    rows = np.log1p(1e4 * rows / np.maximum(rows.sum(1, keepdims=True), 1)).astype(np.float32)
data = anndata.AnnData(scipy.sparse.csr_matrix(rows[order]), obs=obs.iloc[order].copy(), var=var)
data.write_h5ad(out)
