"""Inputs of tests/test_analyze.sh, and what its outputs must be.

    check_analyze.py make|pca|score|report DIR"""
import csv
import json
import math
import os
import re
import sys
from html.parser import HTMLParser

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

step, folder = sys.argv[1:]


def read(name):
    return anndata.read_h5ad(f"{folder}/{name}.h5ad")


# ---- inputs: 180 cells of three planted types, 251 genes, one of them silent ----

def make():
    rng = np.random.default_rng(3)
    markers = {"B": ["CD79A", "MS4A1", "CD79B"], "NK": ["GNLY", "NKG7", "KLRD1"], "Mono": ["LYZ", "S100A8", "S100A9", "CD14"]}
    genes = sum(markers.values(), []) + [f"GENE{i}" for i in range(240)] + ["SILENT"]
    n = 180
    types = np.array(list(markers))[np.arange(n) % 3]
    mean = np.full((n, len(genes)), 0.05)
    mean[:, 10:250] = rng.gamma(0.7, 1.5, 240) * rng.uniform(0.4, 2.5, n)[:, None]
    mean[:, -1] = 0
    for kind, names in markers.items():
        for g in names:
            mean[types == kind, genes.index(g)] = 6
    mean[types == "NK", 20:60] *= 1.8
    x = rng.poisson(mean).astype(np.float32)
    obs = pd.DataFrame({"kind": pd.Categorical(types), "lane": pd.Categorical(np.where(np.arange(n) % 5 < 3, "one", "two")),
                        "qc_total": x.sum(1).astype(int), "same": "x"}, index=[f"c{i}" for i in range(n)])
    obs.loc[obs.index[7], "kind"] = np.nan
    var = pd.DataFrame(index=genes)
    anndata.AnnData(sp.csr_matrix(x), obs=obs, var=var).write_h5ad(f"{folder}/counts.h5ad")
    anndata.AnnData(x[:100], obs=obs[:100], var=var).write_h5ad(f"{folder}/fewer.h5ad")
    anndata.AnnData(np.log1p(x * 0.37), obs=obs, var=var).write_h5ad(f"{folder}/log.h5ad")
    z = rng.normal(size=(n, 4)).astype(np.float32)
    empty = sp.csr_matrix((n, 1), dtype=np.float32)
    anndata.AnnData(empty, obs=obs, obsm={"X_a": z, "X_b": z}).write_h5ad(f"{folder}/two.h5ad")
    z[9, 1] = np.nan
    anndata.AnnData(empty, obs=obs, obsm={"X_a": z}).write_h5ad(f"{folder}/nan.h5ad")
    make_run(f"{folder}/run")


def make_run(run):
    """metrics.jsonl and learning.tsv as cytomill-pretrain writes them, cut while it was writing."""
    os.makedirs(run)
    with open(f"{run}/metrics.jsonl", "w") as out:
        for s in range(1, 401):
            value = 0.15 + math.exp(-s / 40)
            out.write(json.dumps({"kind": "train", "step": s, "loss": 2 * value, "genewise_hidden": value, "time_s": s}) + "\n")
            if s % 100 == 0:
                out.write(json.dumps({"kind": "evaluate", "step": s, "genewise_hidden": value + 0.005, "cellwise_hidden": None,
                                      "reference_mean": 0.21, "reference_offset": 0.16, "reference_poisson": 0.1501}) + "\n")
        out.write('{"kind":"train","st')
    with open(f"{run}/expert_usage.tsv", "w") as out:
        out.write("step\tlayer\texpert\tcell_type\tslots\tshare\n")
        for at in (20, 40):
            for layer in (1, 3):
                for expert in range(4):
                    for kind, share in (("B & T", 0.25), ("NK", 1.0 if expert == layer else 0.0)):
                        out.write(f"{at}\t{layer}\t{expert}\t{kind if at == 40 else 'lost'}\t{int(share * 100)}\t{share}\n")
    with open(f"{run}/learning.tsv", "w") as out:
        out.write("predictor\tmse_hidden\thidden_positions\theld_out_cells\tstep\tmodel_better_percent\n")
        out.write("model gene-wise\t0.155\t1000\t20\t400\t0\ngene mean\t0.21\t1000\t20\t400\t26.2\n")


# ---- pca: against a full SVD in fp64 ----

def compare_pca(result, x, genes, components):
    y = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    used = np.where(result.var.in_pca)[0]
    assert sorted(np.argsort(-y.var(0), kind="stable")[:genes]) == sorted(used), "other genes"
    y = y[:, used] - y[:, used].mean(0)
    variance = np.linalg.svd(y, compute_uv=False) ** 2 / (len(y) - 1)
    found = result.uns["pca"]
    off = np.abs(found["variance"] / variance[:components] - 1).max()
    assert off < 1e-5, f"explained variance off by {off:.2g}"
    assert np.abs(found["variance_ratio"] * variance.sum() / variance[:components] - 1).max() < 1e-5
    loadings = result.varm["PCs"]
    assert np.abs(y @ loadings[used].astype(float) - result.obsm["X_pca"]).max() < 1e-4, "scores are not the projections"
    assert np.abs(loadings.T @ loadings - np.eye(components)).max() < 1e-5
    assert not np.delete(loadings, used, 0).any()
    assert (np.take_along_axis(loadings, np.abs(loadings).argmax(0)[None], 0) > 0).all(), "signs are not fixed"


def same_column(a, b):
    return a.astype(object).where(a.notna(), None).tolist() == b.astype(object).where(b.notna(), None).tolist()


def pca():
    source, result = read("counts"), read("pca")
    x = source.X.toarray().astype(float)
    compare_pca(result, x, 100, 10)
    assert list(result.obs_names) == list(source.obs_names) and list(result.var["name"]) == list(source.var_names)
    assert same_column(result.obs.kind, source.obs.kind) and same_column(result.obs.qc_total, source.obs.qc_total)
    one = (source.obs.lane == "one").values
    compare_pca(read("all"), x[one], int((x[one].var(0) > 0).sum()), 107)


# ---- score: against brute force ----

def predict(z, labels, train, test, k):
    out = []
    for q in test:
        near = train[train != q]
        near = near[np.argsort(((z[near] - z[q]) ** 2).sum(1), kind="stable")[:k]]
        votes = {label: (labels[near] == label).sum() for label in labels[near]}
        out.append(next(labels[i] for i in near if votes[labels[i]] == max(votes.values())))
    return np.array(out)


def macro(truth, said):
    f1 = [2 * ((truth == label) & (said == label)).sum() / ((truth == label).sum() + (said == label).sum())
          for label in sorted(set(truth) | set(said))]
    return np.mean(f1), (truth == said).mean()


def rows(name):
    return list(csv.DictReader([line for line in open(f"{folder}/{name}.tsv") if line[0] != "#"], delimiter="\t"))


def compare_score(row, truth, said):
    f1, accuracy = macro(truth, said)
    assert abs(float(row["macro_f1"]) - f1) < 6e-5 and abs(float(row["accuracy"]) - accuracy) < 6e-5, (row, f1, accuracy)


def score():
    data = read("pca")
    labels = data.obs.kind.astype(object).where(data.obs.kind.notna(), None).values
    known = np.array([label is not None for label in labels])
    z = data.obsm["X_pca"].astype(float)
    one, two = (np.where((data.obs.lane == lane).values & known)[0] for lane in ("one", "two"))
    found = rows("alone")
    assert [r["representation"] for r in found] == ["pca.h5ad X_pca"] * 2 + ["PCA (10)"] * 2 + ["depth alone"] * 2
    for row, train, test in zip(found, (one, two), (two, one)):
        compare_score(row, labels[test], predict(z, labels, train, test, 5))
        assert int(row["train_cells"]) == len(train) and int(row["test_cells"]) == len(test), row
    assert found[0]["macro_f1"] == found[2]["macro_f1"], "PCA beside the embedding is not the PCA of the file"
    assert float(found[4]["macro_f1"]) < 0.7 < float(found[0]["macro_f1"]), "depth alone should not tell types apart"
    every = np.where(known)[0]
    loo = rows("loo")
    compare_score(loo[0], labels[every], predict(z, labels, every, every, 15))
    assert loo[1]["representation"] == "depth alone"
    assert {r["label"] for r in rows("alone.labels")} == {"B", "NK", "Mono"}


# ---- report ----

class Page(HTMLParser):
    """Every element is closed in order; ids of the sections, count of each tag, references to outside."""

    def __init__(self, path):
        super().__init__()
        self.text = open(path, encoding="utf-8").read()
        self.open, self.sections, self.tags, self.outside = [], [], {}, []
        self.feed(self.text)
        assert not self.open, f"not closed: {self.open}"

    def note(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag == "h2":
            self.sections.append(dict(attributes)["id"])
        self.outside += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")]

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.note(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:], self.getpos())
        self.open.pop()

    def table(self, corner):
        """Cells of the table whose first head is `corner`: {row: {column: number}}."""
        body = self.text[self.text.index(f"<th>{corner}</th>"):]
        body = body[:body.index("</table>")]
        heads = re.findall(r"<th>(.*?)</th>", body)
        lines = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", body)]
        return {c[0]: dict(zip(heads[1:], map(int, c[1:]))) for c in lines if c}


def report():
    page = Page(f"{folder}/alone.html")
    assert page.sections == ["learning", "experts", "map", "scores", "screen", "provenance"], page.sections
    text = open(f"{folder}/alone.html").read()
    assert text.count("of its tokens in layer") == 2 * 4 * 2 and "lost" not in text
    assert "B &amp; T: 25.0 % of its tokens in layer 3 at expert 0" in text and "NK: 100.0 % of its tokens in layer 1 at expert 1" in text
    assert not page.outside and "script" not in page.tags and "link" not in page.tags, f"refers to {page.outside}"
    assert page.tags["svg"] == 6 and page.tags["table"] >= 7, page.tags
    for words in ("B cell (", "NK cell (", "CD14 monocyte (", "held-out cells", "gene mean", "depth alone",
                  "It beats: the gene mean (0.2100), the gene mean with the cell's offset (0.1600)",
                  "does not beat: the Poisson reference (0.1501)"):
        assert words in page.text, words
    lanes = page.text[:page.text.index("coloured by column 'lane' of the input. ")]
    lanes = lanes[lanes.rindex("<svg"):]
    assert "one" in lanes and "two" in lanes and "no value" not in lanes, "the map of lanes lacks its legend"
    assert re.search(r"column 'qc_total' of the input: the 12 largest of its \d+ values", open(f"{folder}/groups.html").read())
    assert Page(f"{folder}/groups.html").sections == ["map", "map-2", "provenance"]
    panel = {"CD79A", "LYZ", "GNLY", "NKG7"}
    squares = re.findall(r"<title>(\w+) \+ (\w+): (?:effect|interaction|too few)", page.text)
    assert len(squares) == 12 and {g for pair in squares for g in pair} == panel, squares
    called = page.table("kind")
    for kind, cell_type in (("B", "B cell"), ("NK", "NK cell"), ("Mono", "CD14 monocyte")):
        assert called[kind][cell_type] >= 50 and called[kind][cell_type] == max(called[kind].values()), (kind, called[kind])
    assert Page(f"{folder}/folder/report.html").sections == ["data", "provenance"]


{"make": make, "pca": pca, "score": score, "report": report}[step]()
