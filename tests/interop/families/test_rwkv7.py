"""The layout's function written down from its definition, token by token: the library itself needs a GPU."""

import pytest
import torch
from torch.nn.functional import group_norm, layer_norm, relu, sigmoid

from runnel import interop
from runnel.interop import folder as folders

from .support import Layout

WIDTH, HEADS, HIDDEN, LAYERS, EPS = 16, 2, 40, 3, 1e-4
RANKS = {"w": 3, "a": 4, "v": 2, "g": 5}
CONFIG = {
    "model_type": "rwkv7", "vocab_size": 97, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    "intermediate_size": HIDDEN, "head_dim": 8, "norm_eps": EPS, "decay_low_rank_dim": 3, "a_low_rank_dim": 4,
    "v_low_rank_dim": 2, "gate_low_rank_dim": 5,
}  # fmt: skip
OTHERS = {
    "rwkv7": {},
    "rwkv7_other": {"norm_first": False, "norm_bias": False, "fuse_norm": False, "tie_word_embeddings": True},
}


def tensors(theirs):
    shapes = {"model.embeddings.weight": (97, WIDTH), "lm_head.weight": (97, WIDTH)}
    norms = ["model.norm", *[f"model.layers.{i}.{x}_norm" for i in range(LAYERS) for x in ("attn", "ffn")]]
    norms += ["model.layers.0.pre_norm"] if theirs.get("norm_first", True) else []
    for norm in norms:
        shapes |= {f"{norm}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    for i in range(LAYERS):
        own = f"model.layers.{i}.attn"
        shapes |= {f"{own}.x_{s}": (1, 1, WIDTH) for s in "rwkvag"} | {f"{own}.{x}": (WIDTH,) for x in ("k_k", "k_a")}
        shapes |= {f"{own}.{x}_proj.weight": (WIDTH, WIDTH) for x in "rkvo"} | {f"{own}.r_k": (HEADS, 8)}
        shapes |= {f"{own}.g_norm.{kind}": (WIDTH,) for kind in ("weight", "bias")}
        for name, rank in RANKS.items():
            if i or name != "v":
                shapes |= {f"{own}.{name}_lora.lora.0.weight": (rank, WIDTH)}
                shapes |= {f"{own}.{name}_lora.lora.2.weight": (WIDTH, rank)}
                shapes |= {f"{own}.{name}_lora.lora.2.bias": (WIDTH,)} if name != "g" else {}
        own = f"model.layers.{i}.ffn"
        shapes |= {f"{own}.x_k": (WIDTH,), f"{own}.key.weight": (HIDDEN, WIDTH), f"{own}.value.weight": (WIDTH, HIDDEN)}
    if theirs.get("tie_word_embeddings"):
        del shapes["lm_head.weight"]
    if not theirs.get("norm_bias", True):
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("_norm.bias") or "g_norm" in name}
        del shapes["model.norm.bias"]
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) * s[-1] ** -0.5 for n, s in shapes.items()}


def low_rank(get, name, x, inner=lambda z: z):
    made = inner(x @ get(f"{name}_lora.lora.0.weight").T) @ get(f"{name}_lora.lora.2.weight").T
    return made if name == "g" else made + get(f"{name}_lora.lora.2.bias")


def mixed(get, x, first, fused):
    """One row x (T, D) through time mixing, and its values. first: those of the first layer, None in it."""
    before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    xr, xw, xk, xv, xa, xg = [x + (before - x) * get(f"x_{s}")[0, 0] for s in "rwkvag"]
    r, k, v = [z @ get(f"{s}_proj.weight").T for z, s in ((xr, "r"), (xk, "k"), (xv, "v"))]
    if first is not None:
        v = v + (first - v) * sigmoid(low_rank(get, "v", xv))
    decay = (-0.6065306597126334 * sigmoid(low_rank(get, "w", xw, torch.tanh))).exp()
    a, gate = sigmoid(low_rank(get, "a", xa)), low_rank(get, "g", xg, sigmoid)
    erase = (k * get("k_k")).unflatten(-1, (HEADS, 8))
    erase = erase / (erase.square().sum(-1, keepdim=True) + (1e-6 if fused else 0.0)).sqrt()
    k = k * (1 + (a - 1) * get("k_a"))
    r, k, values, decay, a = [z.unflatten(-1, (HEADS, 8)) for z in (r, k, v, decay, a)]
    state, outputs = torch.zeros(HEADS, 8, 8, dtype=x.dtype), []  # (H, V, K)
    for t in range(len(x)):
        held = (state * -erase[t][:, None]).sum(-1, keepdim=True)
        state = state * decay[t][:, None] + held * (erase[t] * a[t])[:, None] + values[t][..., None] * k[t][:, None]
        outputs.append((state * r[t][:, None]).sum(-1).flatten())
    y = group_norm(torch.stack(outputs), HEADS, get("g_norm.weight"), get("g_norm.bias"), eps=8 * EPS)
    y = y + ((r * k * get("r_k")).sum(-1, keepdim=True) * values).flatten(1)
    return (y * gate) @ get("o_proj.weight").T, v


def logits(theirs, stored, ids):
    def normed(x, name):
        return layer_norm(x, (WIDTH,), stored[f"model.{name}.weight"], stored.get(f"model.{name}.bias"), EPS)

    x, first = stored["model.embeddings.weight"][ids], None
    x = normed(x, "layers.0.pre_norm") if theirs.get("norm_first", True) else x
    for i in range(LAYERS):
        own = f"model.layers.{i}"
        read = normed(x, f"layers.{i}.attn_norm")
        y, v = mixed(lambda name, own=own: stored[f"{own}.attn.{name}"], read, first, theirs.get("fuse_norm", True))
        first, x = v if first is None else first, x + y
        read = normed(x, f"layers.{i}.ffn_norm")
        before = torch.cat([torch.zeros_like(read[:1]), read[:-1]])
        k = (read + (before - read) * stored[f"{own}.ffn.x_k"]) @ stored[f"{own}.ffn.key.weight"].T
        x = x + relu(k).square() @ stored[f"{own}.ffn.value.weight"].T
    return normed(x, "norm") @ stored.get("lm_head.weight", stored["model.embeddings.weight"]).T


class TestRwkv7(Layout):
    CASES = {case: CONFIG | own for case, own in OTHERS.items()}
    tensors = staticmethod(tensors)
    logits = staticmethod(logits)


@pytest.mark.parametrize(("field", "value"), [("attn", {"layers": [1]}), ("value_dim", 32)])
def test_what_has_no_part_here(field, value, tmp_path):
    folders.write(tmp_path, CONFIG | {field: value}, tensors(CONFIG).items())
    with pytest.raises(ValueError, match=f"rwkv7 with {field} = .* is not supported"):
        interop.load(tmp_path)
