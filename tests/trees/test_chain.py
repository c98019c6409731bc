import torch

from runnel.trees import Sketch, chain, grow_all
from tests.decoding.support import sharp


class Likeliest:
    def scores(self, logits, ahead, path=()):
        assert len(path) == ahead
        return logits

    def __call__(self, logits, ahead, path=()):
        return int(self.scores(logits, ahead, path).argmax())


@torch.no_grad()
def law(path):
    return sharp()(torch.tensor([[0, *path]]))[0][0, -1]


def test_it_is_the_chain_of_the_definition():
    budgets = [0, 1, 4, 2]
    sketches = [Sketch() for _ in budgets]

    def after(asked):
        return {row: torch.stack([law(sketches[row].path(node)) for node in nodes]) for row, nodes in asked.items()}

    grow_all(chain.Chain(chain.Config()), sketches, [Likeliest()] * 4, budgets, after)
    for sketch, budget in zip(sketches, budgets, strict=True):
        draft = sketch.draft()
        assert draft.tokens == chain.reference(law, Likeliest(), budget)
        assert draft.parents == list(range(-1, budget - 1))
        for node, logits in enumerate(draft.logits):
            torch.testing.assert_close(logits, law(draft.tokens[:node]))
