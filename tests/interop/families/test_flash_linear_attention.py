"""The layout's function written down from its definition, token by token: the library itself needs a GPU."""

import pytest
import torch
from torch.nn.functional import conv1d, logsigmoid, pad, rms_norm, sigmoid, silu, softplus

from runnel import interop
from runnel.interop import folder as folders

from .support import Layout

COMMON = {"vocab_size": 97, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "norm_eps": 1e-4}
CASES = {
    "gla": {"num_heads": 2, "expand_k": 0.5},
    "delta_net": {"num_heads": 4, "allow_neg_eigval": True},
    "gated_deltanet": {"num_heads": 2, "num_v_heads": 4, "head_dim": 6, "expand_v": 1.5},
}
MIXER = {
    "gla": {"q_proj": (8, 16), "k_proj": (8, 16), "v_proj": (16, 16), "g_proj": (16, 16), "o_proj": (16, 16),
            "gk_proj.0": (16, 16), "gk_proj.1": (8, 16), "gk_proj.1.bias": (8,), "g_norm_swish_gate": (8,)},
    "delta_net": {"q_proj": (16, 16), "k_proj": (16, 16), "v_proj": (16, 16), "q_conv1d": (16, 1, 4),
                  "k_conv1d": (16, 1, 4), "v_conv1d": (16, 1, 4), "b_proj": (4, 16), "o_norm": (4,),
                  "o_proj": (16, 16)},
    "gated_deltanet": {"q_proj": (12, 16), "k_proj": (12, 16), "v_proj": (36, 16), "q_conv1d": (12, 1, 4),
                       "k_conv1d": (12, 1, 4), "v_conv1d": (36, 1, 4), "a_proj": (4, 16), "b_proj": (4, 16),
                       "A_log.": (4,), "dt_bias.": (4,), "g_proj": (36, 16), "o_norm": (9,), "o_proj": (16, 36)},
}  # fmt: skip


def tensors(kind):
    generator = torch.Generator().manual_seed(0)
    shapes = {"model.embeddings": (97, 16), "model.norm": (16,), "lm_head": (97, 16)}
    for i in range(2):
        own = f"model.layers.{i}"
        shapes |= {f"{own}.attn_norm": (16,), f"{own}.mlp_norm": (16,), f"{own}.mlp.gate_proj": (24, 16)}
        shapes |= {f"{own}.mlp.up_proj": (24, 16), f"{own}.mlp.down_proj": (16, 24)}
        shapes |= {f"{own}.attn.{name}": shape for name, shape in MIXER[kind].items()}
    named = {name.rstrip(".") if name[-1] == "." or name.endswith("bias") else f"{name}.weight": shape
             for name, shape in shapes.items()}  # fmt: skip
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) * s[-1] ** -0.5 for n, s in named.items()}


def mixed(kind, x, get):
    """One row x (T, D) through the recurrence of a kind."""
    heads, eps = CASES[kind]["num_heads"], COMMON["norm_eps"]
    q, k, v = [x @ get(f"{name}_proj.weight").T for name in "qkv"]
    if kind != "gla":
        q, k, v = [_conv(part, get(f"{name}_conv1d.weight")) for part, name in ((q, "q"), (k, "k"), (v, "v"))]
    q, k = [part.unflatten(-1, (heads, -1)) for part in (q, k)]
    values = CASES[kind].get("num_v_heads", heads)
    v, scale = v.unflatten(-1, (values, -1)), q.shape[-1] ** -0.5
    beta, decay = torch.ones(len(x), values, 1, 1, dtype=x.dtype), torch.ones(len(x), values, 1, 1, dtype=x.dtype)
    if kind == "gla":
        gate = x @ get("gk_proj.0.weight").T @ get("gk_proj.1.weight").T + get("gk_proj.1.bias")
        decay = (logsigmoid(gate) / 16).exp().unflatten(-1, (heads, -1))[..., None]
    else:
        q, k = [
            (p / (p.square().sum(-1, keepdim=True) + 1e-6).sqrt()).repeat_interleave(values // heads, 1) for p in (q, k)
        ]
        beta = sigmoid(x @ get("b_proj.weight").T)[..., None, None] * (2 if kind == "delta_net" else 1)
    if kind == "gated_deltanet":
        rate = softplus(x @ get("a_proj.weight").T + get("dt_bias"))
        decay = (-get("A_log").exp() * rate).exp()[..., None, None]
    state, outputs = 0, []
    for t in range(len(x)):
        key, state = k[t][..., None], state * decay[t]
        held = 0 if kind == "gla" else (key * state).sum(-2, keepdim=True)
        state = state + key * (beta[t] * (v[t][:, None] - held))
        outputs.append((q[t][..., None] * scale * state).sum(-2))
    y = torch.stack(outputs)
    y = rms_norm(y, y.shape[-1:], get("g_norm_swish_gate.weight" if kind == "gla" else "o_norm.weight"), eps).flatten(1)
    return (y if kind == "delta_net" else y * silu(x @ get("g_proj.weight").T)) @ get("o_proj.weight").T


def _conv(x, filters):
    return silu(conv1d(pad(x.T, (filters.shape[-1] - 1, 0))[None], filters, groups=len(filters))[0].T)


def logits(kind, stored, ids):
    eps, x = COMMON["norm_eps"], stored["model.embeddings.weight"][ids]
    for i in range(2):
        own = f"model.layers.{i}"
        read = rms_norm(x, (16,), stored[f"{own}.attn_norm.weight"], eps)
        x = x + mixed(kind, read, lambda name, own=own: stored[f"{own}.attn.{name}"])
        read = rms_norm(x, (16,), stored[f"{own}.mlp_norm.weight"], eps)
        gate, up, down = [stored[f"{own}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")]
        x = x + (silu(read @ gate.T) * (read @ up.T)) @ down.T
    return rms_norm(x, (16,), stored["model.norm.weight"], eps) @ stored["lm_head.weight"].T


class TestFlashLinearAttention(Layout):
    CASES = {kind: {"model_type": kind, **COMMON, **own} for kind, own in CASES.items()}
    tensors = staticmethod(lambda config: tensors(config["model_type"]))
    logits = staticmethod(lambda config, stored, ids: logits(config["model_type"], stored, ids))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("gla", "feature_map", "relu"), ("delta_net", "qk_norm", "sum"), ("gated_deltanet", "attn", {"layers": [1]})],
)
def test_what_has_no_part_here(kind, field, value, tmp_path):
    folders.write(tmp_path, {"model_type": kind, **COMMON, **CASES[kind], field: value}, tensors(kind).items())
    with pytest.raises(ValueError, match=f"{kind} with {field} = .* is not supported"):
        interop.load(tmp_path)
