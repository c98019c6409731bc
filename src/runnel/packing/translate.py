"""Translation of a record into native operations. What is not here has no native form: `Unsupported` names it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runnel.packing.builder import (
    MAPS,
    NONE,
    REDUCTIONS,
    STATEFUL,
    Builder,
    Operation,
    View,
    broadcast,
    collapse,
    contiguous_view,
    numel,
)
from runnel.packing.record import Place, Record, Slot, Step, Unsupported

UNARY = {
    "neg", "exp", "expm1", "log", "log1p", "sin", "cos", "erf", "floor", "sqrt", "rsqrt", "reciprocal", "abs", "relu",
    "sigmoid", "silu", "tanh", "square",
}  # fmt: skip
COPIES = ("clone.default", "_to_copy.default", "copy_.default", "contiguous.default", "alias_copy.default")
FILLS = {"zeros_like": 0.0, "new_zeros": 0.0, "ones_like": 1.0, "new_ones": 1.0}
PART_BY_PART = ("add", "sub", "neg", "mul", "div", "where", "cat", "stack", "index_select", "zeros_like")
"""What is done to the real and the imaginary part alike."""
POWERS = {2: "square", 3: "cube", 1: "copy", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
STEPS = {
    "outer_scan": ("q", "k", "v", "log_decay"),
    "delta_scan": ("q", "k", "v", "beta", "log_decay"),
    "dplr_scan": ("q", "k", "v", "read", "erase", "log_decay"),
}
"""Operands of a step of a state with a matrix for every head."""
COMPARISONS = {"eq": ("equal", False), "lt": ("less", False), "gt": ("less", True), "le": ("less_equal", False),
               "ge": ("less_equal", True)}  # fmt: skip


def translate(record: Record, builder: Builder, x: View) -> View:
    """Append a record without links to a program; see `translate_linked`. Returns the place of its output."""
    return translate_linked(record, builder, x, {})[0]


def translate_linked(
    record: Record, builder: Builder, x: View, links: Mapping[str, View]
) -> tuple[View, dict[str, View]]:
    """Append a record to a program, its input being `x`. Returns the place of its output and of the links it gives.

    links: contiguous, those that it takes among them. The builder is left as it was when something is not supported.
    """
    mark = builder.mark
    try:
        return _Translation(record, builder, x, links).run()
    except Unsupported:
        builder.cut(mark)
        raise


class _Translation:
    def __init__(self, record: Record, builder: Builder, x: View, links: Mapping[str, View]) -> None:
        self.record, self.builder = record, builder
        self.views: dict[int, View] = {}  # of the record's buffers, whole
        self.written: set[int] = set()
        self.states: list[int] = []  # of the record's leaves: the program's leaf, or the number of an attention memory
        self._take(record.input, x)
        self._take(record.position, View("buffer", builder.position, 0, (1,), (1,)))
        for name, index in record.links.items():
            self._take(index, links[name])

    def run(self) -> tuple[View, dict[str, View]]:
        for leaf, after in zip(self.record.leaves, self.record.after, strict=True):
            if isinstance(leaf, Tensor):
                self.states.append(len(self.builder.leaves))
                self.builder.leaves.append(leaf.numel())
            else:
                assert after is None
                self.states.append(self.builder.memories)
                self.builder.memories += 1
        start = len(self.builder.operations)
        for step in self.record.steps:
            self._step(step)
        output = self.record.output
        assert output is not None
        out = self.view(output)
        gifts = {name: self.builder.contiguous(self.view(place)) for name, place in self.record.gifts.items()}
        self._make_loop(start)
        return out, gifts

    # ---- places -----------------------------------------------------------------------------------------------------

    def _take(self, index: int, view: View) -> None:
        self.views[index] = view
        self.written.add(index)

    def view(self, value: Any) -> View:
        """A place, tensor or number as an operand."""
        if isinstance(value, bool | int | float):
            return self.builder.constant(torch.tensor(float(value)))
        if isinstance(value, Tensor):
            if value.is_complex():
                raise Unsupported("complex numbers in an operation of real ones")
            return self.builder.constant(value)
        assert isinstance(value, Place), value
        if value.pairs:
            raise Unsupported("complex numbers in an operation of real ones")
        if value.space == "state":
            return View("state", self.states[value.index], value.offset, value.sizes, value.strides)
        if value.index not in self.written:
            raise Unsupported("a second result")
        whole = self.views[value.index]
        return View(whole.space, whole.index, whole.offset + value.offset, value.sizes, value.strides)

    def out(self, place: Place) -> View:
        """Where an operation writes: a new buffer when it is the first to write there."""
        if place.space == "state":
            raise Unsupported("a state that is changed in place")
        if place.index not in self.written:
            size = self.record.sizes[place.index]
            self._take(place.index, View("buffer", self.builder.buffer(size), 0, (size,), (1,)))
        return self.view(place)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        primitive = getattr(self, f"_{step.name}", None) if "." not in step.name else None
        if primitive is not None:
            primitive(self.out(_as_numbers(step.outputs[0])), step.arguments)
        elif step.outputs[0].pairs:
            self._complex(step)
        elif not self._map(step) and not self._move(step) and not self._sum(step) and not self._product(step):
            raise Unsupported(step.name)

    def _complex(self, step: Step) -> None:
        """Operations that make complex numbers, by their parts."""
        name, a, out = step.name.split(".")[0].rstrip("_"), step.arguments, step.outputs[0]
        if name in ("complex", "polar"):
            parts = [self.out(part) for part in _parts(out)]
            first, second = [self.view(a[key]) for key in (("real", "imag") if name == "complex" else ("abs", "angle"))]
            for part, direction, value in zip(parts, ("cos", "sin"), (first, second), strict=True):
                if name == "complex":
                    self.builder.map("copy", part, [value])
                else:
                    turn = self.builder.fresh(second.sizes)
                    self.builder.map(direction, turn, [second])
                    self.builder.map("mul", part, [first, turn])
        elif name == "mul" and all(_is_complex(a[key]) for key in ("self", "other")):
            x, y = [[self.view(part) for part in _parts(a[key])] for key in ("self", "other")]
            made = [self.builder.fresh(out.sizes) for _ in range(4)]
            for product, left, right in zip(made, (x[0], x[1], x[0], x[1]), (y[0], y[1], y[1], y[0]), strict=True):
                self.builder.map("mul", product, [left, right])
            for part, left, right, sign in zip(_parts(out), made[::2], made[1::2], (-1.0, 1.0), strict=True):
                self.builder.map("add", self.out(part), [left, right], [sign])
        elif step.name in COPIES or name in PART_BY_PART:
            real, imaginary = _part_of(a, 0), _part_of(a, 1)
            if name not in ("mul", "div"):  # a real number has no imaginary part
                imaginary |= {key: 0.0 for key in ("self", "other", "src") if key in a and not _is_complex(a[key])}
            for part, arguments in zip(_parts(out), (real, imaginary), strict=True):
                self._step(Step(step.name, arguments, (part,)))
        else:
            raise Unsupported(f"{step.name} of complex numbers")

    def _map(self, step: Step) -> bool:
        name, a = step.name.split(".")[0].rstrip("_"), step.arguments
        made = _maps(name, a)
        if made is None:
            return False
        code, operands, scalars = made
        inputs = [self.view(operand) for operand in operands]
        place = step.outputs[0]
        shared = place.index not in self.written and self.builder.of_position(inputs)
        key = (code, tuple(inputs), tuple(scalars), place.sizes, place.strides)
        if shared and key in self.builder.shared:  # angles of rotary positions are the same in all layers
            self._take(place.index, self.builder.shared[key])
            return True
        out = self.out(place)
        self.builder.map(code, out, inputs, scalars)
        if shared:
            self.builder.shared[key] = self.views[place.index]
            self.builder.positional.add(out.index)
        return True

    def _move(self, step: Step) -> bool:
        name, a = step.name.split(".")[0], step.arguments
        if step.name in COPIES:
            source = a["src"] if "src" in a else a["self"]
            self.builder.map("copy", self.out(step.outputs[0]), [self.view(source)])
        elif name in FILLS:
            self.builder.map("copy", self.out(step.outputs[0]), [self.view(FILLS[name])])
        elif name in ("cat", "stack"):
            self._join(
                self.out(step.outputs[0]), [self.view(t) for t in a["tensors"]], a.get("dim", 0), name == "stack"
            )
        elif name == "constant_pad_nd":
            out, source = self.out(step.outputs[0]), self.view(a["self"])
            self.builder.map("copy", out, [self.view(a.get("value", 0.0))])
            pads = a["pad"]
            offset, sizes = out.offset, list(out.sizes)
            for i in range(len(pads) // 2):
                d = len(sizes) - 1 - i
                offset += pads[2 * i] * out.strides[d]
                sizes[d] = source.sizes[d]
            if min(pads) < 0:
                raise Unsupported("padding that cuts")
            self.builder.map("copy", View(out.space, out.index, offset, tuple(sizes), out.strides), [source])
        elif name == "logaddexp":
            self._log_add_exp(self.out(step.outputs[0]), self.view(a["self"]), self.view(a["other"]))
        elif name == "full_like":
            self.builder.map("copy", self.out(step.outputs[0]), [self.view(a["fill_value"])])
        elif name == "topk":
            self._best(step)
        elif name == "gather":
            self._gather(self.out(step.outputs[0]), self.view(a["self"]), a["dim"], self.view(a["index"]))
        elif name == "scatter" and "src" in a and "reduce" not in a:
            self._put(self.out(step.outputs[0]), a)
        elif name in ("index", "index_select"):
            self._index(self.out(step.outputs[0]), self.view(a["self"]), a)
        else:
            return False
        return True

    def _index(self, out: View, x: View, a: dict[str, Any]) -> None:
        """Numbers along one axis by constant places."""
        if "indices" in a:
            given = [(d, index) for d, index in enumerate(a["indices"]) if index is not None]
        else:
            given = [(a["dim"] % len(x.sizes), a["index"])]
        if len(given) != 1 or not isinstance(given[0][1], Tensor) or given[0][1].dim() != 1:
            raise Unsupported("an index that depends on the token, or several")
        (d, index), after = given[0], len(x.sizes) - given[0][0] - 1
        places = self.builder.constant(index % x.sizes[d])
        places = replace(places, sizes=(*places.sizes, *(1,) * after), strides=(*places.strides, *(0,) * after))
        source = replace(x, sizes=out.sizes, strides=(*x.strides[:d], 0, *x.strides[d + 1 :]))
        self.builder.map("take", out, [source, places], [float(x.strides[d])])

    def _log_add_exp(self, out: View, x: View, y: View) -> None:
        """max(x, y) + softplus(-|x - y|)"""
        apart, larger = self.builder.fresh(out.sizes), self.builder.fresh(out.sizes)
        self.builder.map("add", apart, [x, y], [-1.0])
        for name in ("abs", "neg", "softplus"):
            self.builder.map(name, apart, [apart])
        self.builder.map("maximum", larger, [x, y])
        self.builder.map("add", out, [larger, apart], [1.0])

    def _best(self, step: Step) -> None:
        """The largest along the last axis, and their places."""
        a, x = step.arguments, self.view(step.arguments["self"])
        if a.get("dim", -1) % len(x.sizes) != len(x.sizes) - 1 or not a.get("largest", True):
            raise Unsupported("the smallest, or along another axis than the last")
        values, places = [self.out(output) for output in step.outputs]
        self.builder.operations.append(Operation("best", [places, x], ints=[x.sizes[-1]]))
        self._gather(values, x, -1, places)

    def _gather(self, out: View, x: View, dim: int, places: View) -> None:
        d = dim % len(x.sizes)
        source = replace(x, sizes=out.sizes, strides=(*x.strides[:d], 0, *x.strides[d + 1 :]))
        self.builder.map("take", out, [source, places], [float(x.strides[d])])

    def _put(self, out: View, a: dict[str, Any]) -> None:
        """Numbers at places along the last axis, in a copy."""
        if a["dim"] % len(out.sizes) != len(out.sizes) - 1:
            raise Unsupported("a scatter along another axis than the last")
        self.builder.map("copy", out, [self.view(a["self"])])
        places = self.view(a["index"])
        source = self.view(a["src"])
        self.builder.operations.append(Operation("put", [out, places, source], ints=[places.sizes[-1]]))

    def _join(self, out: View, parts: list[View], dim: int, new_axis: bool) -> None:
        dim %= len(out.sizes)
        at = out.offset
        for part in parts:
            if new_axis:
                part = View(part.space, part.index, part.offset, (*part.sizes[:dim], 1, *part.sizes[dim:]),
                            (*part.strides[:dim], 0, *part.strides[dim:]))  # fmt: skip
            if len(part.sizes) != len(out.sizes):  # PyTorch lets an empty vector join anything
                continue
            if numel(part.sizes):
                self.builder.map("copy", View(out.space, out.index, at, part.sizes, out.strides), [part])
            at += part.sizes[dim] * out.strides[dim]

    def _sum(self, step: Step) -> bool:
        name, a = step.name.split(".")[0], step.arguments
        if name in ("sum", "mean", "amax", "linalg_vector_norm"):
            if name == "linalg_vector_norm" and a.get("ord", 2) != 2:
                self._norm(self.out(step.outputs[0]), self.view(a["self"]), float(a["ord"]), a.get("dim"))
                return True
            code = {"amax": "largest", "linalg_vector_norm": "norm"}.get(name, name)
            self._reduce(code, self.out(step.outputs[0]), self.view(a["self"]), a.get("dim"))
        elif name == "_softmax":
            self._softmax(self.out(step.outputs[0]), self.view(a["self"]), a["dim"])
        elif name in ("native_group_norm", "native_layer_norm"):
            x = self.builder.contiguous(self.view(a["input"]))
            if name == "native_group_norm":
                if a["HxW"] != 1 or a["N"] != 1:
                    raise Unsupported("a group norm over more than channels")
                groups = a["group"]
            else:
                if numel(a["normalized_shape"]) != x.sizes[-1]:
                    raise Unsupported("a layer norm over several axes")
                groups = numel(x.sizes) // x.sizes[-1]
            self._normalise(self.out(step.outputs[0]), x, groups, a, name == "native_layer_norm")
        else:
            return False
        return True

    def _reduce(self, code: str, out: View, x: View, dims: Any) -> None:
        axes = {d % len(x.sizes) for d in (dims if isinstance(dims, list) else range(len(x.sizes)))}
        taken = [d for d in sorted(axes) if x.sizes[d] != 1]
        count, stride = 1, 1
        for d in reversed(taken):
            if count != 1 and x.strides[d] != stride * count:
                return self._reduce(code, out, self.builder.copied(_last(x, axes)), list(range(-len(axes), 0)))
            stride, count = (x.strides[d], x.sizes[d]) if count == 1 else (stride, count * x.sizes[d])
        left = [d for d in range(len(x.sizes)) if d not in axes and x.sizes[d] != 1]
        kept_out = [d for d in range(len(out.sizes)) if out.sizes[d] != 1]
        sizes = tuple(x.sizes[d] for d in left) or (1,)
        views = [
            View(out.space, out.index, out.offset, sizes, tuple(out.strides[d] for d in kept_out) or (0,)),
            View(x.space, x.index, x.offset, sizes, tuple(x.strides[d] for d in left) or (0,)),
        ]
        self.builder.operations.append(Operation("reduce", views, REDUCTIONS.index(code), [count, stride]))
        return None

    def _norm(self, out: View, x: View, order: float, dims: Any) -> None:
        if not 0 < order < math.inf:
            raise Unsupported(f"a norm of order {order}")
        powers = self.builder.fresh(x.sizes)
        self.builder.map("abs", powers, [x])
        self.builder.map("power", powers, [powers], [order])
        total = self.builder.fresh(out.sizes)
        self._reduce("sum", total, powers, dims)
        self.builder.map("power", out, [total], [1 / order])

    def _softmax(self, out: View, x: View, dim: int) -> None:
        kept = tuple(1 if d == dim % len(x.sizes) else size for d, size in enumerate(x.sizes))
        top, total, shifted = self.builder.fresh(kept), self.builder.fresh(kept), self.builder.fresh(x.sizes)
        self._reduce("largest", top, x, [dim])
        self.builder.map("add", shifted, [x, top], [-1.0])
        self.builder.map("exp", shifted, [shifted])
        self._reduce("sum", total, shifted, [dim])
        self.builder.map("div", out, [shifted, total])

    def _normalise(self, out: View, x: View, groups: int, a: dict[str, Any], repeat: bool) -> None:
        """repeat: weight and bias are the same for all groups."""
        count = numel(x.sizes) // groups
        data: list[int] = []
        for name in ("weight", "bias"):
            value = a.get(name)
            if isinstance(value, Place):
                raise Unsupported("a norm whose weight depends on the token")
            data.append(NONE if value is None else self._held(value.reshape(-1).repeat(groups if repeat else 1)))
        views = [View(v.space, v.index, v.offset, (groups,), (count,)) for v in (out, x)]
        self.builder.operations.append(
            Operation(
                "normalise", views, ints=[count], floats=[float(a.get("eps") or a.get("epsilon") or 0.0)], data=data
            )
        )

    def _product(self, step: Step) -> bool:
        name, a = step.name.split(".")[0], step.arguments
        bias = None
        if name == "addmm":
            if a.get("beta", 1) != 1 or a.get("alpha", 1) != 1:
                raise Unsupported("addmm with factors")
            bias, left, right = a["self"], a["mat1"], a["mat2"]
        elif name in ("mm", "bmm"):
            left, right = a["self"], a["mat2"]
        else:
            return False
        if isinstance(right, Tensor) and isinstance(left, Place) and left.sizes[0] == 1 and name != "bmm":
            if isinstance(bias, Place):
                raise Unsupported("a bias that depends on the token")
            self._matrix_product(step, left, right, bias)
            return True
        out = self.out(step.outputs[0])
        x, y = self.view(left), self.view(right)
        three = [v if len(v.sizes) == 3 else View(v.space, v.index, v.offset, (1, *v.sizes), (0, *v.strides))
                 for v in (out, x, y)]  # fmt: skip
        self.builder.operations.append(Operation("small_product", three, ints=[three[1].sizes[2]]))
        if bias is not None:
            self.builder.map("add", out, [out, self.view(bias)], [1.0])
        return True

    def _matrix_product(self, step: Step, left: Place, right: Tensor, bias: Tensor | None) -> None:
        x = self.view(left)
        x = x if x.space == "buffer" and x.strides[1] == 1 else self.builder.copied(x)
        data = [NONE if bias is None else self._held(bias.expand(right.shape[1]))]
        out = self.out(step.outputs[0])
        self.builder.operations.append(Operation("product", [out, x], ints=[self.builder.matrix(right.T)], data=data))

    def _held(self, value: Tensor) -> int:
        """The number of a constant."""
        return self.builder.constant(value).index

    # ---- primitives -------------------------------------------------------------------------------------------------

    def _leaf(self, slot: Any) -> int:
        assert isinstance(slot, Slot)
        return self.states[slot.index]

    def _vector(self, value: Any, sizes: tuple[int, ...]) -> View:
        """A contiguous buffer of the given sizes (leading axes of 1 dropped)."""
        return self.builder.contiguous(broadcast(self.view(value), sizes))

    def _add(self, kind: str, operands: list[View], ints: list[int], data: list[int] | None = None) -> None:
        self.builder.operations.append(Operation(kind, operands, ints=ints, data=data or []))

    def _causal_conv(self, out: View, a: dict[str, Any]) -> None:
        weight, bias = a["weight"], a["bias"]
        if not isinstance(weight, Tensor) or isinstance(bias, Place):
            raise Unsupported("a convolution whose filter depends on the token")
        channels, width = weight.shape
        data = [self._held(weight.T), NONE if bias is None else self._held(bias)]
        x = self._vector(a["x"], out.sizes)
        self._add("conv", [out, x], [self._leaf(a["tail"]), channels, width], data)

    def _shift(self, out: View, a: dict[str, Any]) -> None:
        self._add("shift", [out, self._vector(a["x"], out.sizes)], [self._leaf(a["tail"]), out.sizes[-1]])

    def _diagonal_scan(self, out: View, a: dict[str, Any]) -> None:
        operands = [self._vector(a[name], out.sizes) for name in ("a", "b")]
        self._add("diagonal", [out, *operands], [self._leaf(a["memory"]), numel(out.sizes)])

    def _complex_scan(self, out: View, a: dict[str, Any]) -> None:
        operands = [self._pairs(a[name], out.sizes) for name in ("a", "b")]
        self._add("complex_diagonal", [out, *operands], [self._leaf(a["memory"]), numel(out.sizes)])

    def _pairs(self, value: Any, sizes: tuple[int, ...]) -> View:
        """Complex numbers, contiguous; sizes end in 2."""
        if isinstance(value, Tensor):
            return self._vector(torch.view_as_real(value.resolve_conj()), sizes)
        return self.builder.contiguous(broadcast(self.view(_as_numbers(value)), sizes))

    def _lti_scan(self, out: View, a: dict[str, Any]) -> None:
        if not isinstance(a["log_a"], Tensor) or not isinstance(a["c"], Tensor):
            raise Unsupported("a time-invariant system that depends on the token")
        keep, read = torch.broadcast_tensors(a["log_a"].exp(), a["c"])
        held = [NONE, NONE, NONE]
        if keep.is_complex():
            held[1] = self._held(torch.stack([-keep.imag, keep.imag], dim=-1))
            keep, read = torch.stack([keep.real] * 2, dim=-1), torch.view_as_real(read.conj().resolve_conj())
        held[0], held[2] = self._held(keep), self._held(read)
        channels = out.sizes[-1]
        x = self._vector(a["u"], out.sizes)
        self._add("lti", [out, x], [self._leaf(a["memory"]), channels, keep.numel() // channels], held)

    def _selective_scan(self, out: View, a: dict[str, Any]) -> None:
        if not isinstance(a["a"], Tensor):
            raise Unsupported("a selective scan whose A depends on the token")
        channels, n = a["a"].shape
        operands = [self._vector(a[name], (1, 1, channels)) for name in ("x", "dt")]
        operands += [self._vector(a[name], (1, 1, n)) for name in ("b", "c")]
        self._add("selective", [out, *operands], [self._leaf(a["memory"]), channels, n], [self._held(a["a"])])

    def _heads(self, value: Any, *sizes: int) -> View:
        """[heads, width], or with an axis of steps before, the numbers of a head next to each other."""
        view = self.view(value)
        if len(view.sizes) == 1 + len(sizes):  # one number a head
            view = replace(view, sizes=(*view.sizes, 1), strides=(*view.strides, 1))
        view = broadcast(replace(view, sizes=view.sizes[2:], strides=view.strides[2:]), sizes)
        return (
            view if view.space == "buffer" and (sizes[-1] == 1 or view.strides[-1] == 1) else self.builder.copied(view)
        )

    def _matrix_state(self, kind: str, out: View, a: dict[str, Any], names: tuple[str, ...], steps: int = 1) -> None:
        """A state with a matrix for every head. names: of the operands of a step, the decay being the last."""
        heads, values = out.sizes[2:]
        stepped = (steps,) if steps > 1 else ()
        width = self._width(a["q"])
        if width > 1024:
            raise Unsupported("more than 1024 keys a head")
        given = {
            **a,
            "log_decay": torch.zeros(1, 1, *[1] * len(stepped), 1) if a["log_decay"] is None else a["log_decay"],
        }
        decay = self.view(given["log_decay"])
        decays = decay.sizes[-1] if len(decay.sizes) == 4 + len(stepped) else 1
        widths = {"v": values, "beta": 1, "log_decay": decays}
        operands = [self._heads(given[name], *stepped, heads, widths.get(name, width)) for name in names]
        if not stepped:
            operands = [replace(v, sizes=(1, *v.sizes), strides=(0, *v.strides)) for v in operands]
        out = replace(out, sizes=out.sizes[1:], strides=out.strides[1:])
        self._add(kind, [out, *operands], [self._leaf(a["memory"]), heads, width, values, decays, steps])

    def _width(self, value: Any) -> int:
        return self.view(value).sizes[-1]

    def _outer_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("outer", out, a, STEPS["outer_scan"])

    def _delta_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("delta", out, a, STEPS["delta_scan"])

    def _dplr_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("dplr", out, a, STEPS["dplr_scan"])

    def _substeps(self, out: View, a: dict[str, Any]) -> None:
        name = a["scan"].__name__
        if name not in STEPS:
            raise Unsupported(f"substeps of {name}")
        steps = self.view(a["tokens"][0]).sizes[2]
        given = dict(zip(inspect.signature(a["scan"]).parameters, a["tokens"], strict=False))
        self._matrix_state(name.removesuffix("_scan"), out, {**a, "log_decay": None, **given}, STEPS[name], steps)

    def _log_linear_scan(self, out: View, a: dict[str, Any]) -> None:
        heads, values = out.sizes[2:]
        width, levels = self._width(a["q"]), self._width(a["scales"])
        widths = {"q": width, "k": width, "v": values, "scales": levels, "log_decay": 1}
        operands = [self._heads(a[name], heads, size) for name, size in widths.items()]
        operands = [replace(v, sizes=(1, *v.sizes), strides=(0, *v.strides)) for v in operands]
        out = replace(out, sizes=out.sizes[1:], strides=out.strides[1:])
        self._add("log_linear", [out, *operands], [self._leaf(a["memory"]), heads, width, values, 1, levels - 1])

    def _attend(self, out: View, a: dict[str, Any]) -> None:
        heads, values = out.sizes[2:]
        groups, width = self.view(a["k"]).sizes[2:]
        operands = [
            self._heads(a["q"], heads, width),
            self._heads(a["k"], groups, width),
            self._heads(a["v"], groups, values),
        ]
        window = -1 if a["window"] is None else a["window"]
        out = View(out.space, out.index, out.offset, out.sizes[2:], out.strides[2:])
        ints = [self._leaf(a["memory"]), groups, width, window, a["sinks"], values]
        floats = [1 / math.sqrt(width), a["cap"] or 0.0]
        self.builder.operations.append(Operation("attend", [out, *operands], ints=ints, floats=floats))

    # ---- states that no primitive keeps -----------------------------------------------------------------------------

    def _make_loop(self, start: int) -> None:
        """What depends on a state and makes the next one runs node after node."""
        places = [(i, after) for i, after in enumerate(self.record.after) if after is not None]
        if not places:
            return
        operations, self.builder.operations[start:] = self.builder.operations[start:], []
        saves = [self._save(self.states[i], place) for i, place in places]
        operations += self.builder.operations[start:]
        del self.builder.operations[start:]
        before, body, after = _split(operations, saves)
        if any(op.kind in STATEFUL for op in body):
            raise Unsupported("a primitive between a state and the next")
        count = len(body) + len(saves)
        loop = Operation("loop", [], ints=[count], body=[*body, *saves])
        self.builder.operations += [*before, loop, *after]

    def _save(self, leaf: int, place: Place) -> Operation:
        """Write a leaf, last of all; what is a part of a state is copied to a buffer before any leaf is written."""
        view = self.view(place)
        view = self.builder.copied(view) if view.space == "state" else view
        target = contiguous_view("after", leaf, view.sizes)
        return Operation("map", collapse([target, view]), MAPS.index("copy"), floats=[0.0, 0.0])


def _split(
    operations: list[Operation], saves: list[Operation]
) -> tuple[list[Operation], list[Operation], list[Operation]]:
    """Operations before the loop (they depend on no state), in it (a state depends on them), and after it."""
    dependent: set[int] = set()
    depends = []
    for op in operations:
        reads_state = any(v.space == "state" for v in op.operands[1:])
        depends.append(reads_state or bool(op.reads() & dependent))
        if depends[-1]:
            dependent |= op.writes()
    needed = {index for save in saves for index in save.reads()}
    inside = [False] * len(operations)
    for i in reversed(range(len(operations))):
        op = operations[i]
        reads_state = any(v.space == "state" for v in op.operands[1:])
        if depends[i] and (reads_state or op.writes() & needed):
            inside[i] = True
            needed |= op.reads()
    before = [op for op, d in zip(operations, depends, strict=True) if not d]
    body = [op for op, i in zip(operations, inside, strict=True) if i]
    after = [op for op, d, i in zip(operations, depends, inside, strict=True) if d and not i]
    return before, body, after


def _maps(name: str, a: dict[str, Any]) -> tuple[str, list[Any], list[float]] | None:
    """(map, operands, scalars) of an operation that is done number by number; None for others."""
    one = [a.get("self")]
    if name in UNARY:
        return name, one, []
    if name in ("add", "sub", "rsub"):
        factor, other = float(a.get("alpha", 1)), a["other"]
        if name == "rsub":
            return ("affine", one, [-factor, other]) if _is_number(other) else ("add", [other, *one], [-factor])
        factor = -factor if name == "sub" else factor
        return ("affine", one, [1.0, factor * other]) if _is_number(other) else ("add", [*one, other], [factor])
    if name == "mul":
        return ("affine", one, [a["other"], 0.0]) if _is_number(a["other"]) else ("mul", [*one, a["other"]], [])
    if name == "div" and a.get("rounding_mode") is None:
        return ("divide_by", one, [a["other"]]) if _is_number(a["other"]) else ("div", [*one, a["other"]], [])
    if name == "pow" and "exponent" in a and _is_number(a["exponent"]) and not _is_number(a["self"]):
        return (POWERS[a["exponent"]], one, []) if a["exponent"] in POWERS else ("power", one, [a["exponent"]])
    if name == "softplus" and a.get("beta", 1) == 1:
        return "softplus", one, []
    if name == "log_sigmoid_forward":
        return "log_sigmoid", one, []
    if name == "elu" and a.get("input_scale", 1) == 1:
        return "elu", one, [a.get("scale", 1), a.get("scale", 1) * a.get("alpha", 1)]
    if name == "gelu":
        return "gelu" if a.get("approximate", "none") == "none" else "gelu_tanh", one, []
    if name == "addcmul":
        return "addcmul", [*one, a["tensor1"], a["tensor2"]], [a.get("value", 1)]
    if name == "lerp":
        return "lerp", [*one, a["end"], a["weight"]], []
    if name == "where":
        return "where", [a["condition"], a["self"], a["other"]], []
    if name == "masked_fill":
        return "where", [a["mask"], a["value"], a["self"]], []
    if name in ("maximum", "minimum"):
        return name, [*one, a["other"]], []
    if name in ("clamp", "clamp_min", "clamp_max") and not any(isinstance(a.get(n), Place) for n in ("min", "max")):
        low, high = a.get("min"), a.get("max")
        return "clamp", one, [-math.inf if low is None else low, math.inf if high is None else high]
    if name in COMPARISONS:
        code, swapped = COMPARISONS[name]
        return code, [a["other"], *one] if swapped else [*one, a["other"]], []
    if name in ("logical_not", "bitwise_not"):
        return "equal", [*one, 0.0], []
    return None


def _is_complex(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.is_complex()) or (isinstance(value, Place) and value.pairs)


def _as_numbers(place: Place) -> Place:
    """Complex numbers with a last axis of their parts."""
    if not place.pairs:
        return place
    return replace(place, sizes=(*place.sizes, 2), strides=(*place.strides, 1), pairs=False)


def _parts(value: Any) -> tuple[Any, Any]:
    """The real and the imaginary part of a complex place or constant."""
    if isinstance(value, Tensor):
        real, imaginary = torch.view_as_real(value.resolve_conj()).unbind(-1)
        return real, imaginary
    return replace(value, pairs=False), replace(value, offset=value.offset + 1, pairs=False)


def _part_of(arguments: dict[str, Any], part: int) -> dict[str, Any]:
    """Arguments with complex ones replaced by their real (0) or imaginary (1) parts."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(child) for child in value]
        return _parts(value)[part] if _is_complex(value) else value

    return {key: of(value) for key, value in arguments.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _last(view: View, axes: set[int]) -> View:
    """The given axes moved to the end."""
    order = [d for d in range(len(view.sizes)) if d not in axes] + sorted(axes)
    return replace(view, sizes=tuple(view.sizes[d] for d in order), strides=tuple(view.strides[d] for d in order))
