from .support import DECODER, Family

SMALL = {**DECODER, "mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_state": 8, "mamba_n_groups": 2}
SCALES = {
    "lm_head_multiplier": 0.5, "embedding_multiplier": 3.0, "mlp_multipliers": [0.8, 0.6], "key_multiplier": 0.4,
    "attention_out_multiplier": 0.9, "attention_in_multiplier": 1.2, "ssm_multipliers": [0.4, 0.3, 0.9, 0.7, 0.5],
    "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.6,
}  # fmt: skip


class TestFalconH1(Family):
    CASES = {
        "falcon_h1": ("FalconH1Config", {**SMALL, **SCALES}),
        "falcon_h1_norm": (
            "FalconH1Config",
            {**SMALL, **SCALES, "mamba_rms_norm": True, "mlp_bias": True, "tie_word_embeddings": True},
        ),
        "falcon_h1_gated": (
            "FalconH1Config",
            {**SMALL, "mamba_rms_norm": True, "mamba_norm_before_gate": False, "rope_theta": 1e6},
        ),
    }
