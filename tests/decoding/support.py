"""What the tests of decoding share: small sharp models, the literal loop, and one way to make every drafter.

`CASES` must name every drafter of the folder (tests/decoding/test_matrix.py holds it), so that none is left out of the
matrix.
"""

from functools import cache

import torch

import runnel
from runnel import catalog
from runnel.decoders import sample
from runnel.drafters import (
    Draft,
    Drafter,
    adaptive,
    aggressive,
    auto_correct,
    clover,
    corpus,
    draft_model,
    eagle,
    falcon,
    fastdraft,
    ffn_skip,
    hidden_transfer,
    hydra,
    jacobi,
    lookahead,
    medusa,
    nested,
    prompt_lookup,
    suffix,
    token_recycling,
)
from runnel.rows import Forest, Row, Said, Walk
from runnel.state import leaves

VOCAB = 5
HYBRIDS = ("mamba2, attention(window=5)", "gated_deltanet, mingru, attention", "rwkv7, slstm, mamba")
SPINE = ("attention", "gated_deltanet", "gla", "linear_attention", "mamba", "mamba2", "mingru", "rwkv7", "slstm")
PATTERNS = (*catalog.names("mixers"), *HYBRIDS)
RAGGED = [[1, 2, 3, 1, 2, 3, 1], [4], [0, 4, 0, 4, 2, 0, 4, 0, 4, 2, 0, 3]]


@cache
def sharp(pattern="mingru, attention", vocab_size=VOCAB, seed=0, scale=25.0):
    """A small float64 model whose law is far from uniform."""
    model = runnel.build(pattern, vocab_size=vocab_size, d_model=16, seed=seed).double()
    with torch.no_grad():
        model.head.logits.weight.mul_(scale)
    return model


def exits_of(target):
    """All depths of a target."""
    return tuple(range(1, len(target.layers) + 1))


CASES = {
    "adaptive": lambda target: adaptive.Config(nodes=7, explore=2.0),
    "aggressive": lambda target: aggressive.Config(max_draft=5),
    "auto": lambda target: "auto",
    "auto_correct": lambda target: auto_correct.Config(mask=target.config.vocab_size - 1, max_draft=2),
    "clover": lambda target: clover.Config(target, heads=2, augment="mingru"),
    "corpus": lambda target: corpus.Config([[1, 2, 3, 1, 2, 0], [0, 4, 2, 2]], bias=0, min_match=2, max_draft=4),
    "draft_model": lambda target: draft_model.Config(sharp("mingru", target.config.vocab_size, seed=1), max_draft=2),
    "eagle": lambda target: eagle.Config(target, layer="mingru", max_draft=3),
    "falcon": lambda target: falcon.Config(target, block=2, max_draft=3, window=6),
    "fastdraft": lambda target: fastdraft.Config(target, max_draft=3),
    "ffn_skip": lambda target: ffn_skip.Config(target, threshold=0.5, spare=0, warm=1, max_draft=3),
    "hidden_transfer": lambda target: hidden_transfer.Config(target, transfers=3),
    "hydra": lambda target: hydra.Config(target, heads=3, prefix="attention"),
    "jacobi": lambda target: jacobi.Config(window=4),
    "lookahead": lambda target: lookahead.Config(window=2, ngram=3, guesses=2),
    "medusa": lambda target: medusa.Config(target, heads=2),
    "nested": lambda target: nested.Config(target, exits=exits_of(target), max_draft=3),
    "prompt_lookup": lambda target: prompt_lookup.Config(min_ngram=1, max_draft=4),
    "suffix": lambda target: suffix.Config(min_match=1, max_draft=5),
    "token_recycling": lambda target: token_recycling.Config(top_k=3, nodes=9),
}
"""How to make every drafter for a target model."""


class Branching(Drafter):
    """Guesses below every node, three levels deep, duplicates among them: a tree, most of it wrong."""

    def __str__(self):
        return "branching"

    def begin(self, prompt, draw):
        return list(prompt)

    def propose(self, memory, budget):
        newest, vocab = memory[-1], self.config or VOCAB
        tokens = [(newest + step) % vocab for step in (1, 3, 2, 0, 4, 1, 3)]
        return Draft(tokens, [-1, -1, 0, 0, 1, 2, 4])

    def advance(self, memory, tokens):
        memory.extend(tokens)


@torch.no_grad()
def stepped(model, prompt, steps, pick=lambda logits, position: int(logits.argmax())):
    """The literal loop: one row, one token at a time. Returns the tokens and the state before the newest."""
    state = model.init_state(batch_size=1)
    for token in prompt[:-1]:
        _, state = model(torch.tensor([[token]]), state)
    text = list(prompt)
    for _ in range(steps):
        logits, state = model(torch.tensor([[text[-1]]]), state)
        text.append(pick(logits[0, -1], len(text)))
    return text[len(prompt) :], state


def assert_same_state(state, row, expected):
    for found, wanted in zip(leaves(state.fork([row]).layers), leaves(expected.layers), strict=True):
        # an attention memory of several rows is padded on the left to the longest
        torch.testing.assert_close(found[:, found.shape[1] - wanted.shape[1] :], wanted, rtol=0, atol=1e-9)
    assert int(state.lengths[row]) == int(expected.lengths[0])


def law_of(model, prompt, length, temperature=1.0):
    """The probability of every text of `length` tokens after a prompt, enumerated: {tokens: probability}."""
    vocab = model.config.vocab_size
    texts = torch.cartesian_prod(*[torch.arange(vocab)] * length).reshape(-1, length)
    whole = torch.cat([torch.tensor([prompt]).expand(len(texts), -1), texts], dim=1)
    with torch.no_grad():
        law = (model(whole)[0][:, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    scores = law.gather(-1, texts[..., None])[..., 0].sum(1).exp()
    return {tuple(text): p for text, p in zip(texts.tolist(), scores.tolist(), strict=True)}


def chi_square(counts, law):
    """The statistic of draws counted by text against their law: `len(law) - 1` degrees of freedom."""
    draws = sum(counts.values())
    return sum((counts.get(text, 0) - draws * p) ** 2 / (draws * p) for text, p in law.items())


CHI_SQUARE_99 = {2: 9.21, 3: 11.34, 4: 13.28, 8: 20.09, 15: 30.58, 24: 42.98, 26: 45.64, 80: 112.33}
"""The 99% quantile of chi-square by degrees of freedom."""


def walk_of(children, logits, guessed_from=None, seed=0, position=3, temperature=1.0, limit=50):
    """A walk down a small tree. children: (token, parent) of nodes 1, 2, ..., the root being node 0; logits: (N, V)
    after every node; guessed_from: the drafter's logits (V,) for every node but the root.
    """
    row = Row(0, seed, [0], position, limit, frozenset(), sample.Sample(sample.Config(temperature=temperature)))
    tokens, parents = [token for token, _ in children], [parent - 1 for _, parent in children]
    forest = Forest([row], [Draft(tokens, parents, guessed_from or ())])
    return Walk(row, 0, forest, Said(logits, torch.zeros(len(logits), 1)))
