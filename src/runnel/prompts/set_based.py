"""Set-based prompting: parts of a prompt that are read side by side, so that their order cannot matter.

Paper: "Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem" (2024, 2406.06581),
section 3.

    a token of part i sees what stands before the set, and part i up to itself         (1)
    position of token j of any part = length of what stands before + j                 (2)
    what follows sees all parts, and stands after the longest                          (3)

A set is a draft tree of which every branch is kept: `verify` gives (1) and (2), and (3) is the sum (attention: the
union) of what the branches leave in memory. Attention without a window can do that, and so can linear attention that
decays nothing and has no convolution. Other mixers keep the order of what they read, and are refused by name.

Deviates: the paper changes the mask and the positions of one call; here the set is read into the state, from which any
decoder goes on: `generate(model, after, state=read(model, before, parts))`. Several sets are several calls of `read`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runnel import catalog
from runnel.model import Model
from runnel.prefill import CHUNK, prefill
from runnel.state import Memory, Pending, State, map_memory, rebuild
from runnel.tree import DraftTree

PAPERS = {"Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem": "2406.06581"}

Part = Sequence[int]


@torch.no_grad()
def read(
    model: Model,
    before: Sequence[Sequence[int]],
    parts: Sequence[Sequence[Part]],
    state: State | None = None,
    chunk: int = CHUNK,
) -> State:
    """The state once each row has read what stands before its set, which may be empty, and the parts of the set.

    state: what the rows had read before; by default nothing.
    """
    if len(before) != len(parts):
        raise ValueError(f"parts must be one list of parts for each of the {len(before)} rows; got {len(parts)}")
    state = model.init_state(len(before)) if state is None else state
    state = prefill(model, before, state, chunk)
    tree = _tree(parts)
    if len(tree) == 0:
        return state
    pending = model.verify(state, tree).pending
    for mixer, memory in zip(model.mixers, pending.layers, strict=True):
        if not _mergeable(memory):
            names = " & ".join(catalog.page_name(page) for page in mixer.pages)
            raise ValueError(f"a set is read side by side, which leaves no order to a memory; {names} keeps one")
    return pending.merged(tree.layout(state.batch_size).lineage().to(model.device).at(state.lengths))


def _tree(parts: Sequence[Sequence[Part]]) -> DraftTree:
    """Every part a branch of its row."""
    tokens, parents, rows = list[int](), list[int](), list[int]()
    for row, own in enumerate(parts):
        for part in own:
            for at, token in enumerate(part):
                parents.append(len(tokens) - 1 if at else -1)
                tokens.append(token)
                rows.append(row)
    return DraftTree(tokens, parents, rows)


def _mergeable(memory: Memory) -> bool:
    if isinstance(memory, Pending):
        return memory.merge is not None
    return all(_mergeable(child) for child in memory)


@torch.no_grad()
def reference(model: Model, before: Part, parts: Sequence[Part]) -> State:
    """One row, every part read alone: the memory before the set and what each part adds to it."""
    base = model.init_state(1) if len(before) == 0 else model(torch.tensor([list(before)]))[1]
    alone = [model(torch.tensor([list(part)]), base)[1] for part in parts]
    layers = [_sum(memory, [state.layers[i] for state in alone]) for i, memory in enumerate(base.layers)]
    longest = max(len(part) for part in parts)
    return State(tuple(layers), base.lengths + longest, base.identify)


def _sum(base: Memory, alone: Sequence[Memory]) -> Memory:
    """Attention's memory is a list of entries, of which each part has appended its own; all others are sums."""
    if not hasattr(base, "positions"):
        return map_memory(lambda before, *after: before + sum(x - before for x in after), base, *alone)
    held = base.positions.shape[1]
    entries = [base, *(rebuild(memory, [leaf[:, held:] for leaf in memory]) for memory in alone)]
    return rebuild(base, [torch.cat(leaves, dim=1) for leaves in zip(*entries, strict=True)])
