from .support import DECODER, Family


class TestMistral(Family):
    CASES = {
        "mistral": ("MistralConfig", {**DECODER, "sliding_window": 5}),
        "mistral_whole": ("MistralConfig", {**DECODER, "sliding_window": None}),
    }
