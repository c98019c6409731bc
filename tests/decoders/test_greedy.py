import torch

from runnel.decoders import greedy


def test_it_picks_the_likeliest_and_the_lower_of_equals():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double().round()  # rounding makes ties
    picked = greedy.Greedy(greedy.Config()).pick(logits, [0] * 50, [0] * 50)
    assert picked == [greedy.reference(row) for row in logits.tolist()]
    assert any(row.count(max(row)) > 1 for row in logits.tolist())
