from .support import DECODER, Family

SMALL = {**DECODER, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_state": 8}


class TestBamba(Family):
    CASES = {
        "bamba": ("BambaConfig", SMALL),
        "bamba_groups": ("BambaConfig", {**SMALL, "mamba_n_groups": 2, "mamba_proj_bias": True, "mlp_bias": True}),
    }
