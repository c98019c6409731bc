"""Translation of a record into native operations. What is not here has no native form: `Unsupported` names it."""

from __future__ import annotations

import math
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
POWERS = {2: "square", 3: "cube", 1: "copy", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
COMPARISONS = {"eq": ("equal", False), "lt": ("less", False), "gt": ("less", True), "le": ("less_equal", False),
               "ge": ("less_equal", True)}  # fmt: skip


def translate(record: Record, builder: Builder, x: View) -> View:
    """Append a record to a program, its input being `x`. Returns the place of its output.

    The builder is left as it was when something is not supported.
    """
    mark = builder.mark
    try:
        return _Translation(record, builder, x).run()
    except Unsupported:
        builder.cut(mark)
        raise


class _Translation:
    def __init__(self, record: Record, builder: Builder, x: View) -> None:
        self.record, self.builder = record, builder
        self.views: dict[int, View] = {}  # of the record's buffers, whole
        self.written: set[int] = set()
        self.states: list[int] = []  # of the record's leaves: the program's leaf, or the number of an attention memory
        self._take(record.input, x)
        self._take(record.position, View("buffer", builder.position, 0, (1,), (1,)))

    def run(self) -> View:
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
        self._make_loop(start)
        return out

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
                raise Unsupported("complex numbers")
            return self.builder.constant(value)
        assert isinstance(value, Place), value
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
            primitive(self.out(step.outputs[0]), step.arguments)
        elif not self._map(step) and not self._move(step) and not self._sum(step) and not self._product(step):
            raise Unsupported(step.name)

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
                raise Unsupported(f"a norm of order {a['ord']}")
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

    def _selective_scan(self, out: View, a: dict[str, Any]) -> None:
        if not isinstance(a["a"], Tensor):
            raise Unsupported("a selective scan whose A depends on the token")
        channels, n = a["a"].shape
        operands = [self._vector(a[name], (1, 1, channels)) for name in ("x", "dt")]
        operands += [self._vector(a[name], (1, 1, n)) for name in ("b", "c")]
        self._add("selective", [out, *operands], [self._leaf(a["memory"]), channels, n], [self._held(a["a"])])

    def _heads(self, value: Any, heads: int, width: int) -> View:
        """[heads, width] with numbers of a head next to each other."""
        view = self.view(value)
        view = broadcast(View(view.space, view.index, view.offset, view.sizes[2:], view.strides[2:]), (heads, width))
        return view if view.space == "buffer" and (width == 1 or view.strides[1] == 1) else self.builder.copied(view)

    def _matrix_state(self, kind: str, out: View, a: dict[str, Any], keys: tuple[str, ...], beta: bool) -> None:
        heads, values = out.sizes[2:]
        width = self._width(a["q"])
        never = a["log_decay"] is None
        decay = self.view(torch.zeros(1, 1, 1) if never else a["log_decay"])
        if len(decay.sizes) == 3:
            decay = View(decay.space, decay.index, decay.offset, (*decay.sizes, 1), (*decay.strides, 1))
        decays = decay.sizes[3]
        decay = broadcast(
            View(decay.space, decay.index, decay.offset, decay.sizes[2:], decay.strides[2:]), (heads, decays)
        )
        if decay.space != "buffer" or (decays > 1 and decay.strides[1] != 1):
            decay = self.builder.copied(decay)
        if width > 1024:
            raise Unsupported("more than 1024 keys a head")
        operands = [
            self._heads(a["q"], heads, width),
            self._heads(a["k"], heads, width),
            self._heads(a["v"], heads, values),
        ]
        operands += [self._heads(a[name], heads, width) for name in keys]
        if beta:
            rate = self.view(a["beta"])
            rate = View(rate.space, rate.index, rate.offset, (*rate.sizes[2:], 1), (*rate.strides[2:], 1))
            operands.append(rate if rate.space == "buffer" else self.builder.copied(rate))
        out = View(out.space, out.index, out.offset, out.sizes[2:], out.strides[2:])
        self._add(kind, [out, *operands, decay], [self._leaf(a["memory"]), heads, width, values, decays])

    def _width(self, value: Any) -> int:
        return self.view(value).sizes[-1]

    def _outer_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("outer", out, a, (), False)

    def _delta_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("delta", out, a, (), True)

    def _dplr_scan(self, out: View, a: dict[str, Any]) -> None:
        self._matrix_state("dplr", out, a, ("read", "erase"), False)

    def _attend(self, out: View, a: dict[str, Any]) -> None:
        heads, width = out.sizes[2:]
        groups = self.view(a["k"]).sizes[2]
        if self._width(a["q"]) != width:
            raise Unsupported("values of another width than their keys")
        if a["cap"] is not None:
            raise Unsupported("attention with a cap on its scores")
        operands = [
            self._heads(a["q"], heads, width),
            self._heads(a["k"], groups, width),
            self._heads(a["v"], groups, width),
        ]
        window = -1 if a["window"] is None else a["window"]
        out = View(out.space, out.index, out.offset, out.sizes[2:], out.strides[2:])
        ints = [self._leaf(a["memory"]), groups, width, window, a["sinks"]]
        self.builder.operations.append(Operation("attend", [out, *operands], ints=ints, floats=[1 / math.sqrt(width)]))

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
    if name == "pow" and _is_number(a["exponent"]) and a["exponent"] in POWERS:
        return POWERS[a["exponent"]], one, []
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _last(view: View, axes: set[int]) -> View:
    """The given axes moved to the end."""
    order = [d for d in range(len(view.sizes)) if d not in axes] + sorted(axes)
    return replace(view, sizes=tuple(view.sizes[d] for d in order), strides=tuple(view.strides[d] for d in order))
