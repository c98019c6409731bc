import pytest

from runnel.interop.families import minimax

from .support import DECODER, Family

SMALL = {**DECODER, "num_local_experts": 4, "block_size": 8, "head_dim": 6}
ALPHA = {f"{part}_alpha_factor": 1.7 for part in minimax.FACTORS}


class TestMiniMax(Family):
    CASES = {"minimax": ("MiniMaxConfig", SMALL), "minimax_alpha": ("MiniMaxConfig", {**SMALL, **ALPHA})}
    FALLBACKS = ("minimax", "minimax_alpha")


def test_several_factors():
    theirs = {**minimax.DEFAULTS, "mlp_alpha_factor": 2}
    with pytest.raises(ValueError, match=r"several alpha factors is not supported; got \[1.0, 2.0\]"):
        minimax._factor(theirs, "alpha")
