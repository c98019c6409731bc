"""Trained drafters on the command line: built for a target's folder, judged on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnel.cli import _screen

if TYPE_CHECKING:
    from runnel.data import Source
    from runnel.model import Model
    from runnel.train import TrainResult
    from runnel.trained import TrainedDrafter

PROMPTS, LENGTH = 16, 64
"""Held-out prompts that a drafter is judged on, and the tokens that are written after each."""


def build(spec: str, target: Model, seed: int) -> TrainedDrafter:
    """A drafter. spec: a name, with options if need be: "hydra(heads=3)"; or a folder, whose weights are learned on."""
    from runnel import catalog, patterns
    from runnel.trained import TrainedDrafter, is_drafter, load

    if is_drafter(spec):
        return load(spec, target)

    part = patterns.parse_part(spec, "drafters")
    page = catalog.page("drafters", part.name)
    if not getattr(page, "TRAINED", False):
        trained = [name for name in catalog.names("drafters") if getattr(catalog.page("drafters", name), "TRAINED", 0)]
        raise ValueError(f"--drafter must be one that is trained: {', '.join(trained)}; got {part.name}")
    options = {"seed": seed, **part.options, "target": target}
    drafter: TrainedDrafter = catalog.class_in(page, TrainedDrafter)(patterns.Part(part.name, options).config(page))
    return drafter


def own_objective(spec: str) -> str:
    """The objective of a drafter's page."""
    from runnel import trained
    from runnel.storage import read_json

    if trained.is_drafter(spec):
        return str(read_json(Path(spec) / "config.json")["drafter"])
    return spec.partition("(")[0].strip()


def tokens_per_call(drafter: TrainedDrafter, source: Source) -> float | None:
    """Tokens that each call of the target gives, greedily, after held-out prompts; None where nothing is held out."""
    from runnel.generation import generate

    batch = next(iter(source.valid()), None)
    if batch is None:
        return None
    half = max(1, batch.inputs.shape[1] // 2)
    with _screen.working("drafting on held-out text"):
        found = generate(drafter.target, batch.inputs[:PROMPTS, :half].tolist(), LENGTH, "greedy", drafter)
    count = sum(map(len, found.tokens))
    return count / (count - found.stats["accepted"])


def report(
    result: TrainResult, drafter: TrainedDrafter, source: Source, target: Path, n_parameters: int, json: bool
) -> None:
    """How a run ended; the last line is what the drafter is for."""
    per_call = tokens_per_call(drafter, source)
    if json:
        facts: dict[str, Any] = {
            "folder": str(result.folder),
            "target": str(target),
            "parameters": n_parameters,
            "step": result.step,
            "tokens": result.tokens,
            "seconds": result.seconds,
            "stopped": result.stopped,
            "train_loss": result.loss,
            "valid_loss": result.valid_loss,
            "tokens_per_call": per_call,
        }
        _screen.print_json(facts)
        return
    print(
        f"{result.step} steps, {result.tokens:,} tokens in {_screen.clock(result.seconds)} (ended by {result.stopped})"
    )
    print(f"drafter saved in {result.folder}; try: runnel generate {target} --drafter {result.folder} --stats")
    if per_call is None:
        print(f"training loss {result.loss:.3f}; nothing was held out")
    else:
        print(f"held-out text: {per_call:.2f} tokens per call of the target (1.00 without a drafter)")
