"""One mixer alone, in float64, and an input for it."""

import torch

from runnel import Lineage, catalog
from runnel.mixer import Mixer


def mixer(name: str, d_model: int = 8, **options) -> Mixer:
    torch.manual_seed(0)
    page = catalog.page("mixers", name)
    return catalog.class_in(page, Mixer)(d_model, page.Config(**options)).double()


def run(made: Mixer, x: torch.Tensor) -> torch.Tensor:
    return made(x, made.init_state(x.shape[0]), Lineage.sequence(*x.shape[:2]))[0]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, bound: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)
