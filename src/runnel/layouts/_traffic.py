"""What this process hands to PyTorch's collectives, counted where they pass the dispatcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SENT = {
    "allgather_": 1,
    "_allgather_base_": 1,
    "reduce_scatter_": 1,
    "_reduce_scatter_base_": 1,
    "alltoall_base_": 1,
    "send": 0,
    "allreduce_": 0,
    "broadcast_": 0,
    "reduce_": 0,
}
"""Collectives, and which of their arguments holds what this process sends."""


class Traffic(TorchDispatchMode):
    """`with Traffic() as traffic`: bytes by collective. The hook is PyTorch's own: nothing is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if op.namespace == "c10d" and (name := op.overloadpacket.__name__) in SENT:
            self.bytes[name] += sum(t.numel() * t.element_size() for t in _tensors(args[SENT[name]]))
        return op(*args, **(kwargs or {}))


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for child in tree for tensor in _tensors(child)]
