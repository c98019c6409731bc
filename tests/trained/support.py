"""What the tests of trained drafters share: weights that do something, and a check of their memory."""

import torch

from runnel.draft import Seen
from runnel.drafter import Drafter


@torch.no_grad()
def shaken(drafter, seed=0, size=0.3):
    """The drafter with noise on all its weights, so that none is zero."""
    noise = torch.Generator().manual_seed(seed)
    for parameter in drafter.parameters():
        parameter += size * torch.randn(parameter.shape, generator=noise, dtype=torch.float64).to(parameter)
    return drafter


class Forgetful(Drafter):
    """Beside a drafter, one that begins anew from the whole text in every round; both must draft the same."""

    reads_hidden = looks_back = True

    def __init__(self, drafter):
        super().__init__(None)
        self.drafter, self.rounds, self.drafted = drafter, 0, 0

    def begin(self, prompt, draw):
        return {"text": list(prompt), "draw": draw, "rounds": 0, "own": self.drafter.begin(prompt, draw)}

    def read(self, memory, hidden):
        self.drafter.read(memory["own"], hidden)

    def look_back(self, memory, seen):
        self.drafter.look_back(memory["own"], seen)

    def stand(self, memory, place):
        self.drafter.stand(memory["own"], place)

    def advance(self, memory, tokens):
        memory["text"].extend(tokens)
        self.drafter.advance(memory["own"], tokens)

    def propose(self, memory, budget):
        raise NotImplementedError

    def propose_all(self, memories, budgets):
        for memory in memories:
            memory["rounds"] += 1
        drafts = self.drafter.propose_all([memory["own"] for memory in memories], budgets)
        for memory, budget, draft in zip(memories, budgets, drafts, strict=True):
            if budget > 0:
                self._compare(memory, budget, draft)
        return drafts

    @torch.no_grad()
    def _compare(self, memory, budget, draft):
        target, text = self.drafter.target, memory["text"]
        if len(text) == 1 or memory["rounds"] == 1:
            return  # some drafters need a round behind them
        read = target.read(torch.tensor([text[:-1]]))
        fresh = self.drafter.begin(text[:-1], memory["draw"])
        before = target.init_state(1) if len(text) == 2 else target(torch.tensor([text[:-2]]))[1]
        self.drafter.read(fresh, read.hidden[0, :-1])
        self.drafter.stand(fresh, (before, 0))
        self.drafter.look_back(fresh, Seen([text[-2]], [-1], [0], read.logits[0, -1:], read.hidden[0, -1:]))
        self.drafter.stand(fresh, (read.state, 0))
        self.drafter.advance(fresh, text[-1:])
        again = self.drafter.propose(fresh, budget)
        assert (again.tokens, again.parents) == (draft.tokens, draft.parents)
        for found, wanted in zip(draft.logits, again.logits, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        self.rounds, self.drafted = self.rounds + 1, self.drafted + len(draft.tokens)
