from runnel.bench import decode
from runnel.codecs.bytes import Bytes
from runnel.measured import verify_curve
from tests.decoding.support import sharp


def test_every_drafter_has_a_line_for_every_kind_of_prompt():
    model = sharp("mingru, attention", vocab_size=256)
    lines = list(decode.measure(model, Bytes(), {"suffix": "suffix", "auto": "auto"}, 8, 2, 0.0))
    assert [(line.kind, line.drafter) for line in lines] == [
        (kind, drafter) for kind in decode.PROMPTS for drafter in ("plain", "suffix", "auto")
    ]
    for line in lines:
        assert line.same_text
        assert line.tokens_per_call >= 1
        if line.drafter == "plain":
            assert (line.speedup, line.tokens_per_call) == (1.0, 1.0)
            assert line.draft_share == 0


def test_the_verify_curve_has_every_size():
    curve = verify_curve(sharp("mingru, attention"), sizes=(1, 3), context=8, repeats=3)
    assert set(curve) == {1, 3}
    assert all(cost > 0 for cost in curve.values())
