"""What the tests of the primitives share: random inputs in float64, trees, and comparison with gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from runnel.lineage import Lineage
from runnel.state import Pending

PARENTS = [-1, 0, 1, 0, 3, 3, -1, 6, 2]
PATHS = [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4], [0, 3, 5], [6], [6, 7], [0, 1, 2, 8]]


def normal(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_(grad)


def close(actual: Tensor, expected: Tensor, bound: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)


def same_with_gradients(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], inputs: list[Tensor], bound: float = 1e-9
) -> None:
    """Outputs, last memory, and the gradients of a random function of both with respect to every input."""
    grads = []
    for y, memory in (actual, expected):
        loss = (y * weights(y)).real.sum() + (memory * weights(memory)).real.sum()
        grads.append(torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True))
    close(actual[0], expected[0], bound)
    close(actual[1], expected[1], bound)
    for a, b in zip(*grads, strict=True):
        close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b, bound)


def weights(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(like.shape, dtype=torch.float64, generator=generator)


def check_tree(
    primitive: Callable[..., tuple[Tensor, Pending]],
    reference: Callable[..., tuple[Tensor, Tensor]],
    tokens: list[Tensor],
    memory: Tensor,
) -> None:
    """Every node equals the end of its path run alone, with gradients; committing a path equals running it.

    primitive(*tokens, memory, lineage), reference(*tokens, memory); tokens are (B, 9, ...) for the tree PARENTS.
    """
    rows = memory.shape[0]
    y, pending = primitive(*tokens, memory, Lineage.tree(torch.tensor(PARENTS).expand(rows, -1)))
    inputs = [*tokens, memory]
    for path in PATHS:
        expected, last = reference(*[x[:, path] for x in tokens], memory)
        end = path[-1]
        columns = torch.tensor(path).expand(rows, -1)
        committed = pending.commit(columns, Lineage.sequence(rows, len(path)))
        same_with_gradients((y[:, end], committed), (expected[:, -1], last), inputs)
