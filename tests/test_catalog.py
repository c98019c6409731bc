"""What the catalogue says is what the folders hold, and every method names a test that exists."""

from pathlib import Path

import pytest

import runnel
from runnel import catalog
from runnel.mixer import FORMS

ROOT = Path(__file__).resolve().parents[1]


def test_every_method_has_its_page_and_its_test():
    for method in runnel.methods():
        assert (ROOT / method["test"]).is_file(), f"{method['name']} has no {method['test']}"
        assert method["summary"].endswith((".", ":")) or method["summary"], method["name"]
        assert len(method["titles"]) == len(method["arxiv"])


def test_nine_mixers_with_all_forms():
    mixers = {m["name"]: m for m in runnel.methods() if m["kind"] == "mixer"}
    nine = ["attention", "gated_deltanet", "gla", "linear_attention", "mamba", "mamba2", "mingru", "rwkv7", "slstm"]
    assert set(nine) <= set(mixers)
    assert all(mixers[name]["forms"] == list(FORMS) and mixers[name]["titles"] for name in nine)


def test_decoders_and_acceptance_rules_say_whether_they_are_lossless():
    saying = [m for m in runnel.methods() if m["kind"] in ("decoder", "acceptance")]
    assert {m["kind"] for m in saying} == {"decoder", "acceptance"}
    assert all(isinstance(m["lossless"], bool) for m in saying)


@pytest.mark.parametrize("folder", sorted(set(catalog.KINDS) - {"data", "codecs"}))
def test_method_pages_fit_a_screen_or_two(folder):
    for name in catalog.names(folder):
        lines = (ROOT / "src" / "runnel" / folder / f"{name}.py").read_text().count("\n")
        assert lines <= 150, f"{folder}/{name}.py has {lines} lines"
