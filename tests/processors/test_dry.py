import math

import pytest
import torch

import runnel
from runnel.processors import Text, dry

from .support import assert_is, assert_lossless, logits_of, sharp, unchanged

CONFIGS = [
    dry.Config(),
    dry.Config(multiplier=2.0, base=1.0, allowed_length=1),
    dry.Config(allowed_length=3, breakers=(1,)),
    dry.Config(allowed_length=1, breakers=(0, 2), last=7),
]


def repetitive_texts(count):
    rng = torch.Generator().manual_seed(1)
    texts = []
    for row in range(count):
        phrase = torch.randint(0, 3, (1 + row % 6,), generator=rng).tolist()
        noise = torch.randint(0, 3, (row % 4,), generator=rng).tolist()
        texts.append(Text([*phrase, *noise], [*phrase, *phrase][: row % 11]))
    return [*texts, Text([1], []), Text([2] * 70, [2] * 5)]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_is_the_definition(config):
    texts = repetitive_texts(80)
    logits = logits_of(len(texts), outcomes=4)
    found = dry.Dry(config).process(logits, texts)
    assert (found != logits).any()
    rows = zip(logits.tolist(), texts, strict=True)
    expected = [dry.reference(row, [*text.prompt, *text.written], config) for row, text in rows]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_penalty_by_hand():
    """1 2 3 | 1 2 3 | 1 2: the suffix 1 2 3 1 2 was followed by 3; a shorter one, 2, also by 4."""
    text = Text([2, 4, 1, 2, 3, 1, 2, 3, 1, 2])
    found = dry.Dry(dry.Config(multiplier=1.0, base=2.0, allowed_length=1)).process(logits_of(1) * 0, [text])
    assert_is(found, [[0, 0, 0, -(2.0 ** (5 - 1)), -(2.0**0), 0, 0, 0]])


def test_a_multiplier_of_zero_changes_nothing():
    assert unchanged(dry.Dry(dry.Config(multiplier=0.0)))


def test_it_is_lossless_and_breaks_loops():
    tokens = assert_lossless([dry.Config(multiplier=5.0, allowed_length=1)], temperature=0.3, max_new_tokens=40)
    loop = runnel.generate(sharp(), [[1]], 40, temperature=0).tokens[0]
    broken = runnel.generate(sharp(), [[1]], 40, temperature=0, processors=[dry.Config(50.0)]).tokens[0]

    def repeated(text):
        found = list(zip(*[text[i:] for i in range(4)], strict=False))
        return 1 - len(set(found)) / len(found)

    assert repeated(broken) < repeated(loop)
    assert len(tokens[0]) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiplier": -1.0}, "multiplier of dry must be a finite number >= 0; got -1.0"),
        ({"base": 0.5}, "base of dry must be a finite number >= 1; got 0.5"),
        ({"base": math.nan}, "base of dry must be"),
        ({"allowed_length": 0}, "allowed_length of dry must be at least 1; got 0"),
        ({"last": 0}, "last of dry must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dry.Config(**options)
    with pytest.raises(ValueError, match=r"breakers of dry must be tokens in \[0, 5\); got 9"):
        runnel.generate(sharp(), [[1]], processors=[dry.Config(breakers=(9,))])
