"""Recording: run a module once on one token and write down which operations make its output and its new state.

What happens inside a primitive of `runnel.ops` is not looked at; everything else is seen as PyTorch's basic operations.
A view of a tensor needs no operation: an operand is a place (which storage, where in it, which strides), so slices,
transposes, heads and splits cost nothing when the record is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from runnel.lineage import Lineage
from runnel.ops.attend import KeyValues
from runnel.ops.recording import unwatched, watched
from runnel.state import Memory, map_memory, rebuild


class Unsupported(Exception):
    """Something that has no native form; the message names it."""


@dataclass(frozen=True)
class Place:
    """Numbers of one token: where in which space. space: "buffer", "state" (a leaf before the token) or "constant".

    pairs: of complex numbers, the real part here and the imaginary one beside it.
    """

    space: str
    index: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    pairs: bool = False


@dataclass(frozen=True)
class Slot:
    """A leaf of the state as a whole, as a primitive takes it. key_values: it is a memory of attention."""

    index: int
    key_values: bool


@dataclass(frozen=True)
class Step:
    """One operation. arguments: as given, tensors as places, constants as tensors, states as slots."""

    name: str
    arguments: dict[str, Any]
    outputs: tuple[Place, ...]


@dataclass
class Record:
    """sizes: numbers of each buffer. after: for each leaf of the state None where a primitive makes it, else its place.

    leaves: an example of each leaf, one row. links: the buffers of those that it takes; gifts: those that it gives.
    """

    steps: list[Step] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    input: int = 0
    position: int = 1
    output: Place | None = None
    leaves: list[Tensor | KeyValues] = field(default_factory=list)
    after: list[Place | None] = field(default_factory=list)
    links: dict[str, int] = field(default_factory=dict)
    gifts: dict[str, Place] = field(default_factory=dict)


def leaves_of(memory: Memory) -> list[Any]:
    """The tensors of a state, in order; keys and values of attention count as one."""
    if isinstance(memory, Tensor | KeyValues):
        return [memory]
    return [leaf for child in memory for leaf in leaves_of(child)]


def with_leaves(memory: Memory, made: Sequence[Any]) -> Memory:
    """A state of the same kind with other leaves (those of `leaves_of`)."""
    rest = iter(made)

    def visit(part: Memory) -> Memory:
        return next(rest) if isinstance(part, Tensor | KeyValues) else rebuild(part, [visit(child) for child in part])

    return visit(memory)


@torch.no_grad()
def record(
    module: Callable[..., Any], x: Tensor, memory: Memory | None = None, links: Mapping[str, Tensor] | None = None
) -> Record:
    """What a module does to one token x (1, 1, D), and links (1, 1, width) of it.

    module(x, memory, lineage) -> (y, memory), module(x) -> y where no memory is given, and
    module(x, memory, lineage, links) -> (y, memory, gifts) where links are.
    """
    lineage = Lineage.sequence(1, 1)
    recorder = _Recorder(x, lineage.positions, leaves_of(memory) if memory is not None else [], links or {})
    after: Memory = ()
    gifts: Mapping[str, Tensor] = {}
    with watched(recorder.primitive), recorder:
        if memory is None:
            y = module(x)
        elif links is None:
            y, after = module(x, memory, lineage)
        else:
            y, after, gifts = module(x, memory, lineage, links)
    return recorder.finish(y, leaves_of(after), gifts)


class _Recorder(TorchDispatchMode):
    def __init__(self, x: Tensor, positions: Tensor, leaves: list[Any], links: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.record = Record(leaves=leaves)
        self.homes: dict[int, tuple[str, int]] = {}  # by storage
        self.slots: dict[int, Slot] = {}  # by id of a tensor (or KeyValues) that stands for a leaf
        self.after: dict[int, int] = {}
        self.alive: list[Any] = [x, positions, leaves]  # so that no address is used twice
        self._home(x)
        self._home(positions)
        for name, link in links.items():
            self.record.links[name] = len(self.record.sizes)
            self._home(link)
        for index, leaf in enumerate(leaves):
            self.slots[id(leaf)] = Slot(index, isinstance(leaf, KeyValues))
            if isinstance(leaf, Tensor) and leaf.numel():
                self.homes[leaf.untyped_storage().data_ptr()] = ("state", index)

    def _home(self, tensor: Tensor) -> None:
        self.homes[tensor.untyped_storage().data_ptr()] = ("buffer", len(self.record.sizes))
        numbers = tensor.untyped_storage().nbytes() // tensor.element_size()
        self.record.sizes.append(numbers * _numbers(tensor))
        self.alive.append(tensor)

    def _place(self, tensor: Tensor) -> Place | None:
        """None for a constant."""
        home = self.homes.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        if home is None:
            return None
        if tensor.is_conj():
            raise Unsupported("a conjugate that is not written out")
        each = _numbers(tensor)
        strides = tuple(each * stride for stride in tensor.stride())
        return Place(*home, each * int(tensor.storage_offset()), tuple(tensor.shape), strides, tensor.is_complex())

    def _operand(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            place = self._place(value)
            self.alive.append(value)
            return value if place is None else place
        if isinstance(value, list | tuple):
            return [self._operand(v) for v in value]
        return value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, [self._operand(a) for a in args], strict=False))}
        arguments |= {name: self._operand(value) for name, value in kwargs.items()}
        dynamic = any(isinstance(a, Place) for value in arguments.values() for a in _flat(value))
        made = func(*args, **kwargs)
        if dynamic:
            self._add(
                str(func).removeprefix("aten."),
                arguments,
                [t for t in _flat(made) if isinstance(t, Tensor)],
                func._schema.is_mutable,
            )
        return made

    def _add(self, name: str, arguments: dict[str, Any], made: list[Tensor], mutates: bool) -> None:
        fresh = [t for t in made if self._place(t) is None and t.numel()]
        if not fresh and not mutates:
            return  # views
        for tensor in fresh:
            if self._place(tensor) is None:
                self._home(tensor)
        places = [self._place(t) for t in made]
        if any(p is None for p in places):
            raise Unsupported(f"{name} of nothing")
        self.record.steps.append(Step(name, arguments, tuple(p for p in places if p is not None)))

    def primitive(self, name: str, call: Callable[[], Any], arguments: dict[str, Any]) -> Any:
        del arguments["lineage"]
        operands = {}
        for key, value in arguments.items():
            slot = self.slots.get(id(value))
            operands[key] = slot if slot is not None else self._operand(value)
        with unwatched(), _disable_current_modes():
            y, memory = call()
            y, memory = y.clone(), map_memory(torch.clone, memory)
        operands = {key: self._whole_leaf(operand) for key, operand in operands.items()}
        taken = [operand for operand in operands.values() if isinstance(operand, Slot)]
        if len(taken) != 1:
            raise Unsupported(f"{name} of a state that is not a leaf of the model's")
        if not any(isinstance(a, Place) for value in operands.values() for a in _flat(value)):
            raise Unsupported(f"{name} of constants")
        self.after[id(memory)] = taken[0].index
        self.alive.append(memory)
        self._home(y)
        place = self._place(y)
        assert place is not None
        self.record.steps.append(Step(name, operands, (place,)))
        return y, memory

    def _whole_leaf(self, operand: Any) -> Any:
        """A leaf in another shape is that leaf."""
        if not isinstance(operand, Place) or operand.space != "state" or operand.offset or operand.pairs:
            return operand
        count = 1
        for size, stride in zip(reversed(operand.sizes), reversed(operand.strides), strict=True):
            if size != 1 and stride != count:
                return operand
            count *= size
        leaf = self.record.leaves[operand.index]
        return Slot(operand.index, False) if isinstance(leaf, Tensor) and count == leaf.numel() else operand

    def finish(self, y: Tensor, after: list[Any], gifts: Mapping[str, Tensor]) -> Record:
        self.record.output = self._place(y)
        if self.record.output is None:
            raise Unsupported("an output that does not depend on the input")
        for index, leaf in enumerate(after):
            if id(leaf) in self.after:
                if self.after[id(leaf)] != index:
                    raise Unsupported("leaves of a state that change places")
                self.record.after.append(None)
                continue
            place = self._place(leaf) if isinstance(leaf, Tensor) else None
            if place is None:
                raise Unsupported("a state that no operation makes")
            self.record.after.append(place)
        for name, gift in gifts.items():
            place = self._place(gift)
            if place is None:
                raise Unsupported(f"a link {name!r} that does not depend on the input")
            self.record.gifts[name] = place
        return self.record


def _numbers(tensor: Tensor) -> int:
    """Real numbers of an element."""
    return 2 if tensor.is_complex() else 1


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for child in value for leaf in _flat(child)]
    return [value]
