"""What decoders do against repetition, and against lists of texts that all say the same.

    python recipes/repetition.py                      three seeds; about a minute on one core
    python recipes/repetition.py --run runs/demo      the model of `make demo` too, on text that it was not trained on

A small model learns sentences of a toy grammar, and every decoder continues the same prompts. rep-4 is the share of
4-grams that repeat an earlier one of their text, distinct-2 the share of 2-grams of a list of texts that are distinct
(`runnel.ops.measures`). Beside them: the mean log-probability of a token under the model, and fresh text of the grammar
as the baseline. The table goes to docs/results/repetition.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

import runnel
from runnel.cli.demo import VALID_FRACTION as HELD_OUT
from runnel.codecs.bytes import Bytes
from runnel.data import open_source
from runnel.data.text import standard_library
from runnel.decoders import beam, contrastive, diverse_beam, momentum, sample
from runnel.model import Model
from runnel.ops.measures import distinct, isotropy, repetition

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "repetition.md"
SEEDS = (0, 1, 2)
KINDS, WORDS = 4, 8  # a sentence is a subject, a verb, an object and a place, each one of eight, and a full stop
VOCAB, STOP = KINDS * WORDS + 1, KINDS * WORDS
LENGTH, LIST = 100, 6

ONE_TEXT: dict[str, Any] = {
    "greedy": "greedy",
    "beam, width 4": beam.Config(width=4),
    "contrastive, alpha 0.6": contrastive.Config(candidates=5, alpha=0.6),
    "momentum, alpha 0.2": momentum.Config(),
    "sample, top-p 0.9": sample.Config(top_p=0.9),
}
LISTS: dict[str, Any] = {"beam": beam.Config(width=LIST)} | {
    f"diverse beam, {term}, diversity {diversity:g}": diverse_beam.Config(
        width=LIST, groups=3, diversity=diversity, term=term
    )
    for term in ("hamming", "cumulative", "ngram")
    for diversity in (0.5, 2.0)
}


class Measured(NamedTuple):
    value: float
    logprob: float


def sentences(rows: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Token ids (rows, 5 count). Which word of its kind comes next depends on the word before: some are likelier."""
    falling = 0.6 ** torch.arange(WORDS)
    steps = torch.multinomial(falling, rows * count * KINDS, replacement=True, generator=generator)
    words = (steps.reshape(rows, count * KINDS).cumsum(1) % WORDS).reshape(rows, count, KINDS)
    words = words + WORDS * torch.arange(KINDS)
    return torch.cat([words, torch.full((rows, count, 1), STOP)], dim=-1).flatten(1)


def trained(seed: int, steps: int = 150) -> Model:
    """A model of some thousand sentences: seconds."""
    generator = torch.Generator().manual_seed(seed)
    model = runnel.build("mingru, attention", vocab_size=VOCAB, d_model=32, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = sentences(16, 8, generator)
        loss = cross_entropy(model(batch[:, :-1])[0].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def prompts(seed: int) -> list[list[int]]:
    return sentences(8, 2, torch.Generator().manual_seed(1000 + seed)).tolist()


def held_out(seed: int) -> list[list[int]]:
    """Prompts of 64 bytes from the part of the standard library that the demo holds out, other ones for every seed."""
    source = open_source(standard_library(), Bytes(), 64, 8, valid_fraction=HELD_OUT)
    rows = torch.cat([batch.inputs for batch in source.valid() if batch.inputs.shape[1] == 64])
    return rows[torch.linspace(0, len(rows) - 1, 3 * 8).long()][seed::3].tolist()


def repeated(model: Model, decoder: Any, seed: int, given: Callable[[int], list[list[int]]] = prompts) -> Measured:
    """rep-4 of one long text for each prompt."""
    found = runnel.generate(model, given(seed), LENGTH, decoder=decoder, seed=seed)
    return Measured(
        _mean([repetition(text, 4) for text in found.tokens]), _mean([p for own in found.logprobs for p in own])
    )


def listed(model: Model, decoder: Any, seed: int) -> Measured:
    """distinct-2 of a list of texts of two sentences for each prompt."""
    found = runnel.generate(model, prompts(seed), 10, decoder=decoder, seed=seed, n=LIST)
    lists: dict[int, list[list[int]]] = {}
    for prompt, text in zip(found.prompts, found.tokens, strict=True):
        lists.setdefault(prompt, []).append(text)
    return Measured(
        _mean([distinct(own, 2) for own in lists.values()]), _mean([p for own in found.logprobs for p in own])
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(
    title: str, models: dict[int, Model], decoders: dict[str, Any], measure: Callable[..., Measured]
) -> list[str]:
    seeds = " | ".join(f"seed {seed}" for seed in models)
    lines = [f"| {title} | {seeds} | nats a token, mean |", "|---" * (len(models) + 2) + "|"]
    for name, decoder in decoders.items():
        found = [measure(model, decoder, seed) for seed, model in models.items()]
        values = " | ".join(f"{each.value:.3f}" for each in found)
        lines.append(f"| {name} | {values} | {_mean([each.logprob for each in found]):.2f} |")
    return lines


def baseline(seeds: Sequence[int], measure: Callable[[list[list[int]]], float], rows: int, count: int) -> str:
    fresh = [sentences(rows, count, torch.Generator().manual_seed(2000 + seed)).tolist() for seed in seeds]
    return "| *fresh text* | " + " | ".join(f"*{measure(texts):.3f}*" for texts in fresh) + " | |"


def of_run(folder: Path) -> list[str]:
    """The table of one model on held-out text; its columns are seeds of the prompts and of the noise."""
    model = runnel.load(folder).eval()
    return table("rep-4", dict.fromkeys(SEEDS, model), ONE_TEXT, partial(repeated, given=held_out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the folder of a byte model of the standard library")
    run = parser.parse_args().run
    torch.set_num_threads(1)
    models = {seed: trained(seed) for seed in SEEDS}
    hidden = [model.features(torch.tensor(prompts(seed)[:1]))[0][0].detach() for seed, model in models.items()]
    lines = [
        "# Repetition",
        "",
        "Made by `python recipes/repetition.py`, which says what is measured.",
        "",
        *table("rep-4", models, ONE_TEXT, repeated),
        baseline(SEEDS, lambda texts: _mean([repetition(text, 4) for text in texts]), 8, LENGTH // 5),
        "",
        *table(f"distinct-2 of {LIST} texts", models, LISTS, listed),
        baseline(SEEDS, lambda texts: distinct(texts, 2), LIST, 2),
        "",
        "Isotropy of the hidden vectors of a prompt: " + ", ".join(f"{isotropy(own):.2f}" for own in hidden) + ".",
    ]
    if run is not None:
        lines += ["", f"The model of `make demo`, {LENGTH} bytes after each of 8 prompts of text it never saw:", ""]
        lines += of_run(run)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
