"""Building a native program: buffers, constants, matrices and operations, and where each buffer lives in the arena."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from runnel import native
from runnel.native.packed import PackedMatrix

KINDS = (
    "map", "reduce", "normalise", "product", "small_product",
    "conv", "shift", "diagonal", "selective", "outer", "delta", "dplr", "attend", "loop",
    "complex_diagonal", "lti", "log_linear", "best", "put", "channels",
)  # fmt: skip
MAPS = (
    "copy", "neg", "exp", "expm1", "log", "log1p", "sin", "cos", "erf", "floor", "sqrt", "rsqrt", "reciprocal", "abs",
    "relu", "sigmoid", "silu", "softplus", "log_sigmoid", "tanh", "elu", "gelu", "gelu_tanh", "square", "cube",
    "affine", "divide_by", "divide_into", "clamp", "power",
    "add", "mul", "div", "maximum", "minimum", "equal", "less", "less_equal", "addcmul", "lerp", "where",
    "take",
)  # fmt: skip
REDUCTIONS = ("sum", "mean", "norm", "largest")
NONE = -1
"""In place of a constant's number."""
SPACES = ("buffer", "constant", "state", "after")
STATEFUL = ("conv", "shift", "diagonal", "selective", "outer", "delta", "dplr", "attend", "loop",
            "complex_diagonal", "lti", "log_linear")  # fmt: skip
OF_ONE_NODE = ("map", "reduce", "normalise", "small_product", "best", "put")
"""Operations that look at one node; the kernels do successive ones node by node."""
BY_CHANNEL = {"conv": (0, 1), "shift": (0, 1), "diagonal": (0, 1, 2), "selective": (0, 1, 2), "lti": (0, 1)}
"""Operations that go channel by channel, and which of their operands do; the others are read whole."""


@dataclass(frozen=True)
class View:
    """Numbers of one node: `sizes` of them, `strides` apart, from `offset` in a space."""

    space: str
    index: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


@dataclass
class Operation:
    """operands[0] is written. data: numbers of constants. body: of a loop, or what is done part by part of channels."""

    kind: str
    operands: list[View]
    code: int = 0
    ints: list[int] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    body: list[Operation] = field(default_factory=list)

    @property
    def parts(self) -> list[Operation]:
        return [self, *self.body]

    def reads(self) -> set[int]:
        return {v.index for part in self.parts for v in part.operands[1:] if v.space == "buffer"}

    def writes(self) -> set[int]:
        return {v.index for part in self.parts for v in part.operands[:1] if v.space == "buffer"}


Mark = tuple[int, ...]


class Builder:
    """What a program is made of. Buffers are numbered as they are made."""

    def __init__(self, weights: str, width: int) -> None:
        self.weights = weights
        self.sizes = [width, 1]
        self.input, self.position = 0, 1
        self.operations: list[Operation] = []
        self.constants: list[Tensor] = []
        self.matrices: list[PackedMatrix] = []
        self.leaves: list[int] = []
        self.memories = 0
        self.positional = {self.position}  # buffers that hold functions of the position
        self.shared: dict[Any, View] = {}
        self._known_constants: dict[str, int] = {}

    def buffer(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def fresh(self, sizes: Sequence[int]) -> View:
        """A new buffer, contiguous."""
        return contiguous_view("buffer", self.buffer(numel(sizes)), sizes)

    def constant(self, value: Tensor) -> View:
        """A tensor that is the same for all nodes; equal small ones are kept once."""
        plain = value.detach().to(torch.float32, copy=True).contiguous()
        key = ""
        if plain.numel() <= 1 << 16:
            key = hashlib.sha256(plain.numpy().tobytes()).hexdigest() + str(tuple(plain.shape))
        index = self._known_constants.get(key) if key else None
        if index is None:
            index = len(self.constants)
            self.constants.append(plain)
            if key:
                self._known_constants[key] = index
        return View("constant", index, 0, tuple(plain.shape), tuple(plain.stride()))

    def matrix(self, weight: Tensor) -> int:
        self.matrices.append(PackedMatrix.pack(weight, self.weights))
        return len(self.matrices) - 1

    def map(self, name: str, out: View, inputs: Sequence[View], scalars: Sequence[float] = (0.0, 0.0)) -> None:
        """Numbers one by one; inputs are broadcast to the sizes of out."""
        views = collapse([out, *[broadcast(view, out.sizes) for view in inputs]])
        floats = [float(s) for s in (*scalars, 0.0, 0.0)[:2]]
        self.operations.append(Operation("map", views, MAPS.index(name), floats=floats))

    def copied(self, view: View) -> View:
        """The same numbers in a buffer of their own."""
        out = self.fresh(view.sizes)
        self.map("copy", out, [view])
        return out

    def contiguous(self, view: View) -> View:
        return view if view.space == "buffer" and view.contiguous else self.copied(view)

    def of_position(self, views: Sequence[View]) -> bool:
        """All of them constants or functions of the position."""
        return all(v.space == "constant" or (v.space == "buffer" and v.index in self.positional) for v in views)

    def cut(self, mark: Mark) -> None:
        """Forget what was added since the mark."""
        for things, count in zip(self._things, mark, strict=False):
            del things[count:]
        self.memories = mark[-1]
        self._known_constants = {k: i for k, i in self._known_constants.items() if i < len(self.constants)}
        self.shared = {k: v for k, v in self.shared.items() if v.index < len(self.sizes)}

    @property
    def mark(self) -> Mark:
        return (*[len(things) for things in self._things], self.memories)

    @property
    def _things(self) -> list[list[Any]]:
        return [self.sizes, self.operations, self.constants, self.matrices, self.leaves]

    # ---- finishing --------------------------------------------------------------------------------------------------

    def finish(self, output: View) -> Spec:
        """The program that ends with `output`."""
        whole = output.space == "buffer" and output.contiguous and self.sizes[output.index] == numel(output.sizes)
        out = output if whole else self.copied(output)
        self.operations = _by_parts(self.operations)
        layouts = [self._arena(out.index, keep) for keep in (False, True)]
        used = any(self.position in op.reads() for op in self.operations)
        return Spec(
            sizes=self.sizes,
            offsets=[offsets for offsets, _ in layouts],
            totals=[total for _, total in layouts],
            leaves=self.leaves,
            matrices=[(m.kind, m.outputs, m.inputs) for m in self.matrices],
            operations=[_encode(part) for operation in self.operations for part in operation.parts],
            input=self.input,
            output=out.index,
            position=self.position if used else NONE,
        )

    def _arena(self, output: int, keep: bool) -> tuple[list[int], int]:
        """Where each buffer begins, and how long the arena is. keep: what state operations touch is not overwritten."""
        first, last = {self.input: -1, self.position: -1}, {output: len(self.operations)}
        at = 0
        for operation, before in zip(self.operations, [None, *self.operations], strict=False):
            # operations that look at one node are done node by node, so what they touch lives through all of them
            at += not (before is not None and operation.kind in OF_ONE_NODE and before.kind in OF_ONE_NODE)
            for index in operation.reads() | operation.writes():
                first.setdefault(index, at)
                last[index] = max(at, last.get(index, -1))
        tops = [part for op in self.operations for part in (op.body if op.kind == "channels" else [op])]
        stateful = [op for op in tops if op.kind in STATEFUL]
        kept = {i for op in stateful for i in op.reads() | op.writes()} if keep else set()
        return _allocate(self.sizes, first, last, kept)


def _allocate(sizes: list[int], first: dict[int, int], last: dict[int, int], kept: set[int]) -> tuple[list[int], int]:
    """First fit over the buffers' lives; those that are kept never end."""
    offsets, total = [0] * len(sizes), 0
    living: list[tuple[int, int, int]] = []  # (offset, length, end of life)
    for index in sorted(first, key=lambda i: first[i]):
        length = -(-sizes[index] // 16) * 16
        living = sorted(block for block in living if block[2] >= first[index])
        at = 0
        for offset, taken, _ in living:
            if at + length <= offset:
                break
            at = max(at, offset + taken)
        end = 1 << 60 if index in kept else last.get(index, first[index])
        living.append((at, length, end))
        offsets[index], total = at, max(total, at + length)
    return offsets, total


@dataclass(frozen=True)
class Spec:
    """A program as numbers, fit for JSON; its constants and matrices are kept beside it."""

    sizes: list[int]
    offsets: list[list[int]]
    totals: list[int]
    leaves: list[int]
    matrices: list[tuple[str, int, int]]
    operations: list[tuple[Any, ...]]
    input: int
    output: int
    position: int

    def program(self, constants: Sequence[Tensor], matrices: Sequence[PackedMatrix]) -> Any:
        """The native program. It borrows the tensors: keep them as long as it lives."""
        operations = [
            (*operation[:5], [0 if number == NONE else constants[number].data_ptr() for number in operation[5]])
            for operation in self.operations
        ]
        return native.kernels().Program(
            self.sizes,
            self.offsets,
            self.totals,
            self.leaves,
            [constant.data_ptr() for constant in constants],
            [(matrix.layout, matrix.data.data_ptr()) for matrix in matrices],
            operations,
            self.input,
            self.output,
            self.position,
        )


def contiguous_view(space: str, index: int, sizes: Sequence[int]) -> View:
    strides: list[int] = []
    count = 1
    for size in reversed(sizes):
        strides.insert(0, count)
        count *= size
    return View(space, index, 0, tuple(sizes), tuple(strides))


def numel(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def broadcast(view: View, sizes: Sequence[int]) -> View:
    """As PyTorch does: sizes aligned at the right, those of 1 repeated."""
    missing = len(sizes) - len(view.sizes)
    own, strides = (1,) * missing + view.sizes, (0,) * missing + view.strides
    return replace(
        view, sizes=tuple(sizes), strides=tuple(0 if o == 1 else s for o, s in zip(own, strides, strict=True))
    )


def collapse(views: Sequence[View]) -> list[View]:
    """Views of one size with as few axes as possible, in the order of the first's memory."""
    sizes = views[0].sizes
    order = sorted((d for d in range(len(sizes)) if sizes[d] != 1), key=lambda d: -views[0].strides[d])
    axes: list[list[int]] = []  # size, then a stride for each view
    for d in order:
        axis = [sizes[d], *[view.strides[d] for view in views]]
        if axes and all(outer == inner * axis[0] for outer, inner in zip(axes[-1][1:], axis[1:], strict=True)):
            axes[-1] = [axes[-1][0] * axis[0], *axis[1:]]
        else:
            axes.append(axis)
    axes = axes or [[1, *[1 if i == 0 else 0 for i in range(len(views))]]]
    return [
        replace(view, sizes=tuple(axis[0] for axis in axes), strides=tuple(axis[1 + i] for axis in axes))
        for i, view in enumerate(views)
    ]


def _by_parts(operations: list[Operation]) -> list[Operation]:
    """Operations by channels with the maps around them as one, so that threads share them all at once."""
    made: list[Operation] = []
    stretch = _Stretch()
    for operation in operations:
        if not stretch.takes(operation):
            made += stretch.joined()
            stretch = _Stretch()
            if not stretch.takes(operation):
                made.append(operation)
    return made + stretch.joined()


class _Stretch:
    """Operations of which every channel reads the same channel of what another one has written, or nothing of it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.count = 0
        self.written: dict[int, int] = {}  # buffers, and where their first channel is
        self.read: dict[int, set[int]] = {}
        self.whole: set[int] = set()
        self.leaves: set[int] = set()

    def takes(self, operation: Operation) -> bool:
        """Add an operation; False where it does not fit."""
        count = _channels(operation)
        if count == 0 or (self.operations and count != self.count):
            return False
        own = BY_CHANNEL.get(operation.kind, range(len(operation.operands)))
        by_channel = [v for i, v in enumerate(operation.operands) if i in own and v.strides[-1] != 0]
        whole = {v.index for v in operation.operands if v not in by_channel and v.space == "buffer"}
        out, *read = [(v.index, v.offset) for v in by_channel if v.space == "buffer"]
        if whole & {*self.written, out[0]} or any(self.written.get(i, at) != at for i, at in [out, *read]):
            return False
        if out[0] in self.whole or self.read.get(out[0], set()) - {out[1]}:
            return False
        leaf = set(operation.ints[:1])
        if self.leaves & leaf:  # each is to see it as it was before the other
            return False
        self.leaves |= leaf
        self.operations.append(operation)
        self.count = count
        self.written[out[0]] = out[1]
        self.whole |= whole
        for index, at in read:
            self.read.setdefault(index, set()).add(at)
        return True

    def joined(self) -> list[Operation]:
        if len(self.operations) < 2 or all(op.kind == "map" for op in self.operations):
            return self.operations
        return [Operation("channels", [], ints=[len(self.operations)], body=self.operations)]


def _channels(operation: Operation) -> int:
    """How many channels an operation goes over one by one; 0 where it does not."""
    if operation.kind in BY_CHANNEL:
        return operation.ints[1]
    out = operation.operands[0] if operation.kind == "map" and operation.code != MAPS.index("take") else None
    if out is None or len(out.sizes) != 1 or any(v.space not in ("buffer", "constant") for v in operation.operands):
        return 0
    strides = [v.strides[0] for v in operation.operands]
    return out.sizes[0] if strides[0] == 1 and set(strides) <= {0, 1} else 0


def _encode(operation: Operation) -> tuple[Any, ...]:
    operands = [(SPACES.index(v.space), v.index, v.offset, list(v.sizes), list(v.strides)) for v in operation.operands]
    return KINDS.index(operation.kind), operation.code, operands, operation.ints, operation.floats, operation.data
