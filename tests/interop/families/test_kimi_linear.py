import json

import torch

from runnel import interop
from runnel.interop import folder as folders

from .support import BOUND, DECODER, Family, error, logits_of, tokens

SMALL = {
    **DECODER, "num_key_value_heads": 4, "moe_intermediate_size": 16, "num_local_experts": 8, "num_experts_per_tok": 3,
    "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 10, "linear_head_dim": 8,
    "linear_num_heads": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip


class TestKimiLinear(Family):
    CASES = {
        "kimi_linear": ("KimiLinearConfig", {**SMALL, "n_group": 2, "topk_group": 1}),
        "kimi_linear_dense": (
            "KimiLinearConfig",
            {**SMALL, "q_lora_rank": 9, "mlp_layer_types": ["dense"] * 3, "rms_norm_eps": 1e-3},
        ),
        "kimi_linear_experts": ("KimiLinearConfig", {**SMALL, "norm_topk_prob": False, "n_shared_experts": 2}),
    }
    FALLBACKS = ("kimi_linear", "kimi_linear_experts")


def test_the_published_layout(tmp_path):
    """Layers counted from 1 in linear_attn_config; perceptrons without experts are named otherwise."""
    made = TestKimiLinear.pair("kimi_linear")
    config = json.loads((made.folder / "config.json").read_text())
    for field in ("layer_types", "mlp_layer_types", "linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"):
        del config[field]
    config |= {"first_k_dense_replace": 1, "linear_attn_config": {
        "full_attn_layers": [2], "kda_layers": [1, 3], "head_dim": 8, "num_heads": 3, "short_conv_kernel_size": 4,
    }}  # fmt: skip
    stored = {name: tensor.read() for name, tensor in folders.open_tensors(made.folder).items()}
    first = "model.layers.0.block_sparse_moe"
    folders.write(tmp_path, config, ((name.replace(first, "model.layers.0.mlp"), t) for name, t in stored.items()))
    (ids,) = tokens(20)
    with torch.no_grad():
        assert error(interop.load(tmp_path)(ids)[0], logits_of(made.theirs, ids)) < BOUND
