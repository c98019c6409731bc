from .support import DECODER, Family

SMALL = {
    **DECODER, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8, "mamba_d_state": 8,
    "shared_intermediate_size": 24, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
}  # fmt: skip


class TestGraniteMoeHybrid(Family):
    CASES = {
        "granite": ("GraniteMoeHybridConfig", {**SMALL, "num_local_experts": 0, "position_embedding_type": "rope"}),
        "granite_experts": ("GraniteMoeHybridConfig", {**SMALL, "num_local_experts": 4, "tie_word_embeddings": True}),
    }
    FALLBACKS = ("granite_experts",)
