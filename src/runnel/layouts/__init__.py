"""Layouts: how the processes that hold slices of one sequence tell each other what came before. One page a way.

A page has an `Exchange` (see `runnel.lineage`): what primitives ask where a call is a slice of a longer one. Everything
that a process sends goes through PyTorch's collectives; `traffic` counts it.

Gradients follow the rule that holds for parameters too: every process holds the part that comes from its own slice, of
the memory before the first slice as well, and the sum over the processes is the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from runnel.ops.attend import Call, KeyValues

After = Callable[..., Tensor]
"""after(memory, *summary): the memory after a slice of which the summary is known, given the one before it."""


class Exchange(ABC):
    """Between the processes of `group`, whose ranks in it are the slices' order."""

    pieces = 1
    """How many equal ones it makes of a slice."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.index, self.count = group, dist.get_rank(group), dist.get_world_size(group)

    @abstractmethod
    def states(self, after: After, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        """The memory before this slice, and the one after the last slice."""

    @abstractmethod
    def attend(self, call: Call) -> tuple[Tensor, KeyValues]:
        """Attention of this slice's queries to the keys of all slices, and the memory after the call."""

    def whole(self, call: Call) -> Call:
        """The same call with the keys and values of all slices."""
        assert call.lineage.part is not None
        k, v = [torch.cat(list(gather(x, self.group)), dim=1) for x in (call.k, call.v)]
        return replace(call, k=k, v=v, lineage=call.lineage.part.whole)


def gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(R, ...): the tensor of every process."""
    if x.is_complex():
        return torch.view_as_complex(gather(torch.view_as_real(x), group))
    return _Gather.apply(x, group)


class _Gather(torch.autograd.Function):
    """Backward sends every process the sum of what all have learned about its tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        everyone = x.new_empty(dist.get_world_size(group), *x.shape)
        dist.all_gather(list(everyone), x.contiguous(), group)
        return everyone

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous()
        own = torch.empty_like(grad[0])
        dist.reduce_scatter(own, list(grad), group=ctx.group)
        return own, None


def fold_all(after: After, memory: Tensor, summary: tuple[Tensor, ...], exchange: Exchange) -> tuple[Tensor, Tensor]:
    """The same as `Exchange.states`, by one gather: every process folds the summaries of all."""
    before, last = prefixes(after, memory, [gather(x, exchange.group) for x in summary])
    return before[exchange.index], last


def prefixes(after: After, memory: Tensor, everyone: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(R, ...) the memory before every slice, and the one after the last. everyone: summaries, (R, ...) each."""
    before = []
    for summary in zip(*everyone, strict=True):
        before.append(memory)
        memory = after(memory, *summary)
    return torch.stack(before), memory


def pass_along(after: After, memory: Tensor, summary: tuple[Tensor, ...], exchange: Exchange) -> tuple[Tensor, Tensor]:
    """The same as `Exchange.states`, by a ring: every process waits for the memory of the one before it."""
    if memory.is_complex():
        before, last = pass_along(_on_pairs(after), torch.view_as_real(memory), summary, exchange)
        return torch.view_as_complex(before), torch.view_as_complex(last)
    return _Pass.apply(after, exchange, memory, *summary)


def _on_pairs(after: After) -> After:
    def paired(memory: Tensor, *summary: Tensor) -> Tensor:
        return torch.view_as_real(after(torch.view_as_complex(memory), *summary))

    return paired


class _Pass(torch.autograd.Function):
    """Forward along the ring, backward against it; the last process tells all the memory in the end."""

    @staticmethod
    def forward(ctx: Any, after: After, exchange: Exchange, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        before = memory if exchange.index == 0 else _receive(memory, exchange, exchange.index - 1)
        last = after(before, *summary).clone(memory_format=torch.contiguous_format)
        _send(last, exchange, exchange.index + 1)
        dist.broadcast(last, group=exchange.group, group_src=exchange.count - 1)
        ctx.after, ctx.exchange = after, exchange
        ctx.save_for_backward(before, *summary)
        return before.clone(), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        exchange, own = ctx.exchange, grad_last.contiguous().clone()
        dist.reduce(own, group_dst=exchange.count - 1, group=exchange.group)
        if exchange.index < exchange.count - 1:
            own = _receive(grad_last, exchange, exchange.index + 1)
        leaves = [x.detach().requires_grad_(x.is_floating_point() or x.is_complex()) for x in ctx.saved_tensors]
        with torch.enable_grad():
            out = ctx.after(*leaves)
        found = torch.autograd.grad(out, leaves, own, allow_unused=True)
        before = grad if found[0] is None else grad + found[0]
        _send(before.contiguous(), exchange, exchange.index - 1)
        return None, None, before if exchange.index == 0 else torch.zeros_like(before), *found[1:]


def _send(x: Tensor, exchange: Exchange, to: int) -> None:
    if 0 <= to < exchange.count:
        dist.send(x, group=exchange.group, group_dst=to)


def _receive(like: Tensor, exchange: Exchange, source: int) -> Tensor:
    x = torch.empty_like(like, memory_format=torch.contiguous_format)
    dist.recv(x, group=exchange.group, group_src=source)
    return x
