from .support import DECODER, Family

SMALL = {**DECODER, "attention_window_size": 9, "num_key_value_heads": 1, "logits_soft_cap": 3.0}


class TestRecurrentGemma(Family):
    CASES = {
        "recurrent_gemma": ("RecurrentGemmaConfig", SMALL),
        "recurrent_gemma_wide": ("RecurrentGemmaConfig", {**SMALL, "lru_width": 48, "attention_bias": True}),
    }
