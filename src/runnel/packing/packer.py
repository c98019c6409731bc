"""Packing a model: record every layer once, translate it, and pack its matrices."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from runnel.frame import Embedding
from runnel.head import Head
from runnel.lineage import Lineage
from runnel.links import EMBEDDING, TOKENS, Links, given, taken
from runnel.model import LinkedLayer, Model
from runnel.native.packed import KINDS, together
from runnel.packing.builder import Builder, View
from runnel.packing.packed_model import PackedModel, TorchLayer
from runnel.packing.record import Unsupported, record
from runnel.packing.segment import Segment, form_of, nodes_of_chain
from runnel.packing.translate import translate, translate_linked
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
        self.first = model.embed if model.config.vocab_size is None else model.embedding_norm
        self.fallbacks: dict[str, str] = {}
        self._checked: dict[str, str | None] = {}
        self._widths: dict[str, int | None] = {EMBEDDING: self.width, TOKENS: None}
        for mixer in model.mixers:
            self._widths |= given(mixer)

    def parts(self) -> list[Segment | TorchLayer]:
        parts: list[Segment | TorchLayer] = []
        first, reasons = self.first, self._reasons()
        builder = Builder(self.weights, self.model.config.outcomes if self.model.config.value_dim else self.width)
        x = _vector(builder, 0, builder.sizes[0])
        if first is not None:
            x = translate(record(first, torch.randn(1, 1, builder.sizes[0])), builder, x)
        start, links = 0, {EMBEDDING: x}
        for index, (layer, reason) in enumerate(zip(self.model.layers, reasons, strict=True)):
            if reason is None:
                x, gifts = translate_linked(record(layer, *self._example(layer)), builder, x, links)
                links = {**links, **gifts}
                continue
            self.fallbacks[f"layer {index}"] = reason
            if index > start or first is not None:
                parts.append(_segment(builder, x, range(start, index), self.zero[start:index]))
            parts.append(TorchLayer(index, copy.deepcopy(layer)))
            builder, start, first = Builder(self.weights, self.width), index + 1, None
            x, links = _vector(builder, 0, self.width), {}
        x = translate(record(self.model.norm, torch.randn(1, 1, self.width)), builder, x)
        return [*parts, _segment(builder, x, range(start, len(self.zero)), self.zero[start:])]

    def head(self) -> Segment | Head:
        if self.model.head.positional:
            self.fallbacks["head"] = "it depends on the position"
            return copy.deepcopy(self.model.head)
        builder = Builder(self.weights, self.width)
        x = _vector(builder, 0, self.width)
        try:
            x = translate(record(self.model.head, torch.randn(1, 1, self.width)), builder, x)
            return _segment(builder, x, range(0), [])
        except Unsupported as reason:
            self.fallbacks["head"] = str(reason)
            return copy.deepcopy(self.model.head)

    def _reasons(self) -> list[str | None]:
        """Why each layer has no native form. A link is native within one native part: where a layer on its way runs in
        PyTorch, so do those that give and take it.
        """
        reasons, before = [self._reason(layer) for layer in self.model.layers], None
        while before != reasons:
            before = list(reasons)
            for name, way, ends in self._ways():
                if any(reasons[i] for i in way):
                    for end in ends:
                        reasons[end] = reasons[end] or f"the link {name!r} passes a layer without a native form"
        return reasons

    def _ways(self) -> Iterator[tuple[str, range, tuple[int, ...]]]:
        """Every link that is taken: the layers that it passes, and those that give and take it. Where a native part
        makes the embedding, the first layer stands for who gives it.
        """
        givers: dict[str, tuple[int, ...]] = {EMBEDDING: () if self.first is None else (0,), TOKENS: ()}
        for taker, mixer in enumerate(self.model.mixers):
            for name in taken(mixer):
                giver = givers[name]
                yield name, range(giver[0] if giver else 0, taker + 1), (*giver, taker)
            givers |= dict.fromkeys(given(mixer), (taker,))

    def _reason(self, layer: Any) -> str | None:
        """Why a layer has no native form; layers of one kind are looked at once."""
        kind = repr(layer) + str(sorted((name, tuple(p.shape)) for name, p in layer.named_parameters()))
        kind += repr([getattr(part, "config", None) for part in layer.parts]) + repr(taken(layer.mixer))
        if kind not in self._checked:
            self._checked[kind] = self._try(layer)
        return self._checked[kind]

    def _try(self, layer: Any) -> str | None:
        """Record a layer in float32 and compare: two rows of three tokens, from a state and a position of their own."""
        try:
            example = self._example(layer)
            links: Links = example[2] if isinstance(layer, LinkedLayer) else {}
            widths = [self.width, *[link.shape[-1] for link in links.values()]]
            builder = Builder("f32", sum(widths))
            x, *values = [_vector(builder, sum(widths[:i]), width) for i, width in enumerate(widths)]
            out, _ = translate_linked(record(layer, *example), builder, x, dict(zip(links, values, strict=True)))
        except Unsupported as reason:
            return str(reason)

        def run(inputs: Tensor, memory: Memory, lineage: Lineage) -> tuple[Tensor, Memory]:
            x, *values = inputs.split(widths, dim=-1)
            given = [dict(zip(links, values, strict=True))] if isinstance(layer, LinkedLayer) else []
            return layer(x, memory, lineage, *given)[:2]

        segment = _segment(builder, out, range(1), [layer.mixer.init_state(1)])
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(2, 8, sum(widths), generator=generator)
        begun = Lineage.sequence(2, 5)
        _, memory = run(inputs[:, :5], layer.mixer.init_state(2), begun)
        lineage = Lineage.sequence(2, 3).at(torch.full((2,), 5))
        expected, after = run(inputs[:, 5:], memory, lineage)
        nodes = nodes_of_chain(lineage)
        held = segment.form.hold([memory])
        y, made, _ = segment.run(inputs[:, 5:].flatten(0, 1).contiguous(), held, nodes)
        pairs = [(y.view_as(expected), expected), *zip(leaves(made), leaves(after), strict=True)]
        for found, wanted in pairs:
            if found.shape != wanted.shape or not _close(found, wanted):
                return f"{type(layer.mixer).__name__} does more than its record shows"
        return None

    def _example(self, layer: Any) -> tuple[Any, ...]:
        """One token and a zero state for a layer, and the links that it takes if it is linked."""
        generator = torch.Generator().manual_seed(0)
        x, memory = torch.randn(1, 1, self.width, generator=generator), layer.mixer.init_state(1)
        if not isinstance(layer, LinkedLayer):
            return x, memory
        links = {}
        for name in (*taken(layer.mixer), *given(layer.mixer)):
            width = self._widths[name]
            if width is None:
                raise Unsupported(f"the link {name!r}, which is no vector of each token")
            links[name] = torch.randn(1, 1, width, generator=generator)
        return x, memory, {name: links[name] for name in taken(layer.mixer)}


def _vector(builder: Builder, offset: int, width: int) -> View:
    """A part of the input of a program."""
    return View("buffer", builder.input, offset, (1, 1, width), (width, width, 1))


def _segment(builder: Builder, output: View, layers: range, zero: Sequence[Memory]) -> Segment:
    spec = builder.finish(output)
    return Segment(spec, layers, builder.constants, together(builder.matrices), form_of(spec, zero))


def _close(found: Tensor, wanted: Tensor) -> bool:
    if not wanted.is_floating_point() or wanted.numel() == 0:
        return bool(torch.equal(found, wanted))
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max().clamp(min=1e-3))
