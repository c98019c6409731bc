from .support import DECODER, Family

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}


class TestLlama(Family):
    CASES = {
        "llama": ("LlamaConfig", DECODER),
        "llama3": (
            "LlamaConfig",
            {
                **DECODER,
                "attention_bias": True,
                "mlp_bias": True,
                "tie_word_embeddings": True,
                "rope_parameters": LLAMA3,
            },
        ),
        "llama_yarn": ("LlamaConfig", {**DECODER, "head_dim": 12, "rope_parameters": YARN}),
        "llama_linear": (
            "LlamaConfig",
            {**DECODER, "rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
        ),
        "llama_dynamic": (
            "LlamaConfig",
            {**DECODER, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 4.0}},
        ),
    }
    FALLBACKS = ("llama_dynamic",)  # rates that depend on the position
