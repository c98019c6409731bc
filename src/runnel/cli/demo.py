"""`runnel demo`: everything in four minutes, on text that every machine with Python has."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _continuation, _proof, _screen, _training
from runnel.cli._errors import Failure

if TYPE_CHECKING:
    from runnel.codecs import Codec
    from runnel.data import Source
    from runnel.model import Model
    from runnel.train import TrainConfig, TrainResult

MODEL, D_MODEL = "(mingru*2, attention(window=128))*2", 112
LENGTH, BATCH, VALID_FRACTION = 256, 8, 0.005
SETTINGS: dict[str, Any] = {
    "optimizer": "muon",
    "lr": 1e-2,
    "schedule": "wsd",
    "cooldown": 0.4,
    "valid_every": None,
    "save_seconds": 20.0,
}
ORDERS = {"unigram": 1, "order-3 n-gram": 3}

PROMPT = 'def read_lines(path):\n    """Return the lines of a file."""\n'
COMPLETION, GREEDY = 400, 64
STATE_LENGTHS = [1_000, 100_000, 1_000_000]
OURS = ("checkpoints", "spool", "metrics.jsonl", "config.json", "model.safetensors", "codec.json")
"""What a run leaves in its folder; --fresh deletes this and nothing else."""


def command(
    seconds: Annotated[float, typer.Option(help="Seconds of training.")] = 90.0,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew, although the folder holds a run.")] = False,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the data.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON; the story goes to stderr.")] = False,
) -> None:
    """Train a small model on Python's own source, let it write, and see what its state is.

    \b
    Example:
        runnel demo --seconds 3
    \b
    Stopped with Ctrl-C, the same command goes on. A folder with a finished demo
    is shown again without training; --fresh trains anew.
    """
    _training.set_threads(threads)
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        findings = tell(out, seconds, seed, fresh)
    if json:
        _screen.print_json(findings)


def tell(folder: Path, seconds: float, seed: int, fresh: bool) -> dict[str, Any]:
    """The whole demo; its findings, JSON-able. Failure when a proof does not hold."""
    import runnel
    from runnel.codecs.bytes import Bytes
    from runnel.train import TrainConfig
    from runnel.train.plot import plot

    codec = Bytes()
    if fresh:
        clear(folder)
    _screen.heading("1. The text: the source of Python's standard library on this machine")
    source, baselines = open_corpus(codec, seed)
    _screen.heading("2. The model, trained from nothing")
    model = runnel.build(MODEL, source.vocab_size, D_MODEL, seed=seed)
    result = train(model, source, folder, TrainConfig(budget=seconds, seed=seed, **SETTINGS), baselines)
    model.eval()
    plot(folder, folder / "loss.png", baselines, title=f"{MODEL} on Python's standard library")
    _screen.heading("3. It completes a function")
    complete(model, codec, folder)
    text = next(iter(source.valid())).inputs.reshape(1, -1)
    _screen.heading("4. Two forms, one function: whole text at once, and token by token with a state")
    proof = prove(model, codec, text[:, :LENGTH])
    _screen.heading("5. The state beside the KV cache of an attention model of the same shape")
    sizes = compare_sizes(model, text)
    _screen.heading("6. Saved, to go on with")
    _show_files(folder)
    return {
        "folder": str(folder),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": result.seconds,
        "tokens": result.tokens,
        "valid_bits_per_byte": result.valid_bits_per_byte,
        "baselines": baselines,
        "agreement": proof,
        "sizes": sizes,
    }


def open_corpus(codec: Codec, seed: int) -> tuple[Source, dict[str, float]]:
    """The standard library as a source, and what n-grams reach on it."""
    from runnel import data
    from runnel.data import text

    path = sysconfig.get_path("stdlib")
    if not Path(path, "os.py").is_file():
        raise FileNotFoundError(f"{path} must hold the source of Python's standard library, which the demo trains on")
    with _screen.working("reading it and counting n-grams"):
        spec = f"{text.standard_library()},binary=true"  # binary: one odd file must not end the demo
        source = data.open_source(spec, codec, LENGTH, BATCH, seed, valid_fraction=VALID_FRACTION)
        baselines = _training.text_baselines(source, ORDERS)
    facts = source.facts
    print(f"{path}: {facts['documents']} files, {_screen.size(facts['bytes'])}")
    reached = ", ".join(f"{name} {bits:.2f}" for name, bits in baselines.items())
    print(f"bits per byte by counting, on the last {facts['valid_bytes']:,} bytes (held out): {reached}")
    return source, baselines


def train(model: Model, source: Source, folder: Path, config: TrainConfig, baselines: dict[str, float]) -> TrainResult:
    """Train, or go on, or take a finished run as it is; print how good it became."""
    print(f"{MODEL}, {sum(p.numel() for p in model.parameters()):,} parameters, {config.budget:.0f} s of training")
    finished = (folder / "model.safetensors").is_file()
    try:
        result = _training.fit(model, source, folder, config, baselines)
    except ValueError as error:
        raise ValueError(f"{error}; --fresh trains anew, --out chooses another folder") from error
    if finished:
        print(f"{folder} holds this demo, finished: no training this time (--fresh trains anew)")
    beside = "".join(f"; {name} {bits:.3f}" for name, bits in baselines.items())
    print(f"{result.step} steps, {result.tokens:,} bytes read in {result.seconds:.0f} s, validation included")
    print(f"validation {result.valid_bits_per_byte:.3f} bits per byte{beside}")
    return result


def complete(model: Model, codec: Codec, folder: Path) -> None:
    """Save the state of the prompt, then stream what follows it."""
    from runnel import generation
    from runnel.cli import generate

    prompt = codec.encode(PROMPT)
    _continuation.save(folder / "prompt.state", generation.generate(model, [prompt], 0).state, prompt[-1])
    if not sys.stdout.isatty():
        print(PROMPT, end="")  # a terminal shows it anyway, dimmed
    out = _screen.TextOut(raw=False)
    written = generate.stream(model, codec, prompt, out, max_new_tokens=COMPLETION, temperature=0.8)
    print(f"[{generate.stats_line(written)}]")


def prove(model: Model, codec: Codec, tokens: Any) -> dict[str, Any]:
    """Compare the forms on a held-out text and on a text that each writes; Failure when they differ."""
    from runnel import generation

    found = _proof.agreements(model, tokens)
    rows = [("", "largest difference of a logit", "same likeliest token")]
    rows += [(a.dtype, f"{a.difference:.1e}", f"{a.same} of {a.tokens}") for a in found]
    print("\n".join(_screen.columns(rows)))
    prompt = codec.encode(PROMPT)
    recurrent = generation.generate(model, [prompt], GREEDY, decoder="greedy").tokens[0]
    same = _proof.written_in_parallel(model, prompt, GREEDY) == recurrent
    print(f"{GREEDY} tokens written greedily by each: {'identical' if same else 'different'}")
    if found[1].difference > 1e-8 or found[1].same != found[1].tokens:
        raise Failure(f"the two forms must agree in float64; they differ by {found[1].difference:.1e}")
    return {"forms": [asdict(a) for a in found], "greedy_texts_identical": same}


def compare_sizes(model: Model, text: Any) -> list[dict[str, int]]:
    """Print and return state and cache sizes, in bytes."""
    states = _proof.state_sizes(model, text, STATE_LENGTHS)
    caches = [_proof.cache_size(model, length) for length in STATE_LENGTHS]
    rows = [("tokens", "state", "KV cache", "ratio")]
    for length, state, cache in zip(STATE_LENGTHS, states, caches, strict=True):
        rows.append((f"{length:,}", _screen.size(state), _screen.size(cache), f"{cache / state:,.0f}x"))
    print("\n".join(_screen.columns(rows)))
    first, second = _proof.MEASURED
    print(f"(float32; the state was measured after {first:,} and {second:,} tokens)")
    triples = zip(STATE_LENGTHS, states, caches, strict=True)
    return [{"tokens": length, "state_bytes": state, "cache_bytes": cache} for length, state, cache in triples]


def clear(folder: Path) -> None:
    """Delete what a demo left in a folder, and nothing else."""
    for name in (*OURS, "loss.png", "prompt.state"):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def program() -> str:
    """How this program is called from here: its name, or its path when the name would find another or none."""
    called = shutil.which(sys.argv[0]) or sys.argv[0]
    found = shutil.which("runnel")
    return "runnel" if found and Path(found).resolve() == Path(called).resolve() else called


def _show_files(folder: Path) -> None:
    rows = [
        ("model", f"{folder}/config.json, {folder}/model.safetensors"),
        ("loss plot", f"{folder / 'loss.png'}"),
        ("prompt's state", f"{folder / 'prompt.state'} ({_screen.size((folder / 'prompt.state').stat().st_size)})"),
    ]
    print("\n".join(_screen.columns(rows)))
    print("continue from that state, without reading the prompt again:")
    print("  " + shlex.join([program(), "generate", str(folder), "--state", str(folder / "prompt.state")]))
