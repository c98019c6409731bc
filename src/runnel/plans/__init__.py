"""Plans: what a run on many machines will take, before there are any. One page a way to cut the work up.

A plan is arithmetic over a `Workload` and a `Cluster`. `devices.json` has the machines: bytes of memory, dense 16-bit
operations a second, bytes a second that a device sends inside a node and from node to node, devices in a node, and a
price an hour. They are data sheets' numbers and list prices: change them to yours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runnel import catalog

EFFICIENCY = 0.4
"""Share of a data sheet's operations and bytes a second that a training run is taken to reach."""


@dataclass(frozen=True)
class Device:
    memory: float
    flops: float
    inside: float
    between: float
    node: int
    price: float
    efficiency: float = EFFICIENCY
    overlaps: bool = True


@dataclass(frozen=True)
class Cluster:
    """`count` devices of one kind, in nodes."""

    device: Device
    count: int

    @staticmethod
    def parse(text: str, devices: Mapping[str, Device] | None = None) -> Cluster:
        """`64xH100`; ValueError when it is not that, or the device is not in the table."""
        devices = devices or table()
        match = re.fullmatch(r"(\d+)x(\w+)", text)
        if match is None or int(match[1]) < 1:
            raise ValueError(f"devices must be like 64xH100; got {text!r}")
        if match[2] not in devices:
            raise ValueError(f"no device is called {match[2]!r}{catalog.suggest(match[2], tuple(devices))}")
        return Cluster(devices[match[2]], int(match[1]))

    @property
    def flops(self) -> float:
        """Operations a second that a device reaches."""
        return self.device.flops * self.device.efficiency

    def together(self, compute: float, sending: float) -> float:
        """Seconds of computing and of what can be sent meanwhile, by a device that does both at once or does not."""
        return max(compute, sending) if self.device.overlaps else compute + sending

    def leaves(self, group: int, apart: int = 1) -> bool:
        """Whether a ring of `group` devices, each `apart` places from the next, leaves a node."""
        return group * apart > self.device.node

    def speed(self, group: int, apart: int = 1) -> float:
        """Bytes a second of such a ring. It enters and leaves a node once, by the links of all its devices there."""
        device = self.device
        there = max(1, device.node // apart)
        link = min(device.inside, device.between * there) if self.leaves(group, apart) else device.inside
        return device.efficiency * link


Polynomial = tuple[float, ...]
"""Its coefficients, that of the power 0 first."""


@dataclass(frozen=True)
class Sending:
    """Seconds of sending a byte, the calls, copies and waits around it included; 0: no more than the link's.

    gather: weights that are cut; scatter: gradients, to be summed and cut; add: gradients, to be summed.
    """

    gather: float = 0.0
    scatter: float = 0.0
    add: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What one row of a model takes on one machine, as polynomials of a slice's length, by the number of slices.

    saved: bytes kept for the backward pass; inputs: those that recomputation keeps; layers: those of each layer alone.
    forward: seconds of the layers forward; whole: of forward and backward, what slices tell each other included.
    update: seconds to update a parameter. sending: weights and gradients.
    """

    saved: Mapping[int, Polynomial]
    inputs: Mapping[int, Polynomial]
    layers: Mapping[int, tuple[Polynomial, ...]]
    forward: Mapping[int, Polynomial]
    whole: Mapping[int, Polynomial]
    update: float
    sending: Sending = Sending()

    def kept(self, slices: int, length: float, recompute: bool) -> float:
        """Bytes of a row's activations; of those that are computed again, one layer's at a time."""
        if not recompute:
            return evaluate(self.saved[slices], length)
        largest = max(evaluate(layer, length) for layer in self.layers[slices])
        return evaluate(self.inputs[slices], length) + largest

    def seconds(self, slices: int, length: float, recompute: bool) -> float:
        """Of a row, forward and backward."""
        parts = (self.whole, self.forward) if recompute else (self.whole,)
        return sum(evaluate(part[slices], length) for part in parts)


def evaluate(polynomial: Polynomial, at: float) -> float:
    return sum(factor * at**power for power, factor in enumerate(polynomial))


@dataclass(frozen=True)
class Workload:
    """One step of training.

    parameters: all; matrices: those that every token is multiplied by. states: bytes that a row's recurrent layers pass
    from slice to slice; keys: bytes of one token's keys and values over all attention layers. attention: how many of
    them there are. outcomes: V. rows: of a micro-batch; accumulate: micro-batches of a step. logits: held at once by a
    device, of tokens at most; None for all. shared: layers share weights, which are then not cut. measured: what takes
    the place of arithmetic, where there is a machine to ask.
    """

    parameters: int
    matrices: int
    layers: int
    d_model: int
    states: int
    keys: int
    attention: int
    outcomes: int
    length: int
    rows: int
    accumulate: int = 1
    logits: int | None = None
    shared: bool = False
    measured: Measured | None = None

    @property
    def tokens(self) -> int:
        return self.length * self.rows * self.accumulate

    @property
    def flops(self) -> float:
        """Forward and backward: 6 a weight and token, and 6 a causal pair of tokens, width and attention layer."""
        return self.tokens * (6.0 * self.matrices + 6.0 * self.attention * self.d_model * self.length)


def table() -> dict[str, Device]:
    """The devices of `devices.json`."""
    content = json.loads((Path(__file__).parent / "devices.json").read_text(encoding="utf-8"))
    return {name: Device(**facts) for name, facts in content.items()}


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
