from .support import DECODER, Family

SMALL = {
    **DECODER, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4, "n_mamba_heads": 8,
    "mamba_d_state": 8, "adapter_rank": 4, "chunk_size": 16, "use_mem_rope": True,
    "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"],
}  # fmt: skip


class TestZamba2(Family):
    CASES = {
        "zamba2": ("Zamba2Config", {**SMALL, "num_mem_blocks": 2, "use_shared_attention_adapter": True}),
        "zamba2_one_block": ("Zamba2Config", {
            **SMALL, "use_mem_rope": False, "add_bias_linear": True, "mamba_ngroups": 2, "num_key_value_heads": 2,
        }),
    }  # fmt: skip
