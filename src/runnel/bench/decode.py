"""Decoding with drafters beside plain decoding of the same model, on kinds of prompt that repeat more and more.

Every repeat writes each prompt plainly and with every drafter, one after another, so that whatever else the machine
does falls on all alike; a speed-up is the median over repeats of seconds plain / seconds drafted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from runnel.codecs import Codec
from runnel.generation import Generation, generate
from runnel.model import Model

PROMPTS: Mapping[str, Sequence[str]] = {
    "free text": (
        "The harbour was quiet that morning. A few boats had come in with the tide, and the men who owned them stood",
        "Dear reader, this is the third letter that I write to you about the garden behind the old school, where",
        "In the first part we looked at how a river finds its way to the sea. In the second part we shall see that",
    ),
    "code completion": (
        '    def close(self):\n        """Close the file and release what it holds."""\n        if self._file is not',
        "def parse_line(line):\n    name, _, value = line.partition('=')\n    if not name:\n        raise ValueError(",
        "class Node:\n    def __init__(self, name, parent=None):\n        self.name = name\n        self.parent =",
    ),
    "copy-heavy editing": (
        "==========  ==========  ==========\n" * 3 + "==========  ===",
        "    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),\n" * 3 + "    (0, 0, 0",
        "    0x00, 0x00, 0x00, 0x00, 0x00,\n" * 4 + "    0x00, 0x0",
    ),
    "repeated code": (
        "    check(reader.next(), 'alpha')\n    check(reader.next(), 'beta')\n" * 6 + "    check(reader",
        "        self.width = width\n        self.height = height\n        self.depth = depth\n" * 5 + "        self.w",
        "    if kind == 'open':\n        return OPEN\n    if kind == 'close':\n        return CLOSE\n" * 5 + "    if k",
    ),
}
"""Kinds of prompt. The third goes on with tables and rulers of few characters, whose rows stand within some 128 bytes:
a model that was trained for a minute copies no more. The fourth asks for lines of code that stand there already.
"""


@dataclass(frozen=True)
class Line:
    """One drafter on one kind of prompt. speedup, tokens_per_second: medians over the repeats. tokens_per_call: tokens
    that one call of the target gives a row. draft_share: what of the time went into drafting.
    """

    kind: str
    drafter: str
    speedup: float
    tokens_per_second: float
    tokens_per_call: float
    draft_share: float
    same_text: bool


def measure(
    model: Model,
    codec: Codec,
    drafters: Mapping[str, Any],
    tokens: int,
    repeats: int,
    temperature: float,
    progress: Callable[[float, str], None] = lambda done, text: None,
) -> Iterator[Line]:
    """A line for plain decoding and for every drafter, on each kind of prompt in turn."""
    ways = {"plain": None, **drafters}
    steps = len(PROMPTS) * (repeats + 1) * len(ways)
    for kind_at, (kind, prompts) in enumerate(PROMPTS.items()):
        runs: dict[str, list[list[Generation]]] = {name: [] for name in ways}
        for repeat in range(repeats + 1):  # the first one warms up
            for at, (name, drafter) in enumerate(ways.items()):
                progress((kind_at * (repeats + 1) * len(ways) + repeat * len(ways) + at) / steps, f"{kind}: {name}")
                written = [
                    generate(model, [codec.encode(prompt)], tokens, drafter=drafter, temperature=temperature, seed=seed)
                    for seed, prompt in enumerate(prompts)
                ]
                if repeat:
                    runs[name].append(written)
        for name in ways:
            yield _line(kind, name, runs[name], runs["plain"])


def _line(kind: str, name: str, runs: Sequence[Sequence[Generation]], plain: Sequence[Sequence[Generation]]) -> Line:
    seconds, plain_seconds = [[sum(g.stats["seconds"] for g in written) for written in way] for way in (runs, plain)]
    first, total = runs[0], sum(seconds)
    count = sum(len(g.tokens[0]) for g in first)
    return Line(
        kind=kind,
        drafter=name,
        speedup=median(base / own for base, own in zip(plain_seconds, seconds, strict=True)),
        tokens_per_second=count / median(seconds),
        tokens_per_call=count / sum(g.stats["target_calls"] for g in first),
        draft_share=sum(g.stats["draft_seconds"] for written in runs for g in written) / total,
        same_text=[g.tokens for g in first] == [g.tokens for g in plain[0]],
    )
