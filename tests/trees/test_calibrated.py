import pytest
import torch

from runnel.trees import calibrated
from tests.trees.support import draws, grown


def table(seed, depths=3, ranks=2):
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.rand(depths, ranks, generator=rng, dtype=torch.float64).mul(0.5).sort(-1, descending=True).values.tolist()
    )


def test_no_tree_of_its_size_is_accepted_further():
    for seed in range(6):
        for nodes in (1, 3, 5):
            accuracies = table(seed)
            shape = calibrated.calibrate(accuracies, nodes)
            found = sum(calibrated.chance(accuracies, ranks) for ranks in shape)
            assert abs(found - calibrated.reference(accuracies, nodes)) < 1e-12
            assert len(set(shape)) == nodes


def test_it_grows_the_shape():
    config = calibrated.Config(table(0), nodes=5)
    shape = calibrated.calibrate(config.accuracies, 5)
    for draw in draws():
        _, paths, _ = grown(config, draw, 3)
        assert sorted(map(len, paths)) == sorted(map(len, shape))
    assert len(calibrated.calibrate(config.accuracies, 1000)) == 2 + 4 + 8


def test_accuracies_are_counted_by_rank():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [0.0, 1.0, 5.0]], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]])
    tokens = torch.tensor([[0, 1], [0, 2]])
    assert calibrated.accuracies(logits, tokens, ranks=2) == [[0.5, 0.5], [0.5, 0.0]]
    assert calibrated.accuracies(logits, tokens, ranks=5) == [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="nodes must be at least 1; got 0"):
        calibrated.Config([[0.5]], nodes=0)
    with pytest.raises(ValueError, match="accuracies must be lists of numbers in"):
        calibrated.Config([[1.5]])
