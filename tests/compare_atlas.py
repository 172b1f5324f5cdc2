#!/usr/bin/python3
"""compare_atlas.py ATLAS INPUT...: is every value of every input in the atlas, under its row and feature, and nothing else?

Reads the inputs with h5py and scipy and the atlas with anndata: neither knows our code. Exit 1 with a line for each difference.
An input may carry where its values lie: FILE::raw/X, FILE::layers/counts, or the genome of a 10x file: FILE::hg19_chr21."""
import gzip, os, sys, glob, warnings
import numpy as np, scipy.sparse as sp, scipy.io, h5py
warnings.filterwarnings("ignore")
import anndata

TYPES = {"Gene Expression": "rna", "Antibody Capture": "adt"}

def texts(values):
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

def read_matrix(node):
    if isinstance(node, h5py.Dataset):
        return sp.csr_matrix(node[()].astype("f8"))
    kind = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format"))
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    kind = kind.decode() if isinstance(kind, bytes) else kind
    make = sp.csr_matrix if kind.startswith("csr") else sp.csc_matrix
    return make((node["data"][()].astype("f8"), node["indices"][()], node["indptr"][()]), shape=tuple(shape)).tocsr()

def read_index(node):
    if isinstance(node, h5py.Dataset):
        return texts(node["index"])
    index = node[node.attrs["_index"]]
    return texts(index[()] if isinstance(index, h5py.Dataset) else index["values"][()])

def open_text(path):
    return gzip.open(path + ".gz", "rt") if os.path.exists(path + ".gz") else open(path)

def read_source(path):
    """cells, names, {modality: (matrix, names)}"""
    path, _, where = path.partition("::")
    if os.path.isdir(path):
        with open_text(path + "/matrix.mtx") as f:
            lines = [l for l in f if not l.startswith("%")]
        shape = [int(x) for x in lines[0].split()]
        ijv = np.array([l.split() for l in lines[1:]], dtype="f8").reshape(-1, 3)
        m = sp.coo_matrix((ijv[:, 2], (ijv[:, 1].astype(int) - 1, ijv[:, 0].astype(int) - 1)), shape=(shape[1], shape[0])).tocsr()
        features = "/features.tsv" if os.path.exists(path + "/features.tsv") or os.path.exists(path + "/features.tsv.gz") else "/genes.tsv"
        rows = [l.rstrip("\n").split("\t") for l in open_text(path + features)]
        cells = [l.rstrip("\n").split("\t")[0] for l in open_text(path + "/barcodes.tsv")]
        return cells, split(m, [r[1] for r in rows], [r[2] if len(r) > 2 else "Gene Expression" for r in rows])
    f = h5py.File(path, "r")
    if "obs" in f:
        where = where or "X"
        var = "raw/var" if where.startswith("raw/") else "raw.var" if where.startswith("raw.") else "var"
        return read_index(f["obs"]), {"rna": (read_matrix(f[where]), read_index(f[var]))}
    g = f[where] if where else f["matrix"] if "matrix" in f else f[list(f)[0]]
    shape = g["shape"][()]
    m = sp.csr_matrix((g["data"][()].astype("f8"), g["indices"][()], g["indptr"][()]), shape=(shape[1], shape[0]))
    if "features" in g:
        return texts(g["barcodes"]), split(m, texts(g["features/name"]), texts(g["features/feature_type"]))
    return texts(g["barcodes"]), {"rna": (m, texts(g["gene_names"]))}

def split(m, names, types):
    out = {}
    for t in dict.fromkeys(types):
        keep = [i for i, x in enumerate(types) if x == t]
        out[TYPES.get(t, t)] = (m[:, keep], [names[i] for i in keep])
    return out

def main(atlas, inputs):
    bad = []
    atlases = {}
    for folder in sorted(glob.glob(atlas + "/mod/*")):
        shards = [anndata.read_h5ad(s) for s in sorted(glob.glob(folder + "/shard-*.h5ad"))]
        obs = {k: np.concatenate([np.asarray(s.obs[k]) for s in shards]) for k in ("source_file", "source_row", "source_obs_name")}
        atlases[os.path.basename(folder)] = (obs, sp.vstack([sp.csr_matrix(s.X) for s in shards]).tocsr(), shards)
    total = 0
    for source in inputs:
        cells, modalities = read_source(source)
        path = source.partition("::")[0]
        total += len(cells)
        for name, (m, features) in modalities.items():
            obs, x, shards = atlases[name]
            mine = np.flatnonzero(obs["source_file"] == path)
            mine = mine[np.argsort(obs["source_row"][mine])]
            if list(obs["source_row"][mine]) != list(range(len(cells))):
                bad.append(f"{source}: rows {len(mine)} of {len(cells)}")
                continue
            if list(obs["source_obs_name"][mine]) != cells:
                bad.append(f"{source}: names of cells differ")
            var = shards[0].var
            if len(inputs) == 1:  # one source: same features in the same order
                got = x[mine]
                if got.shape != m.shape:
                    bad.append(f"{source} {name}: {got.shape} for {m.shape}")
                    continue
                if list(var["name"]) != features:
                    bad.append(f"{source} {name}: names of features differ")
                m = m.astype("f4").astype("f8")
                m.eliminate_zeros()
                if (got.astype("f8") != m).nnz:
                    bad.append(f"{source} {name}: {(got != m).nnz} values differ")
            elif not np.allclose(np.asarray(x[mine].astype("f8").sum(axis=1)), np.asarray(m.astype("f4").astype("f8").sum(axis=1)), rtol=1e-6):
                bad.append(f"{source} {name}: sums of rows differ")
            elif not np.array_equal(np.sort(x[mine].data), np.sort(m.data[m.data != 0].astype("f4"))):
                bad.append(f"{source} {name}: values differ")
    for name, (obs, x, shards) in atlases.items():
        if x.shape[0] != total:
            bad.append(f"{name}: {x.shape[0]} rows for {total} cells")
        if not x.has_sorted_indices:
            bad.append(f"{name}: indices are not sorted")
    if bad: print("\n".join(bad))
    return 1 if bad else 0

sys.exit(main(sys.argv[1], sys.argv[2:]))
