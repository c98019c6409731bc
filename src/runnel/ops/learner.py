"""A learner as memory: the weights of a small network, trained by gradient descent on the text as it is read.

"Learning to (Learn at Test Time): RNNs with Expressive Hidden States" (2024, arXiv:2407.04620, eq. 2-8); with momentum
and forgetting, "Titans: Learning to Memorize at Test Time" (2024, arXiv:2501.00663, eq. 8-14):

    l(W; k, v) = |f(k; W) - v|^2 / 2                          the loss of a pair
    S_t = m_t S_p - rate_t grad l(W_base; k_t, v_t)           W_base: the weights before t's mini-batch
    W_t = keep_t W_p + S_t,   y_t = f(q_t; W_t)               p is the parent of t

f is a network of one or more layers with gelu between them; a bias is the weight of an input of one. `Learner.norm`
makes it x + layer_norm(f(x)). The gradient of a layer at one token is an outer product (input) (error)^T. So the tokens
of a mini-batch, whose errors all come from W_base, can be taken at once: outputs are masked products of inputs and
errors, no W_t but the last is made (the dual form). Where the rows of a call stand at different places of their
mini-batches, or on a tree, tokens are taken one by one (the primal form).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, pad

from runnel.lineage import Lineage
from runnel.ops.precision import full_precision
from runnel.ops.unroll import unroll
from runnel.state import Memory

Layers = tuple[Tensor, ...]
"""One (..., H, I+1, O) matrix for each layer; the last row of inputs is that of the bias."""
Apply = Callable[[int, Tensor], Tensor]
"""apply(layer, inputs (..., I+1)) -> (..., O)"""
EPSILON = 1e-6


class Trained(NamedTuple):
    """The memory: weights less the learner's initial ones, so that nothing learned yet is zero.

    base: before the mini-batch. now: after the last token. momentum: S, or nothing where there is none.
    """

    base: Layers
    now: Layers
    momentum: Layers


@dataclass(frozen=True)
class Learner:
    """initial: the weights that every document begins with, (H, I+1, O). norm: gain and bias (2, H, O), or None."""

    initial: Layers
    norm: Tensor | None = None

    def predict(self, x: Tensor, apply: Apply) -> Tensor:
        """f(x) with `apply` for the layers. x (..., H, t, I)."""
        raw, _ = self._forward(x, apply)
        if self.norm is None:
            return raw[-1]
        standard, _ = _standardise(raw[-1])
        gain, bias = self.norm.to(x.dtype)[:, :, None]
        return x + standard * gain + bias

    def gradient(self, k: Tensor, v: Tensor, weights: Layers) -> tuple[Layers, Layers]:
        """Inputs (..., t, I+1) and errors (..., t, O) of every layer: the gradients of l are their outer products."""
        raw, inputs = self._forward(k, _product(weights))
        errors = [self._error(raw[-1], k, v)]
        for layer in range(len(weights) - 1, 0, -1):
            back = errors[0] @ weights[layer][..., :-1, :].mT
            errors.insert(0, back * _gelu_slope(raw[layer - 1]))
        return inputs, tuple(errors)

    def _forward(self, x: Tensor, apply: Apply) -> tuple[Layers, Layers]:
        """What every layer gives before gelu, and what it takes."""
        raw: list[Tensor] = []
        inputs: list[Tensor] = []
        for layer in range(len(self.initial)):
            inputs.append(pad(gelu(raw[-1]) if raw else x, (0, 1), value=1.0))
            raw.append(apply(layer, inputs[-1]))
        return tuple(raw), tuple(inputs)

    def _error(self, raw: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The derivative of l by the last layer's outputs."""
        if self.norm is None:
            return raw - v
        standard, scale = _standardise(raw)
        gain, bias = self.norm.to(raw.dtype)[:, :, None]
        slope = (standard * gain + bias + k - v) * gain
        slope = slope - slope.mean(-1, keepdim=True) - standard * (slope * standard).mean(-1, keepdim=True)
        return slope / scale


def reference(
    learner: Learner,
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    rates: Float[Tensor, "B T H 3"],
    batch: int,
) -> Float[Tensor, "B T H V"]:
    """The literal loop over fresh rows: gradients by automatic differentiation, token after token."""
    now = [w.expand(q.shape[0], *w.shape) for w in learner.initial]
    momentum, base, outputs = [torch.zeros_like(w) for w in now], now, []
    for t in range(q.shape[1]):
        base = now if t % batch == 0 else base
        rate, keep, kept = rates[:, t, :, None, None].unbind(-1)
        with torch.enable_grad():
            at = [w if w.requires_grad else w.detach().requires_grad_() for w in base]
            guess = learner.predict(k[:, t, :, None], _product(at))
            loss = (guess - v[:, t, :, None]).square().sum() / 2
            slopes = torch.autograd.grad(loss, at, create_graph=True)
        momentum = [kept.exp() * s - rate * slope for s, slope in zip(momentum, slopes, strict=True)]
        now = [keep.exp() * w + s for w, s in zip(now, momentum, strict=True)]
        outputs.append(learner.predict(q[:, t, :, None], _product(now))[:, :, 0])
    return torch.stack(outputs, dim=1)


def learn(
    learner: Learner,
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    rates: Float[Tensor, "B T H 3"],
    batch: int,
    memory: Trained,
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """rates: the rate, log keep <= 0, and log m <= 0 (of no effect where the memory has no momentum).

    batch: tokens of a mini-batch. Returns the outputs and the memory after the last token (pending after a tree).
    """
    phase = lineage.positions % batch
    whole = lineage.is_plain and lineage.part is None and lineage.length > 1
    together = whole and bool((phase[:, 0] == phase[0, 0]).all())

    @full_precision
    def run(q: Tensor, k: Tensor, v: Tensor, rates: Tensor) -> tuple[Tensor, Memory]:
        wide = replace(learner, initial=tuple(w.to(q.dtype) for w in learner.initial))
        if not together:
            return unroll(lambda x, m: _step(wide, x, m), (q, k, v, rates, phase), memory, lineage)
        return _pieces(wide, [x.transpose(1, 2) for x in (q, k, v, rates)], batch, int(phase[0, 0]), memory)

    return run(q, k, v, rates)


def _product(weights: Sequence[Tensor]) -> Apply:
    """The layers with these weights for all tokens."""
    return lambda layer, x: x @ weights[layer]


def _step(learner: Learner, token: tuple[Tensor, ...], memory: Trained) -> tuple[Tensor, Trained]:
    """One token of every row: a piece of one token, whose rows may begin their mini-batch or not."""
    *tensors, phase = token
    begins = (phase == 0).reshape(-1, 1, 1, 1)
    base = tuple(torch.where(begins, now, base) for now, base in zip(memory.now, memory.base, strict=True))
    y, after = _piece(learner, [x[:, :, None] for x in tensors], memory._replace(base=base))
    return y[:, :, 0], after


def _pieces(learner: Learner, tokens: list[Tensor], batch: int, phase: int, memory: Trained) -> tuple[Tensor, Trained]:
    """Mini-batch after mini-batch, the first and the last perhaps in part. tokens: each (B, H, T, ...)."""
    outputs, start, length = [], 0, tokens[0].shape[2]
    while start < length:
        end = min(length, start + batch - phase)
        if phase == 0:
            memory = memory._replace(base=memory.now)
        y, memory = _piece(learner, [x[:, :, start:end] for x in tokens], memory)
        outputs.append(y)
        start, phase = end, 0
    return torch.cat(outputs, dim=2).transpose(1, 2), memory


def _piece(learner: Learner, tokens: list[Tensor], memory: Trained) -> tuple[Tensor, Trained]:
    """Tokens of one mini-batch at once; the memory's base is that of the mini-batch."""
    q, k, v, rates = tokens
    rate, log_keep, log_momentum = rates.unbind(-1)  # (B, H, t)
    base = tuple(w + d for w, d in zip(learner.initial, memory.base, strict=True))
    now = tuple(w + d for w, d in zip(learner.initial, memory.now, strict=True))
    inputs, errors = learner.gradient(k, v, base)
    kept, keep = _between(log_keep), log_keep.cumsum(-1).exp()[..., None]
    if memory.momentum:
        slowed, slow = _between(log_momentum), log_momentum.cumsum(-1).exp()[..., None]
        into_momentum = -slowed * rate[..., None, :]
        into_weights, from_momentum = kept @ into_momentum, kept @ slow
    else:
        into_weights = -kept * rate[..., None, :]

    def apply(layer: int, x: Tensor) -> Tensor:
        y = keep * (x @ now[layer]) + (into_weights * (x @ inputs[layer].mT)) @ errors[layer]
        return y + from_momentum * (x @ memory.momentum[layer]) if memory.momentum else y

    y = learner.predict(q, apply)
    after, momentum = [], []
    for layer, first in enumerate(learner.initial):
        written = (inputs[layer] * into_weights[..., -1, :, None]).mT @ errors[layer]
        weights = keep[..., -1:, :] * now[layer] + written
        if memory.momentum:
            weights = weights + from_momentum[..., -1:, :] * memory.momentum[layer]
            moved = (inputs[layer] * into_momentum[..., -1, :, None]).mT @ errors[layer]
            momentum.append(slow[..., -1:, :] * memory.momentum[layer] + moved)
        after.append(weights - first)
    return y, Trained(memory.base, tuple(after), tuple(momentum))


def _between(log: Tensor) -> Tensor:
    """(..., t, s): exp of the sum over the tokens after s up to t; zero where s comes after t."""
    size = log.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=log.device).tril(-1)
    sums = torch.where(later, log[..., :, None], 0).cumsum(-2)
    return sums.masked_fill(later.mT, -torch.inf).exp()


def _standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 0 and variance 1 over the last axis, and what was divided by."""
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPSILON).sqrt()
    return centred / scale, scale


def _gelu_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
