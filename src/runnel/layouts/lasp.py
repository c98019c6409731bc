"""LASP: the memory goes round a ring, each process adding its own slice before it sends it on.

Paper: "Linear Attention Sequence Parallelism" (2024, 2404.02882).

    KV_i = lambda^C KV_{i-1} + (lambda^C Lambda^{-1} K_i)^T V_i    (eq. 10, and algorithm 2: received, updated, sent on)
    O_i = causal(Q_i K_i^T) V_i + Lambda Q_i KV_{i-1}              (eq. 7-9: within the slice, and from before it)
    dKV_i = lambda^C dKV_{i+1} + (Lambda Q_i)^T dO_i               (eq. 20, algorithm 3: the ring runs backwards)

| code | paper |
|---|---|
| memory, before | KV_{i-1}; it is kept for the backward ring, as in section 2.4 |
| summary | lambda^C, and the second term of KV_i |
| index | i |

Every process sends one memory forward and one gradient back, whatever the length of its slice; but slice i waits for
the i slices before it, where LASP-2 waits for one collective. Deviates: transitions of any kind (`after`), where the
paper has one decay a head; and the last process tells all others the memory after the call, which costs one memory
more. Attention without a state has no such ring: rows with softmax layers need lasp2, zigzag or ring_attention.
"""

from __future__ import annotations

from torch import Tensor

from runnel import layouts
from runnel.layouts import After, pass_along
from runnel.ops.attend import Call, KeyValues

PAPERS = {"Linear Attention Sequence Parallelism": "2404.02882"}


class Exchange(layouts.Exchange):
    def states(self, after: After, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        return pass_along(after, memory, summary, self)

    def attend(self, call: Call) -> tuple[Tensor, KeyValues]:
        raise ValueError("lasp passes states, and attention has none: choose lasp2, zigzag or ring_attention")


def reference(after: After, memory: Tensor, summaries: list[tuple[Tensor, ...]], index: int) -> Tensor:
    """The memory before slice `index`, as the ring hands it on, in one process."""
    for summary in summaries[:index]:
        memory = after(memory, *summary)
    return memory
