# SPDX-License-Identifier: Apache-2.0
"""A PyTorch twin of CellFM's pre-training network, written from its published equations.

It is slow and plain: one cell at a time, one line per equation, tensors under their published
names, gradients by autograd. src/model must agree with it in every inner value, loss, gradient and
optimiser step. `without` leaves one term out, to show that the comparison would notice.

Sizes: B cells, S tokens of a cell (cls included), D width, H heads, C = D/H, V genes, L layers.
"""
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

TERMS = ("cls_token", "gene_embedding", "value_embedding", "value_residual", "value_slope", "value_w3",
         "value_softmax", "mask_embedding", "key_mask", "key_mask_half", "relu_q", "relu_k", "rms_norm",
         "gate", "o_proj", "residual_lambda_1", "residual_lambda_2", "residual_1", "residual_2",
         "mixer", "ffn", "ffn_gate", "norm1_mean", "norm1_gamma", "norm1_beta", "norm2_gamma",
         "norm2_beta", "decoder_slope", "decoder_w1", "cellwise_sigmoid", "cellwise_map", "loss_genewise",
         "loss_cellwise", "loss_visible")


@dataclass
class Shape:
    layers: int = 2
    width: int = 64
    heads: int = 2
    value_width: int = 16
    genes: int = 37
    slope: float = 0.2
    norm_eps: float = 1e-7
    key_mask: str = "half"  # half, all or none

    @property
    def rows(self):
        """Rows of the gene table: V genes and the pad row, rounded up to a multiple of 8."""
        return (self.genes + 1 + 7) // 8 * 8


def parameter_shapes(s):
    """Published names and shapes, in the order of src/model's parameter table."""
    d, b = s.width, s.value_width
    out = {"gene_emb": (s.rows, d), "cls_token": (1, 1, d), "zero_emb": (1, 1, d),
           "value_enc.mask_emb": (1, 1, d), "value_enc.value_enc.a": (1, 1),
           "value_enc.value_enc.w1.weight": (b, 1), "value_enc.value_enc.w3.weight": (b, b),
           "value_enc.value_enc.table.weight": (d, b)}
    for i in range(s.layers):
        for m in "qkvuo":
            out[f"encoder.{i}.attn.{m}_proj.weight"] = (d, d)
        for m in "uvo":
            out[f"encoder.{i}.ffn.{m}_proj.weight"] = (d, d)
        for n in (1, 2):
            out[f"encoder.{i}.post_norm{n}.gamma"] = (d,)
            out[f"encoder.{i}.post_norm{n}.beta"] = (d,)
    out["value_dec.w1.weight"] = (d, d)
    out["value_dec.w2.weight"] = (1, d)
    out["cellwise_dec.map.weight"] = (d, d)
    return out


def noise(name, count):
    """Numbers of unit variance that depend on (name, index) alone: uniform, from splitmix64.
    tests/golden.h has the same four lines, so weights need not be stored."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 & (1 << 64) - 1
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    uniform = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (2 * uniform - 1) * np.sqrt(3.0)


def parity_scale(name, shape):
    """(mean, sd) of a parity weight: every matrix at gain 1, every vector random and non-zero, so
    that no term of the network hides behind another (at the published start a model without any
    feed-forward still has cosine 0.9998)."""
    if name.endswith("gamma"): return 1.0, 0.3
    if name.endswith("beta"): return 0.0, 0.3
    if name.endswith(".a"): return 0.0, 0.6
    if name.endswith("_emb") or name in ("gene_emb", "cls_token"): return 0.0, 1.0
    if name.endswith("table.weight"): return 0.0, 1.0  # softmax averages over its 256 columns
    return 0.0, 1.0 / np.sqrt(shape[-1])


def parity_weights(s, dtype, draw=0):
    """Parity weights; other draws than 0 hash "name#draw" instead of the name."""
    weights = {}
    for name, shape in parameter_shapes(s).items():
        mean, sd = parity_scale(name, shape)
        key = f"{name}#{draw}" if draw else name
        w = (mean + sd * noise(key, int(np.prod(shape)))).astype(np.float32).reshape(shape)
        if name == "gene_emb": w[0] = 0
        weights[name] = torch.from_numpy(w).to(dtype).requires_grad_()
    return weights


@dataclass
class Cell:
    """One cell without its cls token: gene ids, model input, target, what is shown, what counts."""
    gene: np.ndarray
    value: np.ndarray
    target: np.ndarray
    visible: np.ndarray
    weight: np.ndarray


def make_cell(genes, lengths_n, key, select=0.2, hide=0.8):
    """A cell with `lengths_n` genes out of `genes`, counts mostly one, masked as published:
    floor(select n) positions in the loss, the first floor(hide m) of them hidden; none selected
    (n < 5) means all in the loss and none hidden."""
    rng = np.random.default_rng(key)
    gene = np.sort(rng.choice(genes, lengths_n, replace=False) + 1).astype(np.int32)
    count = rng.geometric(0.55, lengths_n)
    target = np.log1p(count * 1e4 / max(count.sum(), 200)).astype(np.float32)
    chosen = rng.permutation(lengths_n)[:int(select * lengths_n)]
    weight = np.zeros(lengths_n, np.float32)
    visible = np.ones(lengths_n, np.uint8)
    weight[chosen] = 1
    visible[chosen[:int(hide * len(chosen))]] = 0
    if len(chosen) == 0: weight[:] = 1
    return Cell(gene, target * visible, target, visible, weight)


@dataclass
class Twin:
    """The network on a dictionary of weights. `act` is the type activations are stored in; norms,
    softmax and losses are computed in `fine`: float32 under bfloat16, else the same type."""
    shape: Shape
    weights: dict
    act: torch.dtype = torch.float64
    without: frozenset = frozenset()
    taps: dict = field(default_factory=dict)

    @property
    def fine(self):
        return torch.float32 if self.act == torch.bfloat16 else self.act

    def keeps(self, term):
        assert term in TERMS, term
        return term not in self.without

    def w(self, name):
        return self.weights[name].to(self.act)

    def linear(self, x, name):
        """x W^T. bfloat16 is rounded operands and results with a float32 sum, which is what hardware
        does; written out because PyTorch is very slow at it on processors without bfloat16."""
        w = self.w(name)
        return (x.float() @ w.float().T).to(self.act) if self.act == torch.bfloat16 else x @ w.T

    def tap(self, name, tensor):
        self.taps.setdefault(name, []).append(tensor)
        return tensor

    def leaky(self, x, term):
        return F.leaky_relu(x, self.shape.slope) if self.keeps(term) else x

    def encode_values(self, value):
        """e = Table softmax(W3 t + a t), t = LeakyReLU(w1 x). Plain form, per token: [n] -> [n, D]."""
        p = "value_enc.value_enc."
        fine = lambda name: self.weights[p + name].to(self.fine)
        t1 = self.leaky(value[:, None].to(self.fine) * fine("w1.weight").T, "value_slope")
        t2 = t1 @ fine("w3.weight").T if self.keeps("value_w3") else t1 * 0
        if self.keeps("value_residual"): t2 = t2 + fine("a") * t1
        prob = torch.softmax(t2, -1) if self.keeps("value_softmax") else t2
        return self.linear(prob.to(self.act), p + "table.weight")

    def embed(self, cell):
        """[1 + n, D]: the cls token, then gene_emb + value embedding (mask_emb where hidden)."""
        visible = torch.from_numpy(cell.visible.astype(bool))[:, None]
        e = self.encode_values(torch.from_numpy(cell.value))
        mask = self.w("value_enc.mask_emb").reshape(1, -1)
        if not self.keeps("mask_embedding"): mask = mask * 0
        if not self.keeps("value_embedding"): e = e * 0
        x = torch.where(visible, e, mask)
        if self.keeps("gene_embedding"): x = x + self.w("gene_emb")[torch.from_numpy(cell.gene).long()]
        cls = self.w("cls_token").reshape(1, -1)
        if not self.keeps("cls_token"): cls = cls * 0
        return self.tap("embed", torch.cat([cls, x]))

    def keys(self, cell, i):
        """Key mask of layer i, [1 + n]: hidden genes are no keys in the first half of the layers."""
        seen = torch.from_numpy(np.concatenate([[1], cell.visible])).to(self.fine)
        half = self.shape.layers // 2 if self.keeps("key_mask_half") else self.shape.layers
        masked = {"half": i < half, "all": True, "none": False}[self.shape.key_mask]
        return seen if masked and self.keeps("key_mask") else torch.ones_like(seen)

    def retention(self, x, keys, i):
        """O = Q sum_j K_j^T V_j per head, RMS-normed per head, gated by SiLU(u): [S, D] -> [S, D]."""
        s, p = self.shape, f"encoder.{i}.attn."
        c, n = s.width // s.heads, x.shape[0] - 1
        q, k, v, u = (self.tap(f"block.{i}.{m}", self.linear(x, f"{p}{m}_proj.weight")) for m in "qkvu")
        heads = lambda y: y.to(self.fine).reshape(-1, s.heads, c)
        relu_q = torch.relu if self.keeps("relu_q") else (lambda y: y)
        relu_k = torch.relu if self.keeps("relu_k") else (lambda y: y)
        q = relu_q(heads(q)) / c**0.5
        k = relu_k(heads(k)) / c**0.5 * keys[:, None, None]
        v = heads(v) / n**0.5
        o = torch.einsum("thc,hcd->thd", q, torch.einsum("shc,shd->hcd", k, v))
        if self.keeps("rms_norm"): o = o / torch.clamp(o.square().mean(-1, keepdim=True).sqrt(), min=1e-12)
        o = o.reshape(-1, s.width)
        if self.keeps("gate"): o = o * F.silu(u.to(self.fine))
        o = self.tap(f"block.{i}.retention", o.to(self.act))
        y = self.linear(o, p + "o_proj.weight") if self.keeps("o_proj") else o
        return self.tap(f"block.{i}.mixer", y)

    def sglu(self, x, i):
        """y = Wo((Wu x) * (Wv x)): [S, D] -> [S, D]."""
        p = f"encoder.{i}.ffn."
        g = self.linear(x, p + "u_proj.weight")
        if self.keeps("ffn_gate"): g = g * self.linear(x, p + "v_proj.weight")
        return self.tap(f"block.{i}.ffn", self.linear(self.tap(f"block.{i}.gate", g), p + "o_proj.weight"))

    def residual_norm(self, x, y, i, which):
        """LayerNorm(lambda x + y), lambda = (2L)^(1/4)."""
        s, p = self.shape, f"encoder.{i}.post_norm{which}."
        lam = (2 * s.layers)**0.25 if self.keeps(f"residual_lambda_{which}") else 1.0
        if not self.keeps(f"residual_{which}"): lam = 0.0
        z = lam * x.to(self.fine) + y.to(self.fine)
        gamma = self.weights[p + "gamma"].to(self.fine) if self.keeps(f"norm{which}_gamma") else 1.0
        beta = self.weights[p + "beta"].to(self.fine) if self.keeps(f"norm{which}_beta") else 0.0
        mean = z.mean(-1, keepdim=True)
        if which == 1 and not self.keeps("norm1_mean"): mean = mean * 0
        variance = (z - mean).square().mean(-1, keepdim=True)
        out = (z - mean) / (variance + s.norm_eps).sqrt() * gamma + beta
        return self.tap(f"block.{i}.norm{which}", out.to(self.act))

    def block(self, x, keys, i):
        a = self.retention(x, keys, i)
        y = self.residual_norm(x, a if self.keeps("mixer") else a * 0, i, 1)
        f = self.sglu(y, i)
        return self.residual_norm(y, f if self.keeps("ffn") else f * 0, i, 2)

    def encode(self, cell):
        x = self.embed(cell)
        for i in range(self.shape.layers):
            x = self.block(x, self.keys(cell, i), i)
        return x

    def decode(self, x, cell):
        """Predictions of the n genes: gene-wise MLP on each row, and sigmoid(M gene_emb) . cls."""
        h = x[1:]
        if self.keeps("decoder_w1"): h = self.linear(h, "value_dec.w1.weight")
        h = self.leaky(h.to(self.fine), "decoder_slope")
        gene_wise = h @ self.weights["value_dec.w2.weight"].to(self.fine)[0]
        query = self.w("gene_emb")[torch.from_numpy(cell.gene).long()]
        if self.keeps("cellwise_map"): query = self.linear(query, "cellwise_dec.map.weight")
        query = query.to(self.fine)
        if self.keeps("cellwise_sigmoid"): query = torch.sigmoid(query)
        return self.tap("genewise", gene_wise), self.tap("cellwise", query @ x[0].to(self.fine))

    def losses(self, cells):
        """Sums over the batch: (sum w (p-y)^2 gene-wise, the same cell-wise, sum w)."""
        sums = [0.0, 0.0, 0.0]
        for cell in cells:
            predictions = self.decode(self.encode(cell), cell)
            weight = torch.from_numpy(cell.weight).to(self.fine)
            if not self.keeps("loss_visible"): weight = weight * torch.from_numpy(1 - cell.visible).to(self.fine)
            target = torch.from_numpy(cell.target).to(self.fine)
            for k, p in enumerate(predictions):
                sums[k] = sums[k] + (weight * (p - target).square()).sum()
            sums[2] += float(weight.sum())
        return sums

    def objective(self, cells):
        gene_wise, cell_wise, weight = self.losses(cells)
        terms = [t for t, name in ((gene_wise, "loss_genewise"), (cell_wise, "loss_cellwise")) if self.keeps(name)]
        return sum(terms) / weight

    def gradients(self, cells):
        for w in self.weights.values(): w.grad = None
        self.objective(cells).backward()
        zero = lambda w: w.grad if w.grad is not None else torch.zeros_like(w)
        out = {name: zero(w).detach().clone() for name, w in self.weights.items()}
        out["gene_emb"][0] = 0
        return out


def decays(name):
    """The published exclusion tests substrings, so cls_token, a and the norms are decayed."""
    return not any(word in name for word in ("emb", "layernorm", "bias"))


def adam_steps(twin, cells, steps, rate, beta1=0.9, beta2=0.95, eps=1e-8, decay=1e-5, clip=1.0):
    """Adam as published: every tensor's gradient clipped to norm `clip`, decay added to the
    gradient, bias correction folded into the step, eps outside the root. Changes the weights."""
    m = {k: torch.zeros_like(w) for k, w in twin.weights.items()}
    v = {k: torch.zeros_like(w) for k, w in twin.weights.items()}
    for t in range(1, steps + 1):
        gradients = twin.gradients(cells)
        step = rate * (1 - beta2**t)**0.5 / (1 - beta1**t)
        with torch.no_grad():
            for name, w in twin.weights.items():
                g = gradients[name]
                norm = g.square().sum().sqrt()
                if norm > clip: g = g * (clip / norm)
                if decays(name): g = g + decay * w
                m[name] = beta1 * m[name] + (1 - beta1) * g
                v[name] = beta2 * v[name] + (1 - beta2) * g * g
                w -= step * m[name] / (v[name].sqrt() + eps)
