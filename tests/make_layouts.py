#!/usr/bin/python3
"""make_layouts.py FOLDER: one small count matrix in every layout and filter that .h5ad files come in, for test_layouts.sh.

All files hold the same values; prints "FILE PLACE" lines, PLACE being where the values must be found, and on stderr
"absent: FILTER" for each filter whose library this machine lacks. Anything else that goes wrong ends it."""
import os, sys
import h5py, numpy as np, scipy.sparse as sp
import anndata, pandas as pd

out = sys.argv[1]
rng = np.random.default_rng(1)
cells, genes = 137, 61
x = rng.poisson(0.7, (cells, genes)).astype("f4") * (rng.random((cells, genes)) < 0.4)
x[5] = 0                       # a cell without counts
x[0, 0] = 3
csr = sp.csr_matrix(x)
log = csr.copy(); log.data = np.log1p(log.data).astype("f4")
names = [f"GENE{i}" for i in range(genes)]
obs = pd.DataFrame({"kind": pd.Categorical(rng.choice(["a", "b", "ü"], cells)), "depth": rng.random(cells), "n": np.arange(cells),
                    "flag": rng.random(cells) < 0.5}, index=[f"cell{i}" for i in range(cells)])

def base(name, m=csr, **more):
    a = anndata.AnnData(X=m, obs=obs.copy(), var=pd.DataFrame(index=names), **more, dtype=m.dtype)
    a.write_h5ad(f"{out}/{name}.h5ad")
    return f"{out}/{name}.h5ad"

def say(name, place="X"): print(f"{out}/{name}.h5ad {place}")

for t in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4", ">f8"):
    path = base("type_" + t.replace(">", "be_"))
    with h5py.File(path, "r+") as f:
        del f["X/data"]; f["X"].create_dataset("data", data=csr.data.astype(t), chunks=(500,), compression="gzip", shuffle=True)
    say("type_" + t.replace(">", "be_"))
base("csc", sp.csc_matrix(x)); say("csc")
base("dense", x); say("dense")
path = base("dense_chunks", x)
with h5py.File(path, "r+") as f:
    attrs = dict(f["X"].attrs); del f["X"]
    d = f.create_dataset("X", data=x, chunks=(10, 7), compression="lzf")
    for k, v in attrs.items(): d.attrs[k] = v
say("dense_chunks")

path = base("unsorted")
with h5py.File(path, "r+") as f:
    i, v, p = f["X/indices"][()], f["X/data"][()], f["X/indptr"][()]
    for r in range(cells):
        o = rng.permutation(p[r + 1] - p[r]) + p[r]
        i[p[r]:p[r + 1]], v[p[r]:p[r + 1]] = i[o], v[o]
    f["X/indices"][...], f["X/data"][...] = i, v
say("unsorted")
path = base("zeros")                      # zeros that are stored
full = csr.copy(); full.data = full.data.copy()
with h5py.File(path, "r+") as f:
    i = np.tile(np.arange(genes), cells)
    for k, v in (("data", x.ravel()), ("indices", i.astype("i4")), ("indptr", np.arange(cells + 1) * genes)):
        del f["X/" + k]; f["X"].create_dataset(k, data=v)
say("zeros")
base("raw", log, raw={"X": csr, "var": pd.DataFrame(index=names)}); say("raw", "raw/X")
base("layer", log, layers={"umi": csr}); say("layer", "layers/umi")
late = csr.copy()                          # looks like counts at first: the fraction stands at the end
late.data[-1] = 0.5
base("late", late, layers={"counts": sp.csc_matrix(x)}); say("late", "layers/counts")

# filters: the encoders are the libraries themselves, written as raw chunks
import ctypes, ctypes.util, struct
library = ctypes.CDLL # OSError where it is not installed
def lz4(b):
    l = library("liblz4.so.1")
    room = ctypes.create_string_buffer(len(b) * 2 + 64)
    n = l.LZ4_compress_default(b, room, len(b), len(room))
    assert n < len(b)
    return struct.pack(">QII", len(b), len(b), n) + room.raw[:n]
def blosc(b):
    l = library("libblosc.so.1")
    room = ctypes.create_string_buffer(len(b) + 16)
    n = l.blosc_compress(5, 1, ctypes.c_size_t(4), ctypes.c_size_t(len(b)), b, room, ctypes.c_size_t(len(room)))
    return room.raw[:n]
def bz2(b):
    import bz2 as module
    return module.compress(b)
def zstd(b):
    l = library("libzstd.so.1")
    room = ctypes.create_string_buffer(len(b) * 2 + 64)
    l.ZSTD_compress.restype = ctypes.c_size_t
    n = l.ZSTD_compress(room, ctypes.c_size_t(len(room)), b, ctypes.c_size_t(len(b)), 3)
    return room.raw[:n]
for name, number, pack, values in (("lz4", 32004, lz4, (0,)), ("blosc", 32001, blosc, (2, 2, 4, 2000, 5, 1, 0)), ("bzip2", 307, bz2, (9,)), ("zstd", 32015, zstd, (3,))):
    try: pack(bytes(64))
    except OSError:
        print(f"absent: {name}", file=sys.stderr)
        continue
    path = base(name)
    with h5py.File(path, "r+") as f:
        for part, kind in (("data", "f4"), ("indices", "i4")):
            v = f["X/" + part][()].astype(kind)
            del f["X/" + part]
            chunk = 500
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((chunk,))
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
            space = h5py.h5s.create_simple((len(v),))
            d = h5py.h5d.create(f["X"].id, part.encode(), h5py.h5t.py_create(v.dtype), space, plist)
            for at in range(0, len(v), chunk):
                piece = np.zeros(chunk, v.dtype); piece[:len(v[at:at + chunk])] = v[at:at + chunk]
                d.write_direct_chunk((at,), pack(piece.tobytes()))
    say(name)
path = base("fletcher")
with h5py.File(path, "r+") as f:
    for part in ("data", "indices"):
        v = f["X/" + part][()]; del f["X/" + part]
        f["X"].create_dataset(part, data=v, chunks=(333,), fletcher32=True, compression="gzip", shuffle=True)
say("fletcher")
path = base("contiguous")
with h5py.File(path, "r+") as f:
    for part in ("data", "indices", "indptr"):
        v = f["X/" + part][()]; del f["X/" + part]
        f["X"].create_dataset(part, data=v)
say("contiguous")

# obs of the current release: nullable columns and string arrays with a mask
path = base("nullable")
with h5py.File(path, "r+") as f:
    def group(name, kind, values, mask, version="0.1.0"):
        g = f["obs"].create_group(name)
        g.attrs["encoding-type"], g.attrs["encoding-version"] = kind, version
        g["values"], g["mask"] = values, mask
    mask = np.arange(cells) % 5 == 0
    group("whole", "nullable-integer", np.arange(cells), mask)
    group("truth", "nullable-boolean", np.arange(cells) % 2 == 0, mask)
    group("words", "nullable-string-array", np.array([f"w{i}" for i in range(cells)], dtype=h5py.string_dtype()), mask)
    f["obs"].attrs["column-order"] = np.array(list(f["obs"].attrs["column-order"]) + ["whole", "truth", "words"], dtype=h5py.string_dtype())
say("nullable")
np.save(f"{out}/x.npy", x)
obs.to_csv(f"{out}/obs.csv")
