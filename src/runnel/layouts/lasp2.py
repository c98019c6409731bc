"""LASP-2: every process gathers all slices' states in one collective and folds those before its own slice.

Paper: "LASP-2: Rethinking Sequence Parallelism for Linear Attention and Its Hybrid" (2025, 2502.07563).

    M_s = sum over the tokens of slice s of k_j^T v_j             (eq. 6: each process, its own slice)
    [M_1 .. M_S] = AllGather(M_s)                                 (algorithm 2, line 6)
    M_{1:s-1} = sum over s' < s of M_s'                           (line 8: the memory before the slice)
    O_s = causal(Q_s K_s^T) V_s + Q_s M_{1:s-1}                   (lines 7, 9, 10)
    softmax layers of a hybrid: K, V = AllGather(K_s, V_s)        (algorithm 4, LASP-2H)

| code | paper |
|---|---|
| summary | M_s; and what the slice keeps of the memory before it, where something decays |
| after | the sum of line 8; for decays A_s M + M_s; for delta rules A_s is a matrix |
| count | W, the sequence-parallel size |

A memory has the same size whatever the slice's length, so the bytes do not grow with it; those of softmax layers do.
Deviates: memories that decay, rotate or erase (the paper's are sums); backward reduces and scatters the gradients of
the gathered memories, which sends as much as the paper's second AllGather.
"""

from __future__ import annotations

from torch import Tensor

from runnel import layouts
from runnel.layouts import After
from runnel.layouts._pieces import in_pieces
from runnel.ops.attend import Call, KeyValues, append

PAPERS = {"LASP-2: Rethinking Sequence Parallelism for Linear Attention and Its Hybrid": "2502.07563"}


class Exchange(layouts.Exchange):
    def states(self, after: After, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        return layouts.fold_all(after, memory, summary, self)

    def attend(self, call: Call) -> tuple[Tensor, KeyValues]:
        whole, length = self.whole(call), call.lineage.length
        y = in_pieces(whole, call.q, slice(self.index * length, (self.index + 1) * length))
        return y, append(call.memory, whole.lineage, whole.k, whole.v, call.window, call.sinks)


def reference(after: After, memory: Tensor, summaries: list[tuple[Tensor, ...]], index: int) -> Tensor:
    """The memory before slice `index`, from the summaries of those before it, in one process."""
    for summary in summaries[:index]:
        memory = after(memory, *summary)
    return memory
