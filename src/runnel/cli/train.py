"""`runnel train`: a model of any architecture on text, stdin or a generator; started again, it goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel import catalog
from runnel.cli import _drafting, _screen, _training

if TYPE_CHECKING:
    from runnel.codecs import Codec
    from runnel.data import Source
    from runnel.model import Model
    from runnel.train import TrainResult

MODEL = "(mamba2*2, attention(window=128))*2"
ORDERS = {"unigram": 1, "order-3 n-gram": 3, "order-5 n-gram": 5}
TOKENIZER_BYTES = 64 << 20
"""A tokenizer learns from this much of the training text at most."""

DATA, SHAPE, DRAFTING, RANKS = "Data", "Model", "Or a drafter", "Several processes"
OPTIMISER, VALIDATION = "Optimiser", "Validation and output"


class CodecName(StrEnum):
    BYTES = "bytes"
    BPE = "bpe"


class OptimizerName(StrEnum):
    ADAMW = "adamw"
    ADAMW8BIT = "adamw8bit"
    MUON = "muon"


class CheckpointsName(StrEnum):
    WHOLE = "whole"
    SHARDED = "sharded"


class ScheduleName(StrEnum):
    COSINE = "cosine"
    WSD = "wsd"


def _option(panel: str, help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=True)


def command(
    source: Annotated[str, typer.Argument(help="A file, folder, - (stdin), hf://DATASET or generator (recall).")],
    model: Annotated[str, _option(SHAPE, 'Pattern of mixers, such as "(mamba2*3, attention)*2".')] = MODEL,
    d_model: Annotated[int, _option(SHAPE, "Width of the model.")] = 128,
    layers: Annotated[int | None, _option(SHAPE, "Repeat the pattern to this many layers.")] = None,
    channel: Annotated[str, _option(SHAPE, "Channel block of each layer, or none.")] = "swiglu",
    target: Annotated[Path | None, _option(DRAFTING, "The folder of a trained model, which stays as it is.")] = None,
    drafter: Annotated[str | None, _option(DRAFTING, 'A drafter: "hydra(heads=3)", or the folder of one.')] = None,
    objective: Annotated[str | None, _option(DRAFTING, "The loss. (default: next_token, or the drafter's own)")] = None,
    length: Annotated[int, _option(DATA, "Tokens in a row.")] = 256,
    batch: Annotated[int, _option(DATA, "Rows in a micro-batch.")] = 8,
    pack: Annotated[
        str | None, _option(DATA, "Whole documents, several a row: shortest_pack_first or least_squares.")
    ] = None,
    bucket: Annotated[bool, _option(DATA, "Whole documents, one a row, batches of like lengths.", "--bucket")] = False,
    codec: Annotated[CodecName, _option(DATA, "How text becomes tokens.")] = CodecName.BYTES,
    vocab_size: Annotated[int, _option(DATA, "Tokens of a BPE that is learned from the text.")] = 4096,
    tokenizer: Annotated[Path | None, _option(DATA, "A byte-level tokenizer.json to use with --codec bpe.")] = None,
    valid_fraction: Annotated[float, _option(DATA, "Share of the text that is held out, at its end.")] = 0.1,
    steps: Annotated[int | None, _option(OPTIMISER, "Length of the run in steps.")] = None,
    budget: Annotated[str | None, _option(OPTIMISER, "Or its length in time: 90s, 5m, 2h. (default 5m)")] = None,
    lr: Annotated[float, _option(OPTIMISER, "Peak learning rate.")] = 3e-3,
    optimizer: Annotated[OptimizerName, _option(OPTIMISER, "Optimiser.")] = OptimizerName.ADAMW,
    schedule: Annotated[ScheduleName, _option(OPTIMISER, "Learning-rate schedule.")] = ScheduleName.COSINE,
    warmup: Annotated[float, _option(OPTIMISER, "Share of the run that warms up.")] = 0.02,
    cooldown: Annotated[float, _option(OPTIMISER, "Share of the run that cools down (wsd).")] = 0.2,
    weight_decay: Annotated[float, _option(OPTIMISER, "Decoupled weight decay.")] = 0.1,
    clip: Annotated[float, _option(OPTIMISER, "Largest norm of the gradient; 0 for no limit.")] = 1.0,
    accumulate: Annotated[int, _option(OPTIMISER, "Micro-batches in a step.")] = 1,
    chunk: Annotated[int | None, _option(OPTIMISER, "Tokens of a row held at once; for very long rows.")] = None,
    ema: Annotated[float | None, _option(OPTIMISER, "Average the weights with this decay.")] = None,
    bf16: Annotated[bool, _option(OPTIMISER, "Compute in bfloat16 where that is safe.", "--bf16")] = False,
    valid_every: Annotated[int, _option(VALIDATION, "Steps between validations; 0 for one at the end.")] = 200,
    patience: Annotated[int | None, _option(VALIDATION, "Stop after so many validations without a new best.")] = None,
    save_every: Annotated[str, _option(VALIDATION, "Time between checkpoints.")] = "30s",
    out: Annotated[Path | None, _option(VALIDATION, "Folder of the run. (default runs/NAME-OF-SOURCE)")] = None,
    tensorboard: Annotated[bool, _option(VALIDATION, "Also write TensorBoard events.", "--tensorboard")] = False,
    seed: Annotated[int, _option(VALIDATION, "Of the weights, the order of the data, and dropout.")] = 0,
    threads: Annotated[
        int | None, _option(VALIDATION, "CPU threads. The same number repeats a run to the bit.")
    ] = None,
    mesh: Annotated[str | None, _option(RANKS, "What they share: data=2,sequence=2. (default: all share rows)")] = None,
    shard: Annotated[bool, _option(RANKS, "Each keeps its share of the weights (FSDP2).", "--shard")] = False,
    shard_bf16: Annotated[bool, _option(RANKS, "Gather and use those weights in bfloat16.", "--shard-bf16")] = False,
    offload: Annotated[bool, _option(RANKS, "Keep those shares in the CPU's memory.", "--offload")] = False,
    checkpoints: Annotated[
        CheckpointsName, _option(RANKS, "Rank 0 writes them, or each its share while the run goes on.")
    ] = CheckpointsName.WHOLE,
    recompute: Annotated[bool, _option(RANKS, "Keep only layers' inputs.", "--recompute")] = False,
    exchange: Annotated[str, _option(RANKS, "How slices of a sequence tell each other what came before.")] = "lasp2",
    json: Annotated[bool, _option(VALIDATION, "Print the result as JSON.", "--json")] = False,
) -> None:
    """Train a model, or a drafter for one; the same command again goes on where it was stopped.

    \b
    Example:
        python3 -c "import this" > zen.txt
        runnel train zen.txt --model "mamba2*2" --length 32 --steps 60
        runnel train zen.txt --target runs/zen --drafter hydra --out runs/hydra --length 32 --steps 30
    \b
    Ctrl-C saves and says how to go on. The run's folder holds config.json and
    model.safetensors (for `runnel generate`), metrics.jsonl and checkpoints/.
    On several processes or machines: torchrun --nproc-per-node 2 -m runnel train zen.txt ...
    """
    from runnel import codecs, data
    from runnel.cli.generate import load_run
    from runnel.train import TrainConfig

    _check_drafter(target, drafter, objective, {"--model": model != MODEL, "--tokenizer": tokenizer is not None})
    config = TrainConfig(
        steps=steps,
        budget=_budget(steps, budget),
        objective=objective or ("next_token" if drafter is None else _drafting.own_objective(drafter)),
        optimizer=optimizer.value,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule.value,
        warmup=warmup,
        cooldown=cooldown,
        clip=clip or None,
        accumulate=accumulate,
        chunk=chunk,
        recompute=recompute,
        shard=shard,
        shard_precision="bfloat16" if shard_bf16 else "float32",
        offload=offload,
        precision="bfloat16" if bf16 else "float32",
        ema=ema,
        valid_every=valid_every or None,
        patience=patience,
        save_seconds=parse_seconds(save_every, "--save-every"),
        checkpoints=checkpoints.value,
        tensorboard=tensorboard,
        seed=seed,
    )
    _training.set_threads(threads)
    packing = _packing(pack, bucket)
    with _training.ranks(mesh, exchange) as ranks:
        folder = Path("runs", _name(source)) if out is None else out
        with ranks.first_alone():
            if target is None:
                chosen = _codec(source, codec, vocab_size, tokenizer, folder / "spool", valid_fraction)
            else:
                chosen = codecs.load(target)
            with _screen.working(f"reading {source}"):
                spool = folder / "spool"
                opened = data.open_source(source, chosen, length, batch, seed, spool, valid_fraction, packing)
        _note_padding(opened)
        if target is not None and drafter is not None:
            guesser = _drafting.build(drafter, load_run(target), seed)
            n_parameters = sum(p.numel() for p in guesser.parameters())
            _screen.note(f"{source}: {drafter} for {target}, {n_parameters:,} parameters, into {folder}")
            result = _training.fit(guesser, opened, folder, config, {}, ranks=ranks)
            _drafting.report(result, guesser, opened, target, n_parameters, json)
            return
        built = _build(opened, model, d_model, layers, channel, seed)
        n_parameters = sum(p.numel() for p in built.parameters())
        baselines = _baselines(opened) if ranks.is_first else {}
        _screen.note(f"{source}: {model}, {n_parameters:,} parameters, into {folder}")
        result = _training.fit(built, opened, folder, config, baselines, ranks=ranks)
        report(result, baselines, n_parameters, json)


def _packing(pack: str | None, bucket: bool) -> str | None:
    """A page of `runnel.packings`."""
    if pack is not None and bucket:
        raise ValueError(f"give one of --pack and --bucket; got --pack {pack} and --bucket")
    if pack == "buckets":
        raise ValueError("--pack puts several documents in a row; --bucket is the option for buckets")
    return "buckets" if bucket else pack


def _note_padding(source: Source) -> None:
    if "padding" in source.facts:
        now, before = source.facts["padding"], source.facts["padding_before"]
        _screen.note(f"empty columns: {now:.1%}; with documents as they come {before:.1%}")


def _baselines(source: Source) -> dict[str, float]:
    with _screen.working("counting n-grams"):
        return _training.text_baselines(source, ORDERS) or _training.known_losses(source)


def report(result: TrainResult, baselines: dict[str, float], n_parameters: int, json: bool) -> None:
    """How a run ended; the last line is the loss on held-out data beside what is trivial and what is possible."""
    per_token = None if result.valid_loss is None else result.valid_loss / math.log(2)
    if json:
        facts = {
            "folder": str(result.folder),
            "parameters": n_parameters,
            "step": result.step,
            "tokens": result.tokens,
            "seconds": result.seconds,
            "stopped": result.stopped,
            "train_bits_per_token": result.loss / math.log(2),
            "valid_bits_per_token": per_token,
            "valid_bits_per_byte": result.valid_bits_per_byte,
            "baselines": baselines,
        }
        _screen.print_json(facts)
        return
    print(
        f"{result.step} steps, {result.tokens:,} tokens in {_screen.clock(result.seconds)} (ended by {result.stopped})"
    )
    text = (result.folder / "codec.json").is_file()
    print(f"model saved in {result.folder}" + (f"; try: runnel generate {result.folder}" if text else ""))
    beside = "".join(f"; {name} {bits:.3f}" for name, bits in baselines.items())
    if result.valid_bits_per_byte is not None:
        print(f"validation {result.valid_bits_per_byte:.3f} bits per byte{beside}")
    elif per_token is not None:
        print(f"validation {per_token:.3f} bits per token{beside}")
    else:
        print(f"training {result.loss / math.log(2):.3f} bits per token; nothing was held out")


def parse_seconds(text: str, option: str) -> float:
    """A time such as 90, 90s, 1.5m or 2h, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise ValueError(f"{option} must be a time such as 90s, 5m or 2h; got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _check_drafter(target: Path | None, drafter: str | None, objective: str | None, others: dict[str, bool]) -> None:
    """ValueError for options that do not go together."""
    if (target is None) != (drafter is None):
        given = "--target" if drafter is None else "--drafter"
        raise ValueError(f"a drafter is trained for a model: give --target and --drafter; got {given} alone")
    if drafter is None and objective is not None and _trains_drafters(objective):
        raise ValueError(f"--objective belongs to a --drafter; {objective} does not train a model of its own")
    for option, given_too in others.items():
        if drafter is not None and given_too:
            raise ValueError(f"{option} belongs to a model of its own; a drafter takes what its target has")


def _trains_drafters(objective: str) -> bool:
    """Whether a loss is that of a trained drafter."""
    return objective in catalog.names("drafters") and hasattr(catalog.page("drafters", objective), "TRAINED")


def _budget(steps: int | None, budget: str | None) -> float | None:
    if budget is not None:
        return parse_seconds(budget, "--budget")
    return None if steps is not None else 300.0


def _name(source: str) -> str:
    """A folder name for a source: of a path its stem, of a generator its name."""
    if source == "-":
        return "stdin"
    path = Path(source)
    named = source.removeprefix("hf://")
    return (path.resolve().stem if path.exists() else named.partition(":")[0].replace("/", "_")) or "run"


def _codec(
    source: str, name: CodecName, vocab_size: int, tokenizer: Path | None, spool: Path, held_out: float
) -> Codec:
    """The codec asked for. One that was learned is kept in the spool folder, so that a restart has the same."""
    from runnel import codecs
    from runnel.codecs import bpe
    from runnel.codecs.bytes import Bytes
    from runnel.storage import read_json, write_json

    if tokenizer is not None and name is not CodecName.BPE:
        raise ValueError(f"--tokenizer needs --codec bpe; got --codec {name.value}")
    if name is CodecName.BYTES:
        return Bytes()
    if tokenizer is not None:
        return bpe.from_file(tokenizer)
    asked, record = (
        {"source": source, "vocab_size": vocab_size, "valid_fraction": held_out},
        spool / "tokenizer-of.json",
    )
    if record.is_file() and read_json(record) == asked:
        return codecs.load(spool)
    with _screen.working(f"learning a tokenizer of {vocab_size} tokens"):
        learned = bpe.train(_beginning(source, spool, held_out), vocab_size)
    learned.save(spool)
    write_json(record, asked)
    return learned


def _beginning(source: str, spool: Path, held_out: float) -> Iterator[bytes]:
    """The training text up to TOKENIZER_BYTES."""
    from runnel import data

    taken = 0
    for piece in data.training_text(source, spool=spool, valid_fraction=held_out):
        yield piece
        taken += len(piece)
        if taken >= TOKENIZER_BYTES:
            return


def _build(source: Source, pattern: str, d_model: int, layers: int | None, channel: str, seed: int) -> Model:
    import runnel

    block = None if channel == "none" else channel
    if source.vocab_size:
        return runnel.build(pattern, source.vocab_size, d_model, layers, seed, block)
    channels = source.batch(0).inputs.shape[-1]  # a source of real values
    return runnel.build(pattern, None, d_model, layers, seed, block, value_dim=channels)
