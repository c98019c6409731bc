from .support import VOCABULARY, Family

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "context_length": 256,
    "bos_token_id": None, "eos_token_id": None, "rescale_every": 0,
}  # fmt: skip


class TestRwkv(Family):
    CASES = {
        "rwkv": ("RwkvConfig", SMALL),
        "rwkv_narrow": ("RwkvConfig", {**SMALL, "intermediate_size": 48, "tie_word_embeddings": True}),
    }
