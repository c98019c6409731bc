from .support import DECODER, Family


class TestQwen3(Family):
    CASES = {
        "qwen3": ("Qwen3Config", {**DECODER, "head_dim": 16}),
        "qwen3_biases": ("Qwen3Config", {**DECODER, "head_dim": 16, "attention_bias": True}),
    }
