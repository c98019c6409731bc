from .support import DECODER, Family

SMALL = {**DECODER, "layer_types": ["conv", "full_attention", "conv"]}


class TestLfm2(Family):
    CASES = {
        "lfm2": ("Lfm2Config", {**SMALL, "block_auto_adjust_ff_dim": False}),
        "lfm2_adjusted": ("Lfm2Config", {**SMALL, "block_multiple_of": 20, "conv_bias": True, "conv_L_cache": 4}),
    }
