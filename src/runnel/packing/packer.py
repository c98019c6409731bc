"""Packing a model: record every layer once, translate it, and pack its matrices."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from runnel.frame import Embedding
from runnel.head import Head
from runnel.lineage import Lineage
from runnel.model import Model
from runnel.native.packed import KINDS
from runnel.packing.builder import Builder, View
from runnel.packing.packed_model import PackedModel, TorchLayer
from runnel.packing.record import Unsupported, record
from runnel.packing.segment import Segment, form_of, nodes_of_chain
from runnel.packing.translate import translate
from runnel.state import Memory, leaves

TOLERANCE = 1e-3
"""Largest difference between a layer and its record, relative to the largest number, in float32."""


@torch.no_grad()
def pack(model: Model, weights: str = "bf16") -> PackedModel:
    """A decode-ready copy of a model whose matrices are kept in weights: "f32", "bf16", "int8" or "int4".

    ValueError where the native extension was not built.
    """
    if weights not in KINDS:
        raise ValueError(f"weights must be one of {', '.join(KINDS)}; got {weights!r}")
    fingerprint = model.fingerprint()
    if weights != "f32":
        fingerprint = hashlib.sha256(f"{fingerprint} {weights}".encode()).hexdigest()[:32]
    if model.device.type != "cpu" or any(p.dtype != torch.float32 for p in model.parameters()):
        model = copy.deepcopy(model).float().cpu()
    packer = _Packer(model, weights)
    parts, head = packer.parts(), packer.head()
    embedding = model.embed.scaled(model.embed.weight).detach().clone() if isinstance(model.embed, Embedding) else None
    positions = None if model.positions is None else model.positions.weight.detach().clone()
    return PackedModel(
        model.config, weights, parts, head, embedding, packer.zero, fingerprint, packer.fallbacks, model.semantics(),
        positions,
    )  # fmt: skip


class _Packer:
    def __init__(self, model: Model, weights: str) -> None:
        self.model, self.weights, self.width = model, weights, model.config.d_model
        self.zero = [mixer.init_state(1) for mixer in model.mixers]
        self.fallbacks: dict[str, str] = {}
        self._checked: dict[str, str | None] = {}

    def parts(self) -> list[Segment | TorchLayer]:
        parts: list[Segment | TorchLayer] = []
        values = self.model.config.vocab_size is None
        first = self.model.embed if values else self.model.embedding_norm
        builder = Builder(self.weights, self.model.config.outcomes if values else self.width)
        x = View("buffer", builder.input, 0, (1, 1, builder.sizes[0]), (builder.sizes[0], builder.sizes[0], 1))
        if first is not None:
            x = translate(record(first, torch.randn(1, 1, builder.sizes[0])), builder, x)
        start = 0
        for index, layer in enumerate(self.model.layers):
            reason = self._reason(index, layer)
            if reason is None:
                x = translate(record(layer, *_example(layer, self.width)), builder, x)
                continue
            self.fallbacks[f"layer {index}"] = reason
            if index > start or first is not None:
                parts.append(_segment(builder, x, range(start, index), self.zero[start:index]))
            parts.append(TorchLayer(index, copy.deepcopy(layer)))
            builder, start, first = Builder(self.weights, self.width), index + 1, None
            x = View("buffer", builder.input, 0, (1, 1, self.width), (self.width, self.width, 1))
        x = translate(record(self.model.norm, torch.randn(1, 1, self.width)), builder, x)
        return [*parts, _segment(builder, x, range(start, len(self.zero)), self.zero[start:])]

    def head(self) -> Segment | Head:
        if self.model.head.positional:
            self.fallbacks["head"] = "it depends on the position"
            return copy.deepcopy(self.model.head)
        builder = Builder(self.weights, self.width)
        x = View("buffer", builder.input, 0, (1, 1, self.width), (self.width, self.width, 1))
        try:
            x = translate(record(self.model.head, torch.randn(1, 1, self.width)), builder, x)
            return _segment(builder, x, range(0), [])
        except Unsupported as reason:
            self.fallbacks["head"] = str(reason)
            return copy.deepcopy(self.model.head)

    def _reason(self, index: int, layer: Any) -> str | None:
        """Why a layer has no native form; layers of one kind are looked at once."""
        kind = repr(layer) + str(sorted((name, tuple(p.shape)) for name, p in layer.named_parameters()))
        kind += repr([getattr(part, "config", None) for part in layer.parts])
        if kind not in self._checked:
            self._checked[kind] = self._try(layer)
        return self._checked[kind]

    def _try(self, layer: Any) -> str | None:
        """Record a layer in float32 and compare: two rows of three tokens, from a state and a position of their own."""
        builder = Builder("f32", self.width)
        x = View("buffer", builder.input, 0, (1, 1, self.width), (self.width, self.width, 1))
        try:
            out = translate(record(layer, *_example(layer, self.width)), builder, x)
        except Unsupported as reason:
            return str(reason)
        segment = _segment(builder, out, range(1), [layer.mixer.init_state(1)])
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(2, 8, self.width, generator=generator)
        begun = Lineage.sequence(2, 5)
        _, memory = layer(inputs[:, :5], layer.mixer.init_state(2), begun)
        lineage = Lineage.sequence(2, 3).at(torch.full((2,), 5))
        expected, after = layer(inputs[:, 5:], memory, lineage)
        nodes = nodes_of_chain(lineage)
        held = segment.form.hold([memory])
        y, made, _ = segment.run(inputs[:, 5:].flatten(0, 1).contiguous(), held, nodes)
        pairs = [(y.view_as(expected), expected), *zip(leaves(made), leaves(after), strict=True)]
        for found, wanted in pairs:
            if found.shape != wanted.shape or not _close(found, wanted):
                return f"{type(layer.mixer).__name__} does more than its record shows"
        return None


def _segment(builder: Builder, output: View, layers: range, zero: Sequence[Memory]) -> Segment:
    spec = builder.finish(output)
    return Segment(spec, layers, builder.constants, builder.matrices, form_of(spec, zero))


def _example(layer: Any, width: int) -> tuple[Tensor, Memory]:
    return torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0)), layer.mixer.init_state(1)


def _close(found: Tensor, wanted: Tensor) -> bool:
    if not wanted.is_floating_point() or wanted.numel() == 0:
        return bool(torch.equal(found, wanted))
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max().clamp(min=1e-3))
