"""Packed matrices: weights laid out for products that read them once, in float32, bfloat16, 8 or 4 bits.

A row of x gives the same bits alone, in company and among the rows of a prefill: see `cpp/body_products.h`.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from runnel import native

KINDS = ("f32", "bf16", "int8", "int4")
GROUPS = {"f32": 1, "bf16": 1, "int8": 128, "int4": 64}
"""Inputs that share a scale."""
LARGE_PAGE, ALIGNMENT = 1 << 21, 64


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix (outputs, inputs). data: its panels; bytes of memory or of a mapped file, 64-byte aligned for speed."""

    kind: str
    outputs: int
    inputs: int
    data: UInt8[Tensor, "nbytes"]

    @classmethod
    def pack(cls, weight: Float32[Tensor, "O I"], kind: str) -> PackedMatrix:
        """Round to the kind and lay out."""
        if kind not in KINDS:
            raise ValueError(f"weights must be one of {', '.join(KINDS)}; got {kind!r}")
        weight = weight.detach().float().contiguous()
        outputs, inputs = weight.shape
        packed = cls(kind, outputs, inputs, torch.empty(nbytes(kind, outputs, inputs), dtype=torch.uint8))
        packed.layout.pack(weight.data_ptr(), inputs, packed.data.data_ptr(), torch.get_num_threads())
        return packed

    @property
    def layout(self) -> Any:
        return _layout(self.kind, self.outputs, self.inputs)

    def unpack(self) -> Float32[Tensor, "O I"]:
        """The numbers that the products use."""
        weight = torch.empty(self.outputs, self.inputs)
        self.layout.unpack(self.data.data_ptr(), weight.data_ptr())
        return weight

    def multiply(self, x: Float32[Tensor, "M I"], bias: Float32[Tensor, "O"] | None = None) -> Float32[Tensor, "M O"]:
        """x W^T + bias."""
        if x.dim() != 2 or x.shape[1] != self.inputs or x.dtype != torch.float32:
            raise ValueError(f"x must be (M, {self.inputs}) float32; got {tuple(x.shape)} {x.dtype}")
        x = x if x.stride(1) == 1 else x.contiguous()
        y = torch.empty(x.shape[0], self.outputs)
        at = 0 if bias is None else bias.data_ptr()
        rows, threads = x.shape[0], torch.get_num_threads()
        self.layout.multiply(
            self.data.data_ptr(), at, x.data_ptr(), x.stride(0), rows, y.data_ptr(), self.outputs, threads
        )
        return y


def together(matrices: Sequence[PackedMatrix]) -> list[PackedMatrix]:
    """The same matrices side by side in large pages, where the system has them and the matrices would fill some.

    Reading them all for every token otherwise spends much of its time looking up where small pages are.
    """
    ends = [0]
    for matrix in matrices:
        ends.append(ends[-1] + -(-matrix.data.numel() // ALIGNMENT) * ALIGNMENT)
    if ends[-1] < 4 * LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return list(matrices)
    memory = mmap.mmap(-1, ends[-1] + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    room = torch.frombuffer(memory, dtype=torch.uint8)
    room = room[-room.data_ptr() % LARGE_PAGE :]
    moved = []
    for matrix, start in zip(matrices, ends, strict=False):
        data = room[start : start + matrix.data.numel()]
        moved.append(replace(matrix, data=data.copy_(matrix.data)))
    return moved


def nbytes(kind: str, outputs: int, inputs: int) -> int:
    """Bytes of a packed matrix."""
    return _layout(kind, outputs, inputs).nbytes


def _layout(kind: str, outputs: int, inputs: int) -> Any:
    return native.kernels().Layout(KINDS.index(kind), outputs, inputs, GROUPS[kind])
