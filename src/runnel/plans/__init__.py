"""Plans: what a run on many machines will take, before there are any. One page a way to cut the work up.

A plan is arithmetic over a `Workload` and a `Cluster`. `devices.json` has the machines: bytes of memory, dense 16-bit
operations a second, bytes a second to a neighbour inside a node and between nodes, devices in a node, and a price an
hour. They are data sheets' numbers and list prices: change them to yours.
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

    def speed(self, group: int) -> float:
        """Bytes a second of the slowest link in a group of neighbours."""
        return self.device.efficiency * (self.device.inside if group <= self.device.node else self.device.between)


@dataclass(frozen=True)
class Workload:
    """One step of training.

    parameters: all; matrices: those that every token is multiplied by. states: bytes that a row's recurrent layers pass
    from slice to slice; keys: bytes of one token's keys and values over all attention layers. attention: how many of
    them there are. outcomes: V. saved: what a row keeps for the backward pass, a polynomial of its length, if measured.
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
    saved: tuple[float, ...] = ()

    def activations(self, rows: int, length: float, a_token: float) -> float:
        """Bytes that rows of a length keep for the backward pass: as measured, else `a_token` a layer and width."""
        if self.saved:
            return rows * sum(factor * length**power for power, factor in enumerate(self.saved))
        return rows * length * self.layers * self.d_model * a_token

    def remembered(self, rows: int, slices: int) -> float:
        """Bytes of states and of one layer's keys; where activations were measured, those from other slices alone."""
        if self.saved and slices == 1:
            return 0.0
        return rows * (slices * self.states + self.keys * self.length / max(self.attention, 1))

    @property
    def tokens(self) -> int:
        return self.length * self.rows

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
