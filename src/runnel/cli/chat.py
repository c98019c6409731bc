"""`runnel chat`: a conversation in the terminal, with a model that is here or with a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from runnel.cli import _screen, _talk, _training


def command(
    place: Annotated[str, typer.Argument(metavar="RUN|URL", help="The folder of a trained model, or a server.")],
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    weights: Annotated[
        str | None, typer.Option(help="Of a model here: by the native engine, as f32, bf16, int8 or int4.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the conversation as JSON at its end.")] = False,
) -> None:
    """Talk with a trained model: a line is a message, the end of input (Ctrl-D) the end.

    \b
    Example (after `runnel demo`):
        echo "Hello" | runnel chat runs/demo --max-tokens 40
    \b
    The other end may be a server (`runnel serve`): give its address instead of a
    folder, and its key in RUNNEL_API_KEY. Only the new message is sent and read: the
    conversation is a state, which stays as small as it was.
    """
    _training.set_threads(threads)
    if max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1; got {max_tokens}")
    options = {"temperature": temperature, "seed": seed, "max_new_tokens": max_tokens}
    other, out, said = _talk.partner(place, weights, options), _screen.TextOut(), list[dict[str, str]]()
    for message in _messages(out):
        answer = other.answer(message, (lambda text: None) if json else out.write)
        said += [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]
        if not json:
            out.write("\n")
    if json:
        _screen.print_json(said)


def _messages(out: _screen.TextOut) -> Iterator[str]:
    """The lines of standard input that say something."""
    out.decorate("> ", "bold")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
        out.decorate("> ", "bold")
