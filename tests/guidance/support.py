"""What the tests of guidance share: one way to make every guidance, a model of facts, and the literal loop."""

from functools import cache

import torch

import runnel
from runnel.guidance import cfg, context_aware, contrastive
from runnel.objectives.next_token import loss
from runnel.types import IGNORE, Batch
from tests.decoding.support import RAGGED, VOCAB, sharp, stepped

OTHERS = [[1], [0, 2, 4], [3]]
"""Prompts of the second stream for the rows of RAGGED: longer, shorter and as long, with the same newest tokens."""
CASES = {
    "cfg": lambda rows=slice(None): cfg.Config(1.7, OTHERS[rows]),
    "context_aware": lambda rows=slice(None): context_aware.Config(OTHERS[rows], 0.8),
    "contrastive": lambda rows=slice(None): contrastive.Config(sharp("mingru", VOCAB, seed=1), 0.02, 0.7, 1.5),
}


@torch.no_grad()
def literal(model, page, config, prompt, other, steps):
    """Greedy text, both texts read from their start for every token; and the stepped states of both streams."""
    amateur = getattr(config, "amateur", model)
    other, written = prompt if amateur is not model else other, []
    for _ in range(steps):
        laws = [
            reader(torch.tensor([[*text, *written]]))[0][0, -1].softmax(-1).tolist()
            for reader, text in ((model, prompt), (amateur, other))
        ]
        law = page.reference(*laws, config)
        written.append(law.index(max(law)))
    states = [stepped(reader, [*text, *written], 0)[1] for reader, text in ((model, prompt), (amateur, other))]
    return written, states


SUBJECTS, VALUES, QUESTION, CONTEXT = 6, 6, 12, 13
"""Tokens 0-5 are subjects, 6-11 values; the fact of subject s is the value 6 + s."""


def facts(rows, rng, contexts=True):
    """Questions about facts, every other one after a context that says another value. The answer follows the context
    in a third of the cases only: the model trusts its memory more.
    """
    subject = torch.randint(0, SUBJECTS, (rows,), generator=rng)
    said = SUBJECTS + torch.randint(0, VALUES, (rows,), generator=rng)
    with_context = (torch.rand(rows, generator=rng) < 0.5) & contexts
    follows = with_context & (torch.rand(rows, generator=rng) < 0.35)
    answer = torch.where(follows, said, SUBJECTS + subject)
    head = torch.where(with_context, torch.stack([torch.full_like(said, CONTEXT), said]), QUESTION)
    text = torch.stack([*head, torch.full_like(said, QUESTION), subject, answer], dim=1)
    targets = text[:, 1:].clone()
    targets[:, :-1] = IGNORE
    return Batch(text[:, :-1], targets)


@cache
def model_of_facts(contexts=True, steps=120):
    rng = torch.Generator().manual_seed(0)
    model = runnel.build("mingru", vocab_size=14, d_model=32, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(model, facts(128, rng, contexts)).backward()
        optimiser.step()
    return model


def conflicts():
    """For every subject and every other value: the prompt with its context, the question alone, and the value said."""
    pairs = [(s, SUBJECTS + v) for s in range(SUBJECTS) for v in range(VALUES) if v != s]
    prompts = [[CONTEXT, value, QUESTION, subject] for subject, value in pairs]
    return prompts, [[QUESTION, QUESTION, QUESTION, subject] for subject, _ in pairs], [value for _, value in pairs]


def faithful(model, guidance, **options):
    """The share of answers that follow the context."""
    prompts, _, said = conflicts()
    found = runnel.generate(model, prompts, 1, guidance=guidance, **{"n": 20, **options})
    follow = [tokens[0] == said[prompt] for tokens, prompt in zip(found.tokens, found.prompts, strict=True)]
    return sum(follow) / len(follow)


__all__ = ["CASES", "OTHERS", "RAGGED", "VOCAB", "conflicts", "faithful", "literal", "model_of_facts", "sharp"]
