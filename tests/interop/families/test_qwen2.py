from .support import DECODER, Family


class TestQwen2(Family):
    CASES = {
        "qwen2": ("Qwen2Config", {**DECODER, "tie_word_embeddings": True}),
        "qwen2_window": (
            "Qwen2Config",
            {**DECODER, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        ),
    }
