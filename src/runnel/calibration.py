"""Calibration: what trees a drafter should grow, learnt from what a target writes, and kept in a folder.

    told = calibration.accuracies(target, lambda tree: trained.load("runs/hydra", target, tree), prompts, tokens=64)
    calibration.save(calibrated.Config(told, nodes=16), "runs/hydra-tree")
    drafter = trained.load("runs/hydra", target, tree=calibration.load("runs/hydra-tree"))

A tree is of `trees/calibrated`, for any drafter with a law, or of `trees/acceptance_head`, for a smaller model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runnel import catalog
from runnel.draft import Draw
from runnel.drafter import Drafter
from runnel.generation import generate
from runnel.model import Model
from runnel.rows import RowDraw
from runnel.storage import read_json, read_tensors, write_json, write_tensors
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder, acceptance_head, calibrated, ranked

FORMAT = "runnel.tree"
Tree = calibrated.Config | acceptance_head.Config
Options = Any
"""Options of `runnel.generate` that say how the target writes: temperature, seed, ..."""


def accuracies(
    target: Model,
    drafter: Callable[[TreeBuilder], Drafter | Any],
    prompts: Sequence[Sequence[int]],
    tokens: int,
    ranks: int = 4,
    **options: Options,
) -> list[list[float]]:
    """How often the guess of every rank is right for the d-th token ahead, when those before it are: eq. (1) of
    `trees/calibrated`, over texts that the target writes after the prompts. drafter: makes it with a tree builder.

    ValueError when nothing was guessed.
    """
    texts = generate(target, prompts, tokens, **options).tokens
    told = Told(texts, ranks)
    generate(target, prompts, tokens, drafter=drafter(told), **options)
    if not told.places:
        raise ValueError("the drafter must grow a tree of its own law; it has asked its tree builder for nothing")
    return [[hits / places for hits in own] for own, places in zip(told.hits, told.places, strict=True)]


class Told(TreeBuilder):
    """Grows what every row goes on to write, and notes the ranks that the drafter gave to it.

    texts: of every row, by index. hits: by depth and rank. places: how many tokens were looked at, by depth.
    """

    def __init__(self, texts: Sequence[Sequence[int]], ranks: int) -> None:
        super().__init__(None)
        self.texts, self.ranks = texts, ranks
        self.hits, self.places = list[list[int]](), list[int]()

    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        assert isinstance(draw, RowDraw)
        node, written = ROOT, len(draw.row.tokens)
        for ahead, token in enumerate(self.texts[draw.row.index][written : written + budget]):
            logits = (yield [node])[0]
            best = ranked(draw.scores(logits, ahead, sketch.path(node)), self.ranks)
            self._note(ahead, best.index(token) if token in best else None)
            node = sketch.add(token, node, logits)

    def _note(self, ahead: int, rank: int | None) -> None:
        if ahead == len(self.places):
            self.places.append(0)
            self.hits.append([0] * self.ranks)
        self.places[ahead] += 1
        if rank is not None:
            self.hits[ahead][rank] += 1


def foreseeing(target: Model, drafter: Model, texts: Tensor, temperature: float, seed: int = 0) -> acceptance_head.Head:
    """A head that has learnt to foresee rejections of a smaller model's drafts in texts (B, T)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known, chances = acceptance_head.examples(target, drafter, texts, temperature=temperature)
        head = acceptance_head.Head().to(known)
        acceptance_head.fit(head, known, chances)
    return head


def save(tree: Tree, folder: str | Path) -> None:
    """Write config.json, and the head's weights if it has one. OSError when the disk is full."""
    options = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree) if field.name != "head"}
    if isinstance(tree, acceptance_head.Config):
        write_tensors(Path(folder) / "model.safetensors", tree.head.state_dict(), {})
    write_json(Path(folder) / "config.json", {"format": FORMAT, "tree": catalog.page_name(tree), "config": options})


def is_tree(folder: str | Path) -> bool:
    """Whether a folder holds what `save` wrote."""
    path = Path(folder) / "config.json"
    content = read_json(path) if path.is_file() else None
    return isinstance(content, dict) and content.get("format") == FORMAT


def load(folder: str | Path) -> Tree:
    """Read what `save` wrote. FileNotFoundError when it is not there; ValueError when it is damaged or foreign."""
    folder = Path(folder)
    content = read_json(folder / "config.json")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{folder / 'config.json'} does not describe a tree builder")
    try:
        if content["tree"] == "calibrated":
            return calibrated.Config(**content["config"])
        weights, _ = read_tensors(folder / "model.safetensors")
        head = acceptance_head.Head().to(next(iter(weights.values())))
        head.load_state_dict(weights)
        return acceptance_head.Config(head=head, **content["config"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
