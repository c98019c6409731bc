from .support import VOCABULARY, Family

SMALL = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}


class TestGPT2(Family):
    CASES = {
        "gpt2": ("GPT2Config", {**SMALL, **NO_TOKENS}),
        "gpt2_scaled": ("GPT2Config", {**SMALL, **NO_TOKENS, "n_inner": 40, "scale_attn_by_inverse_layer_idx": True}),
    }
    DOUBLE = True
