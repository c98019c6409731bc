"""`runnel calibrate`: what trees a drafter of a trained model should grow, learnt from text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runnel.cli import _screen, _training
from runnel.cli.generate import TEMPERATURE, drafter_of, load_run

if TYPE_CHECKING:
    from torch import Tensor

    from runnel.model import Model

TREES = ("calibrated", "acceptance_head")


def command(
    source: Annotated[str, typer.Argument(help="Text whose beginnings are continued: a file, a folder, - (stdin).")],
    target: Annotated[Path, typer.Option(help="The folder of the trained model that is drafted for.")],
    drafter: Annotated[str, typer.Option(help="The folder of a trained drafter or of a smaller model.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    tree: Annotated[str, typer.Option(help="calibrated, or acceptance_head (for a smaller model).")] = TREES[0],
    nodes: Annotated[int, typer.Option(help="calibrated: nodes of the tree.")] = 16,
    ranks: Annotated[int, typer.Option(help="calibrated: guesses of a place that are looked at.")] = 4,
    threshold: Annotated[float, typer.Option(help="acceptance_head: chance of a rejection to stop at.")] = 0.7,
    prompts: Annotated[int, typer.Option(help="Beginnings to continue.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens of a beginning, and tokens to write after it.")] = 64,
    temperature: Annotated[float, typer.Option(help="At which the model writes; 0 is greedy.")] = TEMPERATURE,
    seed: Annotated[int, typer.Option(help="Of the beginnings and of what is written.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Learn what trees a drafter should grow, from what the model writes.

    \b
    Example (after the examples of `runnel train`):
        runnel calibrate zen.txt --target runs/zen --drafter runs/hydra --out runs/tree --length 16
        runnel generate runs/zen --drafter runs/hydra --tree runs/tree --stats
    \b
    calibrated: the tree of so many nodes that is accepted furthest, by how often the guesses of
    every rank are right. acceptance_head: a chain that ends where a rejection is likely.
    """
    from runnel import calibration, codecs, data
    from runnel.trees import acceptance_head, calibrated

    if tree not in TREES:
        raise ValueError(f"--tree must be one of {', '.join(TREES)}; got {tree}")
    for name, value in (("nodes", nodes), ("ranks", ranks), ("prompts", prompts), ("length", length)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1; got {value}")
    _training.set_threads(threads)
    model, codec = load_run(target), codecs.load(target)
    opened = data.open_source(source, codec, length, prompts, seed, out / "spool")
    begun: Tensor = opened.batch(0).inputs
    facts: dict[str, Any] = {"folder": str(out), "tree": tree}
    found: calibration.Tree
    with _screen.working("drafting on what the model writes"):
        if tree == "calibrated":
            told = calibration.accuracies(
                model,
                lambda builder: drafter_of(drafter, model, builder),
                begun.tolist(),
                length,
                ranks,
                temperature=temperature,
                seed=seed,
            )
            found = calibrated.Config(told, nodes)
            facts |= {
                "accuracies": told,
                "accepted": _accepted(told, nodes),
                "accepted_of_chain": _chained(told, nodes),
            }
        else:
            smaller = _smaller(drafter)
            found = acceptance_head.Config(
                calibration.foreseeing(model, smaller, begun, temperature or 1.0, seed), threshold
            )
    calibration.save(found, out)
    if json:
        _screen.print_json(facts)
        return
    for depth, own in enumerate(facts.get("accuracies", ()), start=1):
        print(f"{depth} ahead: " + "  ".join(f"rank {rank} {share:.0%}" for rank, share in enumerate(own, start=1)))
    if tree == "calibrated":
        print(f"{nodes} nodes: {facts['accepted']:.2f} accepted a round, {facts['accepted_of_chain']:.2f} as a chain")
    print(f"tree saved in {out}; try: runnel generate {target} --drafter {drafter} --tree {out} --stats")


def _accepted(accuracies: list[list[float]], nodes: int) -> float:
    """The mean number of accepted guesses that the calibrated tree is expected to have."""
    from runnel.trees import calibrated

    return sum(calibrated.chance(accuracies, ranks) for ranks in calibrated.calibrate(accuracies, nodes))


def _chained(accuracies: list[list[float]], nodes: int) -> float:
    """The same of a chain of as many nodes."""
    from runnel.trees import calibrated

    return sum(calibrated.chance(accuracies, (0,) * depth) for depth in range(1, min(nodes, len(accuracies)) + 1))


def _smaller(folder: str) -> Model:
    from runnel import trained

    if trained.is_drafter(folder):
        raise ValueError(f"an acceptance head is learnt for the folder of a smaller model; {folder} holds a drafter")
    return load_run(Path(folder))
