"""`runnel score`: how likely a model finds a given text, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runnel.cli import _given, _screen, _training
from runnel.cli.generate import load_run

if TYPE_CHECKING:
    from runnel.codecs import Codec


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    text: Annotated[str | None, typer.Option(help="The text.")] = None,
    file: Annotated[str | None, typer.Option(help="A file with the text, or - for stdin.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="One line a token: its log-probability, and the likeliest.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print tokens and log-probabilities as JSON.")] = False,
) -> None:
    """How likely a trained model finds a text: nats per token, bits per byte.

    \b
    Example (after `runnel demo`):
        runnel score runs/demo --text "def main():" --tokens
    \b
    Nothing comes before the first token, so that it has no probability and is not counted;
    where a tokenizer begins texts with one of its own, that is the one.
    """
    from runnel import codecs, generation

    _training.set_threads(threads)
    model, codec = load_run(run), codecs.load(run)
    if (text is None) == (file is None):
        raise ValueError("give one of --text and --file")
    given = codec.begin(_given.text(text, file) or "")
    if len(given) < 2:
        raise ValueError(f"the text must have at least two tokens; got {len(given)}")
    with _screen.working(f"reading {len(given):,} tokens"):
        scores = generation.score(model, [given], top_logprobs=3 if tokens or json else 0)
    logprobs = scores.logprobs[0]
    n_bytes = sum(len(codec.token_bytes[token]) for token in given[1:])
    bits_per_byte = -sum(logprobs) / math.log(2) / n_bytes
    if json:
        facts = {"tokens": given, "logprobs": [None, *logprobs], "top_logprobs": [None, *scores.top_logprobs[0]]}
        _screen.print_json({**facts, "logprob": sum(logprobs), "bits_per_byte": bits_per_byte})
        return
    if tokens:
        print("\n".join(_screen.columns(_table(codec, given[1:], logprobs, scores.top_logprobs[0]))))
    nats = sum(logprobs)
    print(f"{len(logprobs)} tokens: {nats:.2f} nats, {-nats / len(logprobs):.3f} nats per token, ", end="")
    print(f"{bits_per_byte:.3f} bits per byte")


def _table(
    codec: Codec, tokens: Sequence[int], logprobs: Sequence[float], tops: Sequence[dict[int, float]]
) -> list[list[str]]:
    """A line per token: the token, its log-probability, and the likeliest ones with theirs."""
    rows = []
    for token, logprob, top in zip(tokens, logprobs, tops, strict=True):
        likeliest = [f"{codec.decode([other])!r} {nats:.2f}" for other, nats in top.items()]
        rows.append([repr(codec.decode([token])), f"{logprob:.3f}", *likeliest])
    return rows
