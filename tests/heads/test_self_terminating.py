import math

import pytest
import torch
from torch import nn

import runnel
from runnel import catalog
from runnel.decoders import beam
from runnel.heads.self_terminating import Config, SelfTerminating, reference
from runnel.lineage import Lineage
from runnel.objectives.next_token import loss
from runnel.tree import DraftTree
from runnel.types import IGNORE, Batch
from tests.decoding.support import CASES, RAGGED, VOCAB, Branching

EOS = 2
HEAD = "self_terminating(eos=2, epsilon=0.05)"
CONFIG = Config(EOS, 0.05)
PATTERNS = ("attention", "mamba2, attention(window=5)", "gated_deltanet, mingru")


def model_of(pattern="mingru, attention", head=HEAD, scale=25.0):
    model = runnel.build(pattern, vocab_size=VOCAB, d_model=16, head=head).double()
    with torch.no_grad():
        model.head.logits.weight.mul_(scale)
    return model


def adversarial(pattern, head):
    """A model whose own score of the end token is hopeless, whatever the text."""
    model = model_of(pattern, head)
    biased = nn.Linear(16, VOCAB).double()
    with torch.no_grad():
        biased.weight.copy_(model.head.logits.weight)
        biased.bias.zero_()[EOS] = -200.0
    model.head.logits = biased
    return model


def test_it_is_the_definition_at_every_place():
    head = SelfTerminating(8, 6, CONFIG).double()
    with torch.no_grad():
        head.logits.weight.mul_(30)
    hidden = torch.randn(2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(40).expand(2, -1) + torch.tensor([[0], [30]])
    found, scores = head(hidden, positions).exp().detach(), head.logits(hidden).detach()
    for row in range(2):
        for place in range(40):
            expected = reference(scores[row, place].tolist(), int(positions[row, place]) + 1, CONFIG)
            assert found[row, place].tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 40, dtype=torch.float64))


def test_the_end_is_not_monotonic_but_bounded_from_below():
    head = model_of().head
    hidden = torch.randn(1, 60, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    ending = head(hidden, torch.arange(60)[None])[0, :, EOS].exp()
    bound = 1 - (1 - CONFIG.epsilon) ** torch.arange(1.0, 61.0, dtype=torch.float64)
    assert (ending >= bound - 1e-15).all() and (ending.diff() < 0).any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_lineages_agree(pattern):
    model = model_of(pattern)
    tokens = torch.randint(0, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
    whole, _ = model(tokens)
    stepwise, before = [], None
    for column in range(12):
        logits, before = model(tokens[:, column : column + 1], before)
        stepwise.append(logits)
    torch.testing.assert_close(torch.cat(stepwise, 1), whole, rtol=0, atol=1e-9)
    valid = torch.tensor([[False] * 3 + [True] * 12, [True] * 5 + [False] * 3 + [True] * 7])
    padded = torch.zeros(2, 15, dtype=torch.long).masked_scatter(valid, tokens)
    logits, _ = model(padded, lineage=Lineage.padded(valid))
    torch.testing.assert_close(logits[valid].view(2, 12, -1), whole, rtol=0, atol=1e-9)
    logits, _ = model(tokens.view(1, 24), lineage=Lineage.packed(torch.arange(2).repeat_interleave(12)[None]))
    torch.testing.assert_close(logits.view(2, 12, -1), whole, rtol=0, atol=1e-9)
    _, start = model(tokens[:, :4])
    tree = DraftTree([*tokens[0, 4:8], 1, *tokens[1, 4:6]], [-1, 0, 1, 2, 0, -1, 5], [0] * 5 + [1] * 2)
    out = model.verify(start, tree)
    torch.testing.assert_close(out.logits[:4], whole[0, 4:8], rtol=0, atol=1e-9)
    torch.testing.assert_close(out.logits[5:], whole[1, 4:6], rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_decoder_ends_where_the_plain_head_runs_to_the_cap(pattern):
    model, plain, cap = adversarial(pattern, HEAD), adversarial(pattern, None), 200
    half, nucleus = CONFIG.ends_by(0.5), CONFIG.ends_by(0.9)
    # for a draw from the two likeliest: where the chance of going on is below one in a million
    chance, drawn = 0.0, half
    while chance > math.log(1e-6):
        chance, drawn = chance + drawn * math.log1p(-CONFIG.epsilon), drawn + 1
    decodings = [
        ({"decoder": "greedy"}, half),
        ({"decoder": "sample", "top_k": 2}, drawn),
        ({"decoder": "sample", "top_p": 0.9}, nucleus),
        ({"decoder": beam.Config(width=3)}, half + 3),
    ]
    for options, bound in decodings:
        found = runnel.generate(model, RAGGED, cap, eos=EOS, **options)
        assert found.ended == ["eos"] * 3, options
        longest = max(len(prompt) + len(own) - 1 for prompt, own in zip(RAGGED, found.tokens, strict=True))
        assert longest <= bound < cap, options
        runs_on = runnel.generate(plain, RAGGED[:1], 80, eos=EOS, **options)
        assert runs_on.ended == ["length"] and bound < 80, options


def test_any_drafter_writes_the_same():
    """Trained drafters guess from hidden vectors alone, and refuse a target whose law looks at the position."""
    model = model_of()
    trained = {name for name in CASES if getattr(catalog.page("drafters", name), "TRAINED", False)}
    drafters = [make(model) for name, make in CASES.items() if name not in trained]
    for options in ({"decoder": "greedy"}, {"decoder": "sample", "seed": 3}):
        plain = runnel.generate(model, RAGGED, 40, eos=EOS, **options)
        for drafter in [*drafters, Branching(None)]:
            assert runnel.generate(model, RAGGED, 40, eos=EOS, drafter=drafter, **options).tokens == plain.tokens


def test_perplexity_changes_little():
    """Documents of a Markov chain that end at random; 100 steps of training with either head."""
    rng = torch.Generator().manual_seed(0)
    law = torch.rand(6, 6, generator=rng) ** 4
    law = 0.93 * law / law.sum(-1, keepdim=True)
    law = torch.cat([torch.full((6, 1), 0.07), law], dim=1)

    def batch(rows=24, length=32):
        text = torch.randint(1, 7, (rows, 1), generator=rng)
        for _ in range(length):
            after = torch.multinomial(law[(text[:, -1] - 1).clamp(min=0)], 1, generator=rng)
            text = torch.cat([text, torch.where(text[:, -1:] == 0, 0, after)], dim=1)
        targets = text[:, 1:].masked_fill(text[:, :-1] == 0, IGNORE)
        return Batch(text[:, :-1], targets)

    batches, held_out = [batch() for _ in range(100)], batch(200)

    def nats(head):
        model = runnel.build("mingru", vocab_size=7, d_model=24, head=head)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
        for data in batches:
            optimiser.zero_grad()
            loss(model, data).backward()
            optimiser.step()
        with torch.no_grad():
            return float(loss(model, held_out))

    plain, bounded = nats(None), nats("self_terminating(eos=0, epsilon=0.0005)")
    assert abs(bounded - plain) < 0.02, (plain, bounded)
    assert plain < math.log(7) - 0.5  # both have learnt something


def test_it_is_saved_and_loaded(tmp_path):
    model = model_of()
    runnel.save(model, tmp_path)
    again = runnel.load(tmp_path)
    tokens = torch.tensor([[1, 4, 3]])
    assert torch.equal(again(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("self_terminating", r"self_terminating needs a eos: write self_terminating\(eos=...\)"),
        ("self_terminating(eos=9)", "eos of self_terminating must be one of at least two tokens; got 9"),
        ("self_terminating(eos=0, epsilon=1.0)", r"epsilon of self_terminating must lie in \(0, 1\); got 1.0"),
        ("self_terminating(end=0)", "self_terminating has no option 'end'"),
    ],
)
def test_what_cannot_be_meant_is_refused(head, message):
    with pytest.raises(ValueError, match=message):
        runnel.build("mingru", vocab_size=5, d_model=8, head=head)
