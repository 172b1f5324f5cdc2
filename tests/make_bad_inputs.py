#!/usr/bin/python3
"""make_bad_inputs.py FOLDER: files that cytomill-ingest must refuse, one fault each, for test_bad_input.sh."""
import gzip, os, shutil, sys
import h5py, numpy as np

out = sys.argv[1]
base = "tests/data/formats/pbmc_small.h5ad"

def copy(name, source=base):
    shutil.copy(source, f"{out}/{name}")
    os.chmod(f"{out}/{name}", 0o644)
    return f"{out}/{name}"

def change(name, action, source=base):
    with h5py.File(copy(name, source), "r+") as f:
        action(f)

def replace(f, path, value):
    attrs = dict(f[path].attrs)
    del f[path]
    f[path] = value
    for k, v in attrs.items():
        f[path].attrs[k] = v

def values(edit):
    def action(f):
        x = f["X/data"][()].astype("f8")
        edit(x)
        replace(f, "X/data", x)
    return action

def part(path, edit):
    def action(f):
        x = f[path][()]
        edit(x)
        replace(f, path, x)
    return action

def set_at(i, v):
    def edit(x): x[i] = v
    return edit

data = open(base, "rb").read()
open(f"{out}/truncated.h5ad", "wb").write(data[:len(data) // 2])
open(f"{out}/corrupt.h5ad", "wb").write(data[:2000] + bytes(4000) + data[6000:])
open(f"{out}/text.h5ad", "w").write("gene,cell1,cell2\nTP53,1,0\n")
open(f"{out}/empty.h5ad", "w").close()
# LZF (filter 32000) renamed to a filter that does not exist (32008)
lzf = open("tests/data/formats/anndata_v0.7.0.h5ad", "rb").read()
open(f"{out}/filter.h5ad", "wb").write(lzf.replace(b"\x00\x7d\x04\x00\x01\x00", b"\x08\x7d\x04\x00\x01\x00").replace(b"\x00\x7d", b"\x08\x7d"))
change("no_var.h5ad", lambda f: f.__delitem__("var"))
change("no_x.h5ad", lambda f: f.__delitem__("X"))
change("no_indptr.h5ad", lambda f: f.__delitem__("X/indptr"))
change("no_index.h5ad", lambda f: f.__delitem__("obs/_index"))
change("no_features.h5", lambda f: f.__delitem__("matrix/features/id"), "tests/data/formats/cellranger_3.0.0_filtered_feature_bc_matrix.h5")
change("no_shape.h5", lambda f: f.__delitem__("matrix/shape"), "tests/data/formats/cellranger_3.0.0_filtered_feature_bc_matrix.h5")
change("negative.h5ad", values(set_at(100, -2.0)))
change("fraction.h5ad", values(set_at(100, 0.5)))
change("nan.h5ad", values(set_at(100, np.nan)))
change("infinite.h5ad", values(set_at(100, np.inf)))
change("large.h5ad", values(set_at(100, 2.0**24 + 1)))
change("indptr_back.h5ad", part("X/indptr", set_at(10, 2)))
change("indptr_end.h5ad", part("X/indptr", set_at(-1, 4000)))
change("index_high.h5ad", part("X/indices", set_at(50, 230)))
change("index_low.h5ad", part("X/indices", set_at(50, -1)))
change("index_twice.h5ad", lambda f: part("X/indices", set_at(1, f["X/indices"][0]))(f))
change("rows.h5ad", lambda f: f["X"].attrs.modify("shape", np.array([81, 230])))

def no_cells(f):
    for k in list(f["obs"]):
        if k != "_index": del f["obs/" + k]
    replace(f, "obs/_index", np.array([], dtype=h5py.string_dtype()))
    for k, v in (("data", np.zeros(0, "f4")), ("indices", np.zeros(0, "i4")), ("indptr", np.zeros(1, "i4"))): replace(f, "X/" + k, v)
    f["X"].attrs.modify("shape", np.array([0, 230]))
change("no_cells.h5ad", no_cells)

def names(path, edit):
    def action(f):
        x = [v.decode() for v in f[path][()]]
        edit(x)
        replace(f, path, np.array(x, dtype=h5py.string_dtype()))
    return action

change("other_genes.h5ad", names("var/_index", lambda x: x.__setitem__(slice(None), [f"elsewhere{i}" for i in range(len(x))])))
change("ids_twice.h5ad", names("var/_index", lambda x: x.__setitem__(slice(0, 2), ["ENSG00000141510.1", "ENSG00000141510.2"])))

def latin1(path):
    def action(f):
        x = [v for v in f[path][()]]
        x[3] = "Müller".encode("latin-1")
        n = max(len(v) for v in x)
        replace(f, path, np.array(x, dtype=f"S{n}"))
    return action
change("latin1_var.h5ad", latin1("var/_index"))
change("latin1_obs.h5ad", latin1("obs/_index"))

# 10x folders
good = "tests/data/formats/cellranger_3.0.0_filtered_feature_bc_matrix"
def folder(name, edit=None):
    shutil.copytree(good, f"{out}/{name}")
    mtx = gzip.open(f"{good}/matrix.mtx.gz", "rt").read().split("\n")
    os.remove(f"{out}/{name}/matrix.mtx.gz")
    if edit: edit(mtx)
    open(f"{out}/{name}/matrix.mtx", "w").write("\n".join(mtx))
folder("mtx_good")
size = next(i for i, l in enumerate(gzip.open(f"{good}/matrix.mtx.gz", "rt").read().split("\n")) if not l.startswith("%"))
folder("mtx_header", lambda m: m.__setitem__(0, "%%MatrixMarket matrix array real general"))
folder("mtx_short", lambda m: m.__delitem__(slice(-100, None)))
folder("mtx_range", lambda m: m.__setitem__(size + 5, "508 1 1"))
folder("mtx_zero", lambda m: m.__setitem__(size + 5, "0 1 1"))
folder("mtx_word", lambda m: m.__setitem__(size + 5, "5 1 many"))
folder("mtx_turned", lambda m: m.__setitem__(size, " ".join([m[size].split()[1], m[size].split()[0], m[size].split()[2]])))
folder("no_barcodes"); os.remove(f"{out}/no_barcodes/barcodes.tsv.gz")
folder("ids_twice")
rows = gzip.open(f"{good}/features.tsv.gz", "rt").read().split("\n")
gzip.open(f"{out}/ids_twice/features.tsv.gz", "wt").write("\n".join([rows[0], rows[0].split("\t")[0] + "\tOTHER\tGene Expression"] + rows[2:]))
shutil.copytree(good, f"{out}/gz_short")
z = open(f"{good}/matrix.mtx.gz", "rb").read()
os.chmod(f"{out}/gz_short/matrix.mtx.gz", 0o644)
open(f"{out}/gz_short/matrix.mtx.gz", "wb").write(z[:len(z) // 2])
open(f"{out}/vocabulary.tsv", "w").write("id\tsymbol\tensembl\thgnc\n1\tNOSUCHGENE\t\t\n")
cellfm = "HGNC_gene,h5_sample_frequency,biotype,gene_length,exon_count,exon_length_total,unique_exon_count,unique_exon_length_total,feature\n"
cellfm += "".join(f'GENE{i},{i},"RNA, long non-coding",,,,,,lncRNA\n' for i in range(400))
open(f"{out}/cellfm.csv.gz", "wb").write(gzip.compress(cellfm.encode())[:900])
open(f"{out}/cellfm.csv", "w").write(cellfm[:-20])
open(f"{out}/labels.tsv", "w").write("cell\tlabel\nNOBODY\ta\n")
