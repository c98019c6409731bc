"""A state is a value: held ones stay as they were, forks are apart, files give back every bit."""

import subprocess
import sys

import pytest
import torch

import runnel
from runnel.state import leaves

from .conftest import SUBJECTS, close, make, same_state, tokens


def snapshot(state: runnel.State) -> list[torch.Tensor]:
    return [leaf.clone() for leaf in [*leaves(state.layers), state.lengths]]


def test_computing_never_changes_a_held_state(model):
    with torch.no_grad():
        state = model(tokens(2, 7))[1]
        before = snapshot(state)
        first = model(tokens(2, 5, seed=1), state)[0]
        model(tokens(2, 1, seed=2), state)
        out = model.verify(state, runnel.DraftTree([1, 2, 3], [-1, 0, -1], [0, 0, 1]))
        state.commit(out.pending, [[0, 1], [2]])
        model(tokens(2, 3), state, runnel.Lineage.padded(torch.tensor([[True, False, True], [False, True, True]])))
        assert all(torch.equal(a, b) for a, b in zip(before, snapshot(state), strict=True))
        assert torch.equal(model(tokens(2, 5, seed=1), state)[0], first), (
            "the same call on the same state, another answer"
        )


def test_forks_are_apart_and_cat_undoes_them(model):
    with torch.no_grad():
        state = model(tokens(3, 7))[1]
        forked = state.fork([0, 0, 2])
        assert forked.lengths.tolist() == [7, 7, 7]
        before = snapshot(state)
        for leaf in leaves(forked.layers):
            leaf.zero_()
        assert all(torch.equal(a, b) for a, b in zip(before, snapshot(state), strict=True)), "a fork shares memory"
        same_state(runnel.State.cat([state.fork([0]), state.fork([1, 2])]), state, bound=0)


def test_cat_of_rows_of_different_lengths(model):
    with torch.no_grad():
        short, long = model(tokens(1, 3))[1], model(tokens(1, 12, seed=1))[1]
        both = runnel.State.cat([short, long])
        assert both.lengths.tolist() == [3, 12]
        x = tokens(2, 4, seed=2)
        logits, after = model(x, both)
        for row, alone in enumerate((short, long)):
            expected, last = model(x[row : row + 1], alone)
            close(logits[row], expected[0])
            step = torch.ones(1, 1, dtype=torch.long)
            close(model(step, after.fork([row]))[0], model(step, last)[0])


def test_saved_and_loaded_state_is_bit_exact(model, tmp_path):
    with torch.no_grad():
        state = model(tokens(2, 9))[1]
        state.save(tmp_path / "text.state")
        loaded = runnel.State.load(tmp_path / "text.state", model)
        assert all(torch.equal(a, b) for a, b in zip(snapshot(state), snapshot(loaded), strict=True))
        assert [a.dtype for a in snapshot(state)] == [b.dtype for b in snapshot(loaded)]
        assert torch.equal(model(tokens(2, 3), state)[0], model(tokens(2, 3), loaded)[0])


def test_states_saved_by_one_process_and_loaded_by_another(tmp_path):
    """Another process loads model and state of every subject, and goes on to the same bits."""
    expected = {}
    for number, pattern in enumerate(SUBJECTS):
        model, folder = make(pattern), tmp_path / str(number)
        with torch.no_grad():
            state = model(tokens(2, 9))[1]
            runnel.save(model, folder / "model")
            state.save(folder / "text.state")
            expected[str(number)] = model(tokens(2, 3, seed=7), state)[0]
    program = """
import pathlib, sys, torch, runnel
from safetensors.torch import save_file
torch.set_num_threads(int(sys.argv[2]))
tokens = torch.randint(0, 11, (2, 3), generator=torch.Generator().manual_seed(7))
logits = {}
for folder in pathlib.Path(sys.argv[1]).iterdir():
    model = runnel.load(folder / "model")
    with torch.no_grad():
        logits[folder.name] = model(tokens, runnel.State.load(folder / "text.state", model))[0]
save_file(logits, sys.argv[1] + "/out.safetensors")
"""
    threads = str(torch.get_num_threads())
    subprocess.run([sys.executable, "-c", program, str(tmp_path), threads], check=True, timeout=240)
    from safetensors.torch import load_file

    found = load_file(tmp_path / "out.safetensors")
    for number, pattern in enumerate(SUBJECTS):
        assert torch.equal(found[str(number)], expected[str(number)]), pattern


def test_nbytes_counts_what_is_held(model):
    state = model(tokens(2, 9))[1]
    held = [*leaves(state.layers), state.lengths]
    assert state.nbytes == sum(leaf.numel() * leaf.element_size() for leaf in held)
    assert state.fork([0]).nbytes * 2 == state.nbytes


def test_another_models_state_is_refused(model, tmp_path):
    model(tokens(1, 4))[1].save(tmp_path / "text.state")
    other = make(model.config.pattern, seed=5)
    with pytest.raises(ValueError, match="belongs to another model"):
        runnel.State.load(tmp_path / "text.state", other)


@pytest.mark.timeout(1800)  # gold makes all its keys anew at every step
@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.thorough), torch.float32])
def test_twenty_thousand_steps_do_not_drift(model, dtype):
    """One token at a time against 500 at a time; in float32 the two may differ by rounding, not by more with time."""
    length, chunk = 20_000 if dtype == torch.float64 else 2_000, 500
    tested = model if dtype == torch.float64 else runnel.build(**model.config.to_dict())
    tested.load_state_dict(model.state_dict())
    x = tokens(1, length, seed=4)
    with torch.no_grad():
        stepped, state, chunked = None, None, None
        for start in range(0, length, chunk):
            expected, chunked = tested(x[:, start : start + chunk], chunked)
            for t in range(start, start + chunk):
                stepped, state = tested(x[:, t : t + 1], state)
        close(stepped[:, -1], expected[:, -1], bound=1e-9 if dtype == torch.float64 else 1e-3)
        same_state(state, chunked, bound=1e-9 if dtype == torch.float64 else 1e-2)
