"""The maps of all layers of a model over one text, what they have in common, and their picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from runnel import catalog
from runnel.links import Links
from runnel.mixer import Mixer
from runnel.model import Model
from runnel.probe.implicit_attention import implicit_attention
from runnel.storage import write_atomically

ACROSS = 3
"""Layers side by side in a picture."""


@dataclass(frozen=True)
class LayerMap:
    """weights (T, T): how much of what a token reads comes from where; the mean over heads, rows sum to one.

    primitive: where the map is exact, what it is the map of; None for the Jacobian's.
    """

    layer: int
    mixer: str
    primitive: str | None
    weights: Float[Tensor, "T T"]

    @property
    def to_itself(self) -> float:
        """The share of a token's reading that is the token itself, in the mean over the text."""
        return float(self.weights.diagonal().mean())

    @property
    def reach(self) -> float:
        """How far back a token reads, in tokens, in the mean over its weights and the text."""
        places = torch.arange(len(self.weights), dtype=self.weights.dtype)
        return float((self.weights * (places[:, None] - places)).sum(1).mean())


def layer_maps(model: Model, tokens: Int[Tensor, "T"]) -> Iterator[LayerMap]:
    """One layer after the other. Maps by the Jacobian take a backward pass for every token and channel."""
    inputs = _inputs_of_mixers(model, tokens)
    for layer, (mixer, (x, links)) in enumerate(zip(model.mixers, inputs, strict=True)):
        found = implicit_attention(mixer, x, links)
        shares = found.weights[0].abs()
        shares = (shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)).mean(0)
        yield LayerMap(layer, " & ".join(catalog.page_name(page) for page in mixer.pages), found.primitive, shares)


@torch.no_grad()
def _inputs_of_mixers(model: Model, tokens: Tensor) -> list[tuple[Tensor, Links]]:
    """What each mixer reads, and the links that it takes."""
    seen: list[tuple[Tensor, Links]] = []

    def note(module: Mixer, arguments: tuple[Any, ...]) -> None:
        x, _, _, links = (*arguments, {})[:4]
        seen.append((x, links))

    hooks = [mixer.register_forward_pre_hook(note) for mixer in model.mixers]
    try:
        model.features(tokens[None])
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def draw(maps: Sequence[LayerMap], labels: Sequence[str], path: Path) -> None:
    """A panel for every layer, as PNG: who reads (down) whom (across). Each row is scaled to its largest weight."""
    down, size = -(-len(maps) // ACROSS), max(3.0, 0.13 * len(labels))
    figure = Figure(figsize=(size * min(ACROSS, len(maps)) + 0.6, size * down + 0.6), layout="constrained")
    grid = figure.subplots(down, min(ACROSS, len(maps)), squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(maps):
            axes.set_axis_off()
            continue
        found = maps[place]
        axes.imshow((found.weights / found.weights.amax(-1, keepdim=True)).numpy(), cmap="cividis", vmin=0, vmax=1)
        axes.set_title(f"{found.layer}: {found.mixer}, {'exact' if found.primitive else 'Jacobian'}", fontsize=9)
        axes.set_xticks(range(len(labels)), labels, fontsize=6, family="monospace")
        axes.set_yticks(range(len(labels)), labels, fontsize=6, family="monospace")
        axes.tick_params(length=0)
    write_atomically(path, lambda target: figure.savefig(target, format="png", dpi=150))
