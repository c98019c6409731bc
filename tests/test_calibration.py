"""Trees that are learnt from what a target writes: counted as the definition says, kept, and refused when damaged."""

import json

import pytest
import torch

from runnel import calibration
from runnel.drafters import draft_model, suffix
from runnel.generation import generate
from runnel.trees import acceptance_head, calibrated
from tests.decoding.support import RAGGED, sharp

TOKENS, AHEAD = 13, 3


def measured(model, other, **options):
    def drafter(tree):
        return draft_model.Config(other, max_draft=AHEAD, tree=tree)

    return calibration.accuracies(model, drafter, RAGGED, TOKENS, ranks=4, **options)


def test_accuracies_are_the_shares_of_right_guesses():
    model, other = sharp(), sharp("mingru", seed=1)
    texts = generate(model, RAGGED, TOKENS, temperature=0.0).tokens
    hits, places = [[0] * 4 for _ in range(AHEAD)], [0] * AHEAD
    for prompt, text in zip(RAGGED, texts, strict=True):
        for start in range(0, TOKENS, AHEAD + 1):  # all guesses are right, and one more token is written
            for ahead in range(min(AHEAD, TOKENS - 1 - start)):
                with torch.no_grad():
                    logits = other(torch.tensor([[*prompt, *text[: start + ahead]]]))[0][0, -1]
                best = logits.argsort(descending=True)[:4].tolist()
                places[ahead] += 1
                for rank in range(4):
                    hits[ahead][rank] += best[rank] == text[start + ahead]
    found = measured(model, other, temperature=0.0)
    assert found == [[h / n for h in own] for own, n in zip(hits, places, strict=True)]
    assert 0 < sum(map(sum, found)) < AHEAD


def test_a_target_that_drafts_for_itself_is_always_right():
    assert measured(sharp(), sharp(), temperature=0.7, seed=3) == [[1.0, 0.0, 0.0, 0.0]] * AHEAD


def test_a_drafter_without_a_law_is_refused():
    with pytest.raises(ValueError, match="must grow a tree of its own law"):
        calibration.accuracies(sharp(), lambda tree: suffix.Config(), RAGGED, TOKENS)


def test_trees_are_kept(tmp_path):
    tree = calibrated.Config([[0.5, 0.25], [0.125, 0.0]], nodes=3)
    calibration.save(tree, tmp_path / "one")
    assert calibration.is_tree(tmp_path / "one") and not calibration.is_tree(tmp_path)
    assert calibration.load(tmp_path / "one") == tree
    head = calibration.foreseeing(sharp(), sharp("mingru", seed=1), torch.randint(0, 5, (4, 16)), 1.0)
    calibration.save(acceptance_head.Config(head, 0.4), tmp_path / "two")
    again = calibration.load(tmp_path / "two")
    assert again.threshold == 0.4
    for own, other in zip(head.state_dict().values(), again.head.state_dict().values(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_damaged_trees_are_refused(tmp_path):
    calibration.save(calibrated.Config([[0.5]], nodes=1), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"format": "runnel.tree", "tree": "calibrated", "config": {"nodes": 1}}))
    with pytest.raises(ValueError, match="is damaged"):
        calibration.load(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="does not describe a tree builder"):
        calibration.load(tmp_path)
