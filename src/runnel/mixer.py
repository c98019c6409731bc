"""Mixer: what every page of `mixers/` is, and the few helpers that their initialisation shares.

A mixer is written once. Its `forward(x, state, lineage) -> (y, state)` calls primitives; it has no mode flags and no
second code path: training, chunked prefill, one-token decoding, packed batches and tree verification differ only in the
Lineage. The zero state is all zeros (or empty), so that resets need no special case.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear as apply
from torch.nn.functional import rms_norm

from runnel.lineage import Lineage
from runnel.ops.newton import EVALUATIONS
from runnel.state import Memory

FORMS = ("parallel", "step", "packed", "tree")
"""Forms that a mixer may have. One that lacks a form declares fewer, and asking for it is an error."""


class Mixer(nn.Module, ABC):
    """A token mixer: `__init__(d_model, config)` with the Config of its page.

    A page may narrow `forms`, or add "prefix" (`Lineage.with_prefix`). It bumps `semantics` when the same weights would
    compute another function: old checkpoints and states are then refused instead of being silently wrong.

    variants: further Configs that the conformance suite holds to the same checks as the default one.
    normed: x is the norm of the residual stream; a page with norms of its own reads the stream itself.
    out: the projection back into the residual stream; the model scales it down with depth.
    """

    forms: ClassVar[tuple[str, ...]] = FORMS
    semantics: ClassVar[int] = 1
    variants: ClassVar[tuple[dict[str, Any], ...]] = ()
    normed: ClassVar[bool] = True
    out: nn.Linear

    @abstractmethod
    def init_state(self, batch_size: int) -> Memory:
        """The zero state of `batch_size` rows, in at least float32."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        """The outputs and the state after the last token (pending after a tree)."""

    @abstractmethod
    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The literal loop of the paper over fresh rows. Slow and obvious."""

    @property
    def pages(self) -> tuple[Mixer, ...]:
        """The mixers that are pages: this one, or those that it consists of."""
        return (self,)

    def zeros(self, *shape: int) -> Tensor:
        """State storage on the mixer's device: float32, or float64 for a float64 mixer."""
        weight = self.out.weight
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return torch.zeros(*shape, dtype=wide, device=weight.device)


class Beside(Mixer):
    """Mixers side by side: all read the same input, their outputs are added. Its state is the tuple of theirs."""

    def __init__(self, mixers: Sequence[Mixer]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(mixers)

    @property
    def pages(self) -> tuple[Mixer, ...]:
        return tuple(self.parts)  # type: ignore[arg-type]

    def init_state(self, batch_size: int) -> Memory:
        return tuple(mixer.init_state(batch_size) for mixer in self.pages)

    def forward(
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        made = [mixer(x, memory, lineage) for mixer, memory in zip(self.pages, state, strict=True)]
        return reduce(add, (y for y, _ in made)), tuple(memory for _, memory in made)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return reduce(add, (mixer.reference(x) for mixer in self.pages))


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (2019, arXiv:1910.07467) over the last axis, taken in the dtype of its weight.

    The epsilon is stated, so that the function does not depend on the dtype. offset: what the learned scale is counted
    from; Gemma's weights are differences from 1.
    """

    def __init__(self, width: int, eps: float = 1e-6, offset: float = 0.0) -> None:
        super().__init__(width, eps=eps)
        self.offset = offset
        nn.init.constant_(self.weight, 1 - offset)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        x = x.to(self.weight.dtype)
        return (
            super().forward(x) if self.offset == 0 else rms_norm(x, x.shape[-1:], self.offset + self.weight, self.eps)
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", offset={self.offset}" if self.offset else "")


def linear(d_in: int, d_out: int, bias: bool = False) -> nn.Linear:
    """A projection whose outputs have the variance of its inputs."""
    if d_in < 1 or d_out < 0:
        raise ValueError(f"a projection needs an input and no less than no outputs; got {d_in} and {d_out}")
    layer = nn.Linear(d_in, d_out, bias=bias)
    nn.init.normal_(layer.weight, std=d_in**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def matrix_of(layer: nn.Module) -> Tensor:
    """The matrix (outputs, inputs) of a projection without bias, adapters that stand in its place included."""
    if type(layer).forward is nn.Linear.forward:
        return layer.weight  # type: ignore[return-value]
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return layer(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)).mT


def parameter(value: Tensor, weight_decay: bool = False, lr_scale: float = 1.0) -> nn.Parameter:
    """A free parameter (gate bias, decay, mixing weight): by default without weight decay, never orthogonalised."""
    made = nn.Parameter(value)
    made.weight_decay, made.lr_scale = weight_decay, lr_scale  # type: ignore[attr-defined]
    return made


def parameter_groups(module: nn.Module, hidden: nn.Module) -> list[dict[str, Any]]:
    """Named parameters by treatment: {"params": [(name, parameter)], "weight_decay", "lr_scale", "matrix"}.

    matrix: projections of the part `hidden`, fit for Muon. What a page made with `parameter` says how it is treated.
    """
    projections = {id(m.weight) for m in hidden.modules() if isinstance(m, nn.Linear)}
    groups: dict[tuple[bool, float, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, p in module.named_parameters():
        matrix = id(p) in projections
        key = (getattr(p, "weight_decay", matrix), getattr(p, "lr_scale", 1.0), matrix)
        groups.setdefault(key, []).append((name, p))
    return [
        {"params": params, "weight_decay": decay, "lr_scale": scale, "matrix": matrix}
        for (decay, scale, matrix), params in groups.items()
    ]


def head_width(d_model: int, asked: int | None, target: int = 64) -> int:
    """The width of a head: `asked`, or the largest even divisor of d_model up to `target` (d_model itself if odd)."""
    if asked is not None:
        if asked < 1 or d_model % asked:
            raise ValueError(f"head_dim must divide d_model; got head_dim {asked}, d_model {d_model}")
        return asked
    fits = [width for width in range(2, min(target, d_model) + 1, 2) if d_model % width == 0]
    return max(fits, default=d_model)


def grouped_heads(
    page: str, d_model: int, heads: int | None, head_dim: int | None, kv_heads: int | None
) -> tuple[int, int, int]:
    """Numbers of query heads and of key and value heads, and the width of a head, as attention divides d_model."""
    width = head_width(d_model, head_dim) if heads is None else head_dim or d_model // heads
    heads = heads or d_model // width
    groups = kv_heads or heads
    if heads % groups or width % 2:
        raise ValueError(f"{page} needs an even head_dim and kv_heads that divide {heads}; got {width}, {groups}")
    return heads, groups, width


def log_uniform_inverse_softplus(count: int, low: float, high: float) -> Float[Tensor, "{count}"]:
    """Biases b with softplus(b) log-uniform in [low, high]: the step sizes of Mamba and its kin."""
    step = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low))
    return step + torch.log(-torch.expm1(-step))


@dataclass(frozen=True)
class CellConfig:
    """width >= 1: hidden units; None: as many as the model is wide.

    evaluation: "loop", or "newton": chains at once, by linear scans (`ops.newton`). The results are the same.
    """

    width: int | None = None
    evaluation: str = "loop"

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"a cell needs width >= 1; got {self.width}")
        if self.evaluation not in EVALUATIONS:
            raise ValueError(f"a cell needs an evaluation of {sorted(EVALUATIONS)}; got {self.evaluation!r}")


class Cell(Mixer):
    """A nonlinear cell as `torch.nn` has them: gates of one product of the input and one of the last hidden vector.

    input (gates * width, D) with its bias; recurrent (gates * width, width), orthogonal per gate at the start: nothing
    else is nonlinear between the steps, so that `unroll` fits and no scan does (but in rounds of Newton's method).
    """

    variants = ({"evaluation": "newton"},)
    gates: ClassVar[int]

    def __init__(self, d_model: int, config: CellConfig) -> None:
        super().__init__()
        self.width = config.width or d_model
        self.evaluate = EVALUATIONS[config.evaluation]
        self.input = linear(d_model, self.gates * self.width, bias=True)
        orthogonal = [nn.init.orthogonal_(torch.empty(self.width, self.width)) for _ in range(self.gates)]
        self.recurrent = parameter(torch.cat(orthogonal))
        self.out = linear(self.width, d_model)

    @abstractmethod
    def step(self, inputs: tuple[Tensor, ...], state: Any) -> tuple[Float[Tensor, "B width"], Any]:
        """The next hidden vectors and state. inputs: what `input` makes of x_t."""

    def forward(
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        h, last = self.evaluate(self.step, (self.input(x),), state, lineage)
        return self.out(h.to(x.dtype)), last

    def recalled(self, h: Float[Tensor, "B width"]) -> Float[Tensor, "B gates*width"]:
        """What the gates are given of the last hidden vector."""
        return apply(h, self.recurrent.to(h.dtype))
