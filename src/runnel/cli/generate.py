"""`runnel generate`: text from a trained model, streamed; from a prompt or from a saved state."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _continuation, _screen, _training

if TYPE_CHECKING:
    from runnel.codecs import Codec
    from runnel.generation import Generation
    from runnel.model import Model

LONG_PROMPT = 5000
"""Tokens from which reading the prompt is announced."""
DRAFTED = "green"


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue. Without one: a fresh line.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="A file with the text to continue, or - for stdin.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from this saved state (of RUN when not here); a prompt is read after it.")
    ] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the state at the end here.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 256,
    decoder: Annotated[str, typer.Option(help="See: runnel methods --kind decoder.")] = "sample",
    drafter: Annotated[
        str | None, typer.Option(help="See: runnel methods --kind drafter; or the folder of a trained one.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. (default 0.8)")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens, up to this mass.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens this likely beside the likeliest.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
    n: Annotated[int, typer.Option("--n", help="How many texts, with seeds from --seed on.")] = 1,
    stats: Annotated[bool, typer.Option("--stats", help="Print speed and calls of the model to stderr.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print texts, tokens and numbers as JSON.")] = False,
) -> None:
    """Continue a text with a trained model.

    \b
    Example (after `runnel demo`):
        runnel generate runs/demo --prompt "def main(" --max-tokens 80
        runnel generate runs/demo --state runs/demo/prompt.state --drafter suffix --stats
    \b
    Only the continuation goes to standard output. With a drafter, what was drafted
    and accepted is green on a terminal; the text is the same without it.
    """
    from runnel import codecs

    _training.set_threads(threads)
    model, codec = load_run(run), codecs.load(run)
    text = _prompt(prompt, prompt_file)
    start, before = (None, []) if state is None else _continuation.load(_found(state, run), model)
    if state is not None and not before and text is None:
        raise ValueError(f"{state} does not say what comes after it: give a --prompt")
    tokens = before + codec.encode(text or ("" if before else "\n"))
    if n < 1 or (n > 1 and save_state is not None):
        raise ValueError(f"--n must be at least 1, and 1 with --save-state; got {n}")
    options = {
        "decoder": decoder,
        "drafter": _drafter(drafter, model),
        "temperature": _temperature(decoder) if temperature is None else temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "max_new_tokens": max_tokens,
        "state": start if start is None or n == 1 else start.fork([0] * n),
    }
    if n == 1 and not json:
        written = stream(model, codec, tokens, _screen.TextOut(), **options)
    else:
        written = with_bar(model, [tokens] * n, **options)
        _print_all(written, codec, json)
    if save_state is not None:
        _continuation.save(save_state, written.state, [*tokens, *written.tokens[0]][-1])
        _screen.note(f"state saved in {save_state} ({_screen.size(written.state.nbytes)})")
    if stats:
        _screen.note(stats_line(written))


def load_run(folder: Path) -> Model:
    """The model of a folder. FileNotFoundError or ValueError, saying what to do, when there is none."""
    import runnel

    if not (folder / "config.json").is_file():
        if (folder / "checkpoints").is_dir():
            raise ValueError(
                f"{folder} holds a run that has not ended: give its `runnel train` command again to end it"
            )
        raise FileNotFoundError(f"{folder} must be the folder of a trained model; it has no config.json")
    return runnel.load(folder).eval()


def stream(model: Model, codec: Codec, tokens: list[int], out: _screen.TextOut, **options: Any) -> Generation:
    """Generate one text, printing it as it is written."""
    from runnel import generation

    characters = codec.stream()
    out.decorate(codec.decode(tokens), "dim")
    with ExitStack() as reading:
        if len(tokens) > LONG_PROMPT:
            reading.enter_context(_screen.working(f"reading {len(tokens):,} tokens"))

        def show(row: int, new: list[int]) -> None:
            reading.close()
            out.write("".join(characters.push(token) for token in new[:-1]), DRAFTED)
            out.write(characters.push(new[-1]))

        written = generation.generate(model, [tokens], on_tokens=show, **options)
    out.write(characters.finish() + "\n")
    return written


def with_bar(model: Model, prompts: list[list[int]], **options: Any) -> Generation:
    """Generate texts that are shown when they are done."""
    from runnel import generation

    wanted, done = max(1, options["max_new_tokens"] * len(prompts)), 0
    with _screen.bar("writing") as bar:

        def show(row: int, new: list[int]) -> None:
            nonlocal done
            done += len(new)
            bar.update(done / wanted, f"{done} of {wanted} tokens")

        return generation.generate(model, prompts, on_tokens=show, **options)


def stats_line(written: Generation) -> str:
    """One line on what it took."""
    stats, count = written.stats, sum(map(len, written.tokens))
    line = (
        f"{count} tokens in {stats['seconds']:.2f} s ({count / stats['seconds']:,.0f}/s), {stats['target_calls']} calls"
    )
    if stats["drafted"]:
        line += f", {stats['accepted']} of {stats['drafted']} drafted tokens accepted"
    return f"{line}, state {_screen.size(written.state.nbytes)}"


def _print_all(written: Generation, codec: Codec, json: bool) -> None:
    texts = [codec.decode(tokens) for tokens in written.tokens]
    if not json:
        out = _screen.TextOut()
        for number, text in enumerate(texts, start=1):
            out.write(f"--- {number} ---\n{text}\n")
        return
    rows = zip(texts, written.tokens, written.logprobs, strict=True)
    samples = [{"text": text, "tokens": tokens, "logprobs": logprobs} for text, tokens, logprobs in rows]
    _screen.print_json({"samples": samples, "stats": {**written.stats, "state_bytes": written.state.nbytes}})


def _found(state: Path, run: Path) -> Path:
    """A state file as it is named, or else of that name in the run's folder."""
    return run / state if not state.exists() and (run / state).exists() else state


def _prompt(text: str | None, file: str | None) -> str | None:
    if text is not None and file is not None:
        raise ValueError("give one of --prompt and --prompt-file; got both")
    if file is not None:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = raw.decode("utf-8", errors="surrogateescape")
    if text == "":
        raise ValueError("the prompt must have at least one character; got none")
    return text


def _drafter(name: str | None, target: Model) -> Any:
    """A drafter's name as it is; the folder of a trained one, or of a smaller model, as a drafter."""
    from runnel import catalog, trained
    from runnel.drafters import draft_model

    if name is not None and (Path(name) / "config.json").is_file():
        return trained.load(name, target) if trained.is_drafter(name) else draft_model.Config(load_run(Path(name)))
    if name == "draft_model":
        raise ValueError("the drafter draft_model is given by the folder of its model: --drafter runs/SMALLER")
    if name in catalog.names("drafters") and getattr(catalog.page("drafters", name), "TRAINED", False):
        raise ValueError(f"the drafter {name} is given by the folder that `runnel train --drafter {name}` made")
    return name


def _temperature(decoder: str) -> float:
    """The default: 0.8 where there is a temperature, else 1, which means none was given."""
    import dataclasses

    from runnel import catalog

    fields = {field.name for field in dataclasses.fields(catalog.page("decoders", decoder).Config)}
    return 0.8 if "temperature" in fields else 1.0
