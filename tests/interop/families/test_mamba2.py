from .support import VOCABULARY, Family

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8, "num_heads": 8,
    "head_dim": 8, "chunk_size": 16, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


class TestMamba2(Family):
    CASES = {
        "mamba2": ("Mamba2Config", {**SMALL, "n_groups": 1}),
        "mamba2_groups": ("Mamba2Config", {**SMALL, "n_groups": 2, "use_bias": True, "tie_word_embeddings": True}),
    }
