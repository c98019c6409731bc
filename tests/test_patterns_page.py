"""Every wiring that docs/patterns.md tells of is built, trained for a step and decoded."""

import re
from pathlib import Path

import pytest
import torch

import runnel

PAGE = (Path(__file__).parents[1] / "docs" / "patterns.md").read_text()
WIRINGS = dict(re.findall(r"^\| (.+?) \| `(.+?)` \|", PAGE, flags=re.MULTILINE))


def test_the_table_is_there():
    assert len(WIRINGS) >= 9


@pytest.mark.parametrize("name", WIRINGS)
def test_it_learns_and_decodes(name):
    model = runnel.build(WIRINGS[name], vocab_size=11, d_model=8).double()
    text = torch.randint(0, 11, (2, 21), generator=torch.Generator().manual_seed(0))
    loss = -model.head.log_prob(model(text[:, :-1])[0], text[:, 1:]).mean()
    loss.backward()
    touched = [p for p in model.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(touched) > 0.8 * len(list(model.parameters()))
    with torch.no_grad():
        whole, _ = model(text)
        _, state = model(text[:, :9])
        rest, state = model(text[:, 9:], state)
        torch.testing.assert_close(rest, whole[:, 9:], rtol=1e-9, atol=1e-9)
        tree = runnel.DraftTree([5, 7, 1, 3], [-1, 0, 0, 2], [0, 0, 0, 0])
        path = model(torch.tensor([[5, 1, 3]]), state.fork([0]))[0][0]
        torch.testing.assert_close(model.verify(state, tree).logits[[0, 2, 3]], path, rtol=1e-9, atol=1e-9)
