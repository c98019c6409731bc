"""One mixer alone, in float64, and an input for it."""

import torch

from runnel import Lineage, catalog
from runnel.links import EMBEDDING, TOKENS, Linked, Links, Tokens, Wiring, call
from runnel.mixer import Cell, Mixer


def mixer(name: str, d_model: int = 8, **options) -> Mixer:
    torch.manual_seed(0)
    page = catalog.page("mixers", name)
    kind = catalog.class_in(page, Mixer)
    first = [Wiring(d_model)] if issubclass(kind, Linked) else []
    return kind(d_model, page.Config(**options), *first).double()


def run(made: Mixer, x: torch.Tensor, **links) -> torch.Tensor:
    """The outputs over fresh rows. links: those that the mixer takes, where they are not those of a model."""
    state, lineage = made.init_state(x.shape[0]), Lineage.sequence(*x.shape[:2])
    return call(made, x, state, lineage, {**links_of_a_model(x), **links})[0]


def links_of_a_model(x: torch.Tensor) -> Links:
    """As a model gives them; the embedding is x, and tokens are some of seven."""
    ids = torch.arange(x.shape[0] * x.shape[1]).view(*x.shape[:2], 1) % 7
    table = torch.randn(7, x.shape[-1], dtype=x.dtype, generator=torch.Generator().manual_seed(7))
    return {EMBEDDING: x, TOKENS: Tokens(ids, table)}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, bound: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)


def assert_is_cell(made: Cell, cell: torch.nn.RNNCellBase, candidate_bias: torch.Tensor | None = None) -> None:
    """The outputs are those of a cell of torch with the same weights; the recurrent matrices begin orthogonal."""
    with torch.no_grad():
        cell.weight_ih.copy_(made.input.weight)
        cell.weight_hh.copy_(made.recurrent)
        cell.bias_ih.copy_(made.input.bias)
        cell.bias_hh.zero_()
        if candidate_bias is not None:
            cell.bias_hh[-made.width :] = candidate_bias
    x, state, outputs = normal(2, 40, 8), None, []
    for t in range(40):
        state = cell(x[:, t], state)
        outputs.append(made.out(state[0] if isinstance(state, tuple) else state))
    close(run(made, x), torch.stack(outputs, dim=1))
    for matrix in made.recurrent.split(made.width):
        close(matrix @ matrix.T, torch.eye(made.width, dtype=torch.float64), bound=1e-5)
