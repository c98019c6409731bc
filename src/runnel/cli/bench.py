"""`runnel bench`: a trained model, the native engine beside its peers, and the standard table of forecasting."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _forecasting, _screen, _training
from runnel.cli.generate import drafter_of, load_run, packed

if TYPE_CHECKING:
    from runnel.bench.decode import Line

SHAPES = ("mamba-130m", "llama-135m")
DRAFTERS = ("auto", "suffix", "prompt_lookup", "token_recycling", "adaptive", "lookahead", "jacobi")
ENGINE = ("decode", "verify", "prefill")
WHAT = (*ENGINE, "train", "length", "forecast")


def command(
    what: Annotated[
        str,
        typer.Argument(
            help="decode: drafters beside plain decoding, or of a shape as verify and prefill: ours beside peers. "
            "train: steps of training. length: a token after many. forecast: the table of a series file."
        ),
    ],
    run: Annotated[
        str | None,
        typer.Argument(
            help="decode: the folder of a trained model, or a shape: mamba-130m or llama-135m, as for verify and "
            "prefill. forecast: a CSV file or its URL."
        ),
    ] = None,
    drafter: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of all that need no training: a name with options, or a folder; may be given again."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to write after every prompt.")] = 256,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats, after one that warms up.")] = 7,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    weights: Annotated[
        str | None,
        typer.Option(help="By the native engine: f32, bf16, int8 or int4; of a shape several, by commas."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="A small stand-in in two rounds: does it run?")] = False,
    model: Annotated[
        list[str] | None, typer.Option(help="forecast: a model by name, or a pattern; may be given again.")
    ] = None,
    horizon: Annotated[list[int] | None, typer.Option(help="forecast: steps ahead; may be given again.")] = None,
    lookback: Annotated[list[int] | None, typer.Option(help="forecast: rows of history; may be given again.")] = None,
    seeds: Annotated[int, typer.Option(help="forecast: fits of every trained model.")] = 1,
    budget: Annotated[float, typer.Option(help="forecast: seconds that auto may take.")] = 300.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure a trained model: how fast it decodes. Or the native engine beside its peers, or forecasters.

    \b
    Examples (the first after `runnel demo`, the third with a file of the ETT kind):
        runnel bench decode runs/demo --tokens 64 --repeats 3
        runnel bench prefill mamba-130m --weights bf16 --quick
        runnel bench forecast ETTh1.csv --model ridge --model auto --horizon 96
    \b
    Peers are transformers, llama-cpp-python and mambapy, where they are installed:
    the same shape and random weights in one process, repeats in turn, median ratios.
    Speed-ups are medians of ratios to plain decoding of the same model in the same
    process, prompt by prompt. tokens/call: tokens that one call of the model gives.
    v(m): what verifying and committing m tokens costs, in plain steps.
    """
    if what not in WHAT:
        raise ValueError(f"bench measures {', '.join(WHAT)}; got {what!r}")
    if what in ("train", "length") or (what in ENGINE and (what != "decode" or run in SHAPES)):
        _training.set_threads(threads)
        _engine(what, run, weights, 2 if quick else repeats, quick, json)
        return
    if run is None:
        needed = "a CSV file" if what == "forecast" else "the folder of a trained model, or a shape"
        raise ValueError(f"bench {what} needs {needed}; got nothing")
    if what == "forecast":
        _training.set_threads(threads)
        _forecasting.standard_table(run, model, horizon, lookback, seeds, budget, json)
        return
    if tokens < 1 or repeats < 1:
        raise ValueError(f"--tokens and --repeats must be at least 1; got {tokens} and {repeats}")
    from runnel import codecs
    from runnel.bench import decode
    from runnel.measured import verify_curve

    _training.set_threads(threads)
    folder = Path(run)
    target, codec = load_run(folder), codecs.load(folder)
    drafters = {text: drafter_of(text, target) for text in drafter or DRAFTERS}
    engine = packed(target, weights)
    with _screen.bar("measuring") as bar:
        curve = verify_curve(engine)
        lines = list(decode.measure(engine, codec, drafters, tokens, repeats, temperature, bar.update))
        bar.update(1.0, "done")
    if json:
        _screen.print_json({"verify": curve, "lines": [asdict(line) for line in lines]})
    else:
        _print(lines, curve)


def _engine(what: str, shape: str | None, weights: str | None, repeats: int, quick: bool, json: bool) -> None:
    """The native engine beside its peers."""
    from runnel.bench import engine, lengths, report, steps

    if repeats < 1:
        raise ValueError(f"--repeats must be at least 1; got {repeats}")
    if what == "train":
        found = steps.measure([steps.QUICK] if quick else [512, 2048], repeats=repeats)
    elif what == "length":
        names = ["mamba", "attention"] if quick else [*lengths.flat(), "attention"]
        found = lengths.measure(names, lengths.QUICK if quick else lengths.LENGTHS, weights or "f32", repeats)
    elif shape not in SHAPES:
        raise ValueError(f"bench {what} measures the shapes {', '.join(SHAPES)}; got {shape!r}")
    else:
        kinds = (weights or "f32,bf16,int8").split(",")
        found = engine.measure(shape, kinds, [what], repeats, quick=quick)
    if json:
        _screen.print_json(found)
    else:
        print(report.page(found))


def _print(lines: list[Line], curve: dict[int, float]) -> None:
    for kind in dict.fromkeys(line.kind for line in lines):
        _screen.heading(kind)
        head = ["drafter", "speed-up", "tokens/s", "tokens/call", "drafting", "text"]
        print("\n".join(_screen.columns([head, *(_row(line) for line in lines if line.kind == kind)])))
    _screen.heading("verification")
    print("  ".join(f"v({size}) {cost:.2f}" for size, cost in curve.items()))


def _row(line: Line) -> list[Any]:
    return [
        line.drafter,
        f"{line.speedup:.2f}x",
        f"{line.tokens_per_second:,.0f}",
        f"{line.tokens_per_call:.2f}",
        f"{line.draft_share:.0%}",
        "same" if line.same_text else "differs",
    ]
