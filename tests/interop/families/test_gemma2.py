from .support import DECODER, Family

SCORES = {"query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}


class TestGemma2(Family):
    CASES = {"gemma2": ("Gemma2Config", {**DECODER, **SCORES, "head_dim": 16, "sliding_window": 5})}
