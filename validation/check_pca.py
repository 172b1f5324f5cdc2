"""cytomill-analyze pca against scanpy on real counts: explained variance to 1e-5 relative, on 1 and 3 ranks.

    validation/check_pca.py

kind: check. PBMC 3k with its 2,000 most variable genes, and Kang's interferon data with all genes.

Needs scanpy. Run from the root of the project after make; prints one line a run, exits 1 on a miss."""
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import anndata
import scanpy

BAR = 1e-5
data = os.environ.get("CYTOMILL_DATA", "../shared/data")
failed = False
if not os.path.isdir(data):
    print(f"the shared data are not at {data}; set CYTOMILL_DATA")
    sys.exit(77)


def reference(path, used):
    """scanpy's own steps in double precision, on the genes that were used."""
    cells = anndata.read_h5ad(path)
    cells.X = cells.X.astype(np.float64)
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    scanpy.pp.log1p(cells)
    variance = np.asarray(cells.X.power(2).mean(0) - np.square(cells.X.mean(0))).ravel()
    best = np.argsort(-variance, kind="stable")[:used.sum()]
    assert set(best) == set(np.where(used)[0]), "other genes were chosen"
    cells = cells[:, used].copy()
    cells.X = cells.X.toarray()
    scanpy.pp.pca(cells, n_comps=50, svd_solver="full", dtype="float64")
    return cells.uns["pca"]["variance"], cells.uns["pca"]["variance_ratio"], cells.obsm["X_pca"]


for name, genes in (("pbmc3k/pbmc3k_labelled", "2000"), ("kang_pbmc/kang_ifnb_labelled", "all")):
    path = f"{data}/{name}.h5ad"
    for ranks in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/pca.h5ad"
            command = f". tests/environment; mpirun -n {ranks} cytomill-analyze pca --atlas '{path}' --genes {genes} --out {out}"
            subprocess.run(["bash", "-c", command], check=True, capture_output=True)
            ours = anndata.read_h5ad(out)
        variance, ratio, scores = reference(path, ours.var["in_pca"].values.astype(bool))
        off = np.abs(ours.uns["pca"]["variance"] / variance - 1).max()
        off_ratio = np.abs(ours.uns["pca"]["variance_ratio"] / ratio - 1).max()
        same = np.abs(np.abs(ours.obsm["X_pca"][:, :10]) - np.abs(scores[:, :10])).max()
        good = off < BAR and off_ratio < BAR
        failed |= not good
        print(f"{name}, genes {genes}, {ranks} ranks: explained variance off by {off:.1e}, its share by {off_ratio:.1e} (bar {BAR:.0e}), "
              f"scores of 10 components by {same:.1e}: {'holds' if good else 'MISSED'}")
sys.exit(failed)
