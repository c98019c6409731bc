"""Dense linear scan: h_t = A_t h_p + b_t, p the parent of t, A_t any matrix per head.

The fast form runs all chunks side by side from zero, with the running product of A beside the state, and adds what each
chunk inherits: as many sequential steps as a chunk has tokens, plus one a chunk. The products cost K times the loop's
work, so K should be small. Nothing is divided: A may be singular, and a reset is A = 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from runnel.lineage import Lineage
from runnel.ops.precision import full_precision
from runnel.ops.unroll import walk_tree
from runnel.state import Memory, Pending

CHUNK = 32


def step(
    a: Float[Tensor, "*#M H K K"], b: Float[Tensor, "*#M H K"], h: Float[Tensor, "*#M H K"]
) -> Float[Tensor, "*M H K"]:
    """One token of each of M rows."""
    return (a @ h[..., None])[..., 0] + b


def reference(
    a: Float[Tensor, "B T H K K"], b: Float[Tensor, "B T H K"], h: Float[Tensor, "B H K"]
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B H K"]]:
    """The literal loop: every h_t, and the last one."""
    states = []
    for t in range(a.shape[1]):
        h = step(a[:, t], b[:, t], h)
        states.append(h)
    return torch.stack(states, dim=1), h


@full_precision
def dense_scan(
    a: Float[Tensor, "B T H K K"], b: Float[Tensor, "B T H K"], memory: Float[Tensor, "B H K"], lineage: Lineage
) -> tuple[Float[Tensor, "B T H K"], Memory]:
    """The state after every token, and the last one (pending after a tree)."""
    if lineage.is_tree:
        if lineage.chain is not None:
            states, _ = dense_scan(a, b, memory, lineage.chain)
        else:
            states = walk_tree(lambda x, h: (step(x[0], x[1], h),) * 2, (a, b), memory, lineage)
        return states, Pending(_advance, memory, (a, b))
    if lineage.valid is not None:
        valid, identity = lineage.valid[:, :, None, None], torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        a, b = torch.where(valid[..., None], a, identity), torch.where(valid, b, 0)
    if lineage.reset is not None:
        a = torch.where(lineage.reset[:, :, None, None, None], 0, a)
    if lineage.part is None:
        states = _along(a, b, memory)
        return states, states[:, -1]
    written = _along(a, b, torch.zeros_like(memory))[:, -1]
    before, last = lineage.part.exchange.states(_moved, memory, _product(a), written)
    return _along(a, b, before), last


def _along(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    return reference(a, b, h)[0] if a.shape[1] <= CHUNK else _scan(a, b, h)


def _moved(memory: Tensor, kept: Tensor, written: Tensor) -> Tensor:
    """The memory after a slice that multiplies the one before it by a matrix."""
    return step(kept, written, memory)


def _product(a: Tensor) -> Tensor:
    """(B, H, K, K): the product of all matrices, the last on the left."""
    while a.shape[1] > 1:
        odd = a[:, -1:] if a.shape[1] % 2 else a[:, :0]
        a = torch.cat([a[:, 1::2] @ a[:, : a.shape[1] // 2 * 2 : 2], odd], dim=1)
    return a[:, 0]


def _advance(memory: Tensor, lineage: Lineage, a: Tensor, b: Tensor) -> Tensor:
    return dense_scan(a, b, memory, lineage)[1]


def _scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """All h_t. The spare tokens of the last chunk have A = 0, and their states are dropped."""
    length = a.shape[1]
    spare = -length % CHUNK
    a = pad(a, (0, 0, 0, 0, 0, 0, 0, spare)).unflatten(1, (-1, CHUNK))  # (B, n, C, H, K, K)
    b = pad(b, (0, 0, 0, 0, 0, spare)).unflatten(1, (-1, CHUNK))
    state, product = b[:, :, 0], a[:, :, 0]
    states, products = [state], [product]
    for t in range(1, CHUNK):
        state, product = step(a[:, :, t], b[:, :, t], state), a[:, :, t] @ product
        states.append(state)
        products.append(product)
    inherited = []
    for chunk in range(a.shape[1]):
        inherited.append(h)
        h = step(product[:, chunk], state[:, chunk], h)
    before = torch.stack(inherited, dim=1)[:, :, None]  # (B, n, 1, H, K)
    return step(torch.stack(products, dim=2), torch.stack(states, dim=2), before).flatten(1, 2)[:, :length]
