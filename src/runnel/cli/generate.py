"""`runnel generate`: text from a trained model, streamed; from a prompt or from a saved state."""

from __future__ import annotations

import dataclasses
from codecs import getincrementaldecoder
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _continuation, _given, _screen, _training

if TYPE_CHECKING:
    from runnel.codecs import Codec
    from runnel.generation import Generation
    from runnel.model import Model

LONG_PROMPT = 5000
"""Tokens from which reading the prompt is announced."""
DRAFTED = "green"
TEMPERATURE = 0.8
"""Of decoders that have one, unless another is given."""


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue. Without one: a fresh line.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="A file with the text to continue, or - for stdin.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from this saved state (of RUN when not here); a prompt is read after it.")
    ] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the state at the end here.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 256,
    decoder: Annotated[
        str, typer.Option(help="With options if need be: 'beam(width=8)'. See: runnel methods --kind decoder.")
    ] = "sample",
    drafter: Annotated[
        str | None,
        typer.Option(help="'auto', 'suffix(max_draft=8)', ...; or the folder of a trained one or of a smaller model."),
    ] = None,
    tree: Annotated[
        str | None,
        typer.Option(
            help="What a drafter with a folder grows: 'best_first(nodes=8)', or what `runnel calibrate` made."
        ),
    ] = None,
    acceptance: Annotated[str, typer.Option(help="Which drafts become text: 'match', 'typical(epsilon=0.1)', ...")] = (
        "match"
    ),
    length: Annotated[str | None, typer.Option(help="How much is drafted: 'fixed(max_draft=4)', 'goodput'.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. (default 0.8)")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens, up to this mass.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Only tokens this likely beside the likeliest.")] = None,
    processor: Annotated[
        list[str] | None,
        typer.Option(help="'typical(mass=0.9)', 'repetition_penalty(factor=1.2)', ...; may be given again."),
    ] = None,
    guidance: Annotated[str | None, typer.Option(help="'cfg(scale=1.5)', ...; see: runnel methods.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the text; may be given again.")] = None,
    eos: Annotated[list[int] | None, typer.Option(help="A token that ends the text; may be given again.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
    n: Annotated[int, typer.Option("--n", help="How many texts: samples, or the best of a search.")] = 1,
    top_logprobs: Annotated[int, typer.Option(help="With --json: the likeliest tokens at every place.")] = 0,
    weights: Annotated[
        str | None, typer.Option(help="Decode by the native engine, with weights as f32, bf16, int8 or int4.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print speed and calls of the model to stderr.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print texts, tokens and numbers as JSON.")] = False,
) -> None:
    """Continue a text with a trained model.

    \b
    Example (after `runnel demo`):
        runnel generate runs/demo --prompt "def main(" --max-tokens 80
        runnel generate runs/demo --state runs/demo/prompt.state --drafter auto --stats
        runnel generate runs/demo --prompt "import " --decoder "beam(width=8)" --n 3 --max-tokens 20
    \b
    Only the continuation goes to standard output. With a drafter, what was drafted
    and accepted is green on a terminal; with --acceptance match, which is the default, the
    text is the same without it.
    """
    from runnel import codecs

    _training.set_threads(threads)
    model, codec = load_run(run), codecs.load(run)
    text = _prompt(prompt, prompt_file)
    start, before = (None, []) if state is None else _continuation.load(_found(state, run), model)
    if state is not None and not before and text is None:
        raise ValueError(f"{state} does not say what comes after it: give a --prompt")
    tokens = _fresh(codec, text) if start is None else before + codec.encode(text or "")
    if n < 1 or (n > 1 and save_state is not None):
        raise ValueError(f"--n must be at least 1, and 1 with --save-state; got {n}")
    processors = [_part(text, "processors", codec) for text in processor or []]
    options = {
        "decoder": _decoder(decoder, temperature, top_k, top_p, min_p, processors),
        "drafter": drafter_of(drafter, model, None if tree is None else _tree(tree)),
        "acceptance": _part(acceptance, "acceptance"),
        "length": None if length is None else _part(length, "policies"),
        "guidance": None if guidance is None else _part(guidance, "guidance"),
        "seed": seed,
        "n": n,
        "max_new_tokens": max_tokens,
        "eos": eos or codec.ends,
        "stop": stop or [],
        "top_logprobs": top_logprobs,
        "state": start,
    }
    engine = packed(model, weights)
    if n == 1 and not json:
        written = stream(engine, codec, tokens, _screen.TextOut(), **options)
    else:
        written = with_bar(engine, codec, tokens, **options)
        _print_all(written, json)
    if save_state is not None:
        _continuation.save(save_state, written.state, [*tokens, *written.tokens[0]][-1])
        _screen.note(f"state saved in {save_state} ({_screen.size(written.state.nbytes)})")
    if stats:
        _screen.note(stats_line(written))


def _fresh(codec: Codec, text: str | None) -> list[int]:
    """What is read where nothing stands before: a text, or what begins one."""
    return codec.begin(text or ("" if codec.opening else "\n"))


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


def packed(model: Model, weights: str | None) -> Any:
    """The model by the native engine, or as it is when no weights are named."""
    import runnel

    if weights is None:
        return model
    with _screen.working("packing"):
        return runnel.pack(model, weights)


def stream(model: Any, codec: Codec, tokens: list[int], out: _screen.TextOut, **options: Any) -> Generation:
    """Generate one text, printing it as it is written."""
    from runnel import generation
    from runnel.stopping import StopText

    shown = StopText(codec, options.get("stop", ()), frozenset(options.get("eos") or ()))
    characters = getincrementaldecoder("utf-8")("replace")
    out.decorate(codec.decode(tokens), "dim")
    with ExitStack() as reading:
        if len(tokens) > LONG_PROMPT:
            reading.enter_context(_screen.working(f"reading {len(tokens):,} tokens"))

        def show(row: int, new: list[int]) -> None:
            reading.close()
            words = [characters.decode(shown.push(token)) for token in new]
            out.write("".join(words[:-1]), DRAFTED)
            out.write(words[-1])

        written = generation.generate(model, [tokens], on_tokens=show, codec=codec, **options)
    out.write(characters.decode(b"" if shown.found else shown.finish(), final=True) + "\n")
    return written


def with_bar(model: Any, codec: Codec, tokens: list[int], **options: Any) -> Generation:
    """Generate texts that are shown when they are done."""
    from runnel import generation

    wanted, done = max(1, options["max_new_tokens"] * options["n"]), 0
    with _screen.bar("writing") as bar:

        def show(row: int, new: list[int]) -> None:
            nonlocal done
            done += len(new)
            bar.update(done / wanted, f"{done} of {wanted} tokens")

        return generation.generate(model, [tokens], on_tokens=show, codec=codec, **options)


def stats_line(written: Generation) -> str:
    """One line on what it took."""
    stats, count = written.stats, sum(map(len, written.tokens))
    line = (
        f"{count} tokens in {stats['seconds']:.2f} s ({count / stats['seconds']:,.0f}/s), {stats['target_calls']} calls"
    )
    if stats["drafted"]:
        line += f", {stats['accepted']} of {stats['drafted']} drafted tokens accepted"
    return f"{line}, state {_screen.size(written.state.nbytes)}"


def _print_all(written: Generation, json: bool) -> None:
    if not json:
        out = _screen.TextOut()
        for number, text in enumerate(written.texts, start=1):
            score = f" (score {written.scores[number - 1]:.2f})" if written.scores else ""
            out.write(f"--- {number}{score} ---\n{text}\n")
        return
    fields: dict[str, Sequence[Any]] = {
        "text": written.texts,
        "tokens": written.tokens,
        "logprobs": written.logprobs,
        "ended": written.ended,
        "top_logprobs": written.top_logprobs if any(written.top_logprobs) else [],
        "score": written.scores,
    }
    samples = [{name: own[row] for name, own in fields.items() if own} for row in range(len(written.tokens))]
    _screen.print_json({"samples": samples, "stats": {**written.stats, "state_bytes": written.state.nbytes}})


def _found(state: Path, run: Path) -> Path:
    """A state file as it is named, or else of that name in the run's folder."""
    return run / state if not state.exists() and (run / state).exists() else state


def _prompt(text: str | None, file: str | None) -> str | None:
    if text is not None and file is not None:
        raise ValueError("give one of --prompt and --prompt-file; got both")
    text = _given.text(text, file)
    if text == "":
        raise ValueError("the prompt must have at least one character; got none")
    return text


def _part(text: str, folder: str, codec: Codec | None = None) -> Any:
    """The Config that a name with options stands for: "suffix(max_draft=8)"; what reads text is given the codec."""
    from runnel import catalog, patterns

    part = patterns.parse_part(text, folder)
    page = catalog.page(folder, part.name)
    wants_codec = codec is not None and "codec" in {field.name for field in dataclasses.fields(page.Config)}
    return patterns.Part(part.name, {"codec": codec} | part.options if wants_codec else part.options).config(page)


def _decoder(
    text: str,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    processors: Sequence[Any],
) -> Any:
    """The Config of a decoder: the options beside its name, and those of the command line that it knows."""
    from runnel import catalog, patterns

    part = patterns.parse_part(text, "decoders")
    page = catalog.page("decoders", part.name)
    known = {field.name for field in dataclasses.fields(page.Config)}
    given: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given = {name: value for name, value in given.items() if value is not None}
    if processors:
        given["processors"] = tuple(processors)
    for name in given:
        if name not in known:
            raise ValueError(f"decoder {part.name!r} has no option {name!r}")
    if "temperature" in known:
        given = {"temperature": TEMPERATURE} | given
    return dataclasses.replace(
        part.config(page), **({name: v for name, v in given.items() if name not in part.options})
    )


def _tree(text: str) -> Any:
    """The Config of a tree builder by name with options, or of a folder that `runnel calibrate` made."""
    from runnel import calibration, patterns

    if calibration.is_tree(text):
        return calibration.load(text)
    if patterns.parse_part(text, "trees").name == "acceptance_head":
        raise ValueError("the tree acceptance_head is given by the folder that `runnel calibrate` made")
    return _part(text, "trees")


def drafter_of(text: str | None, target: Model, tree: Any = None) -> Any:
    """A drafter by name with options; the folder of a trained one, or of a smaller model, as a drafter, which may be
    given a tree builder.
    """
    from runnel import catalog, patterns, trained
    from runnel.drafters import draft_model

    if text is None:
        if tree is not None:
            raise ValueError("--tree is what a drafter grows: give --drafter too")
        return None
    if (Path(text) / "config.json").is_file():
        if trained.is_drafter(text):
            return trained.load(text, target, tree or "chain")
        return draft_model.Config(load_run(Path(text)), tree=tree or "chain")
    if tree is not None:
        raise ValueError(f"--tree is for drafters that are given by a folder; got --drafter {text}")
    name = patterns.parse_part(text, "drafters").name
    if name == "draft_model":
        raise ValueError("the drafter draft_model is given by the folder of its model: --drafter runs/SMALLER")
    if getattr(catalog.page("drafters", name), "TRAINED", False):
        raise ValueError(f"the drafter {name} is given by the folder that `runnel train --drafter {name}` made")
    return _part(text, "drafters")
