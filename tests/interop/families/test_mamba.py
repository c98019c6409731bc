from .support import VOCABULARY, Family

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


class TestMamba(Family):
    CASES = {
        "mamba": ("MambaConfig", SMALL),
        "mamba_biases": ("MambaConfig", {**SMALL, "use_bias": True, "use_conv_bias": False, "time_step_rank": 3}),
        "falcon_mamba": ("FalconMambaConfig", SMALL),
    }
