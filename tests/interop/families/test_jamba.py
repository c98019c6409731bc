from .support import DECODER, Family

SMALL = {**DECODER, "num_hidden_layers": 4, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 8}


class TestJamba(Family):
    CASES = {
        "jamba": ("JambaConfig", {**SMALL, "num_experts": 1}),
        "jamba_experts": ("JambaConfig", {**SMALL, "num_experts": 4, "expert_layer_period": 2}),
    }
    FALLBACKS = ("jamba_experts",)
