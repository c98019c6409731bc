from .support import DECODER, Family

SMALL = {
    **DECODER, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6, "linear_value_head_dim": 8,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, "num_experts_per_tok": 2,
}  # fmt: skip
DENSE = {**SMALL, "num_experts": 0, "num_hidden_layers": 2, "layer_types": SMALL["layer_types"][:2]}
"""Of three dense layers, float32 itself is 1e-4 off float64 with these random weights, in both libraries."""


class TestQwen3Next(Family):
    CASES = {
        "qwen3_next": ("Qwen3NextConfig", DENSE),
        "qwen3_next_experts": ("Qwen3NextConfig", {**SMALL, "num_experts": 4, "mlp_only_layers": [1]}),
    }
    FALLBACKS = ("qwen3_next_experts",)
