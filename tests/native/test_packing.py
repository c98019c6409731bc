"""Packed models: the same function as the model's, and the same bits in every form of a call.

Every mixer that the folder holds is tested, in every variant that its page declares: nothing here names one.
"""

import os
import random
import subprocess
import sys
import threading

import pytest
import torch

import runnel
from runnel import catalog, native
from runnel.mixer import Mixer
from runnel.state import leaves

pytestmark = pytest.mark.skipif(not native.available(), reason="the extension was not built")

VOCAB = 11
SPINE = ["attention", "gated_deltanet", "gla", "linear_attention", "mamba", "mamba2", "mingru", "rwkv7", "slstm"]
NATIVE = [*SPINE, "delta_product", "gateloop", "gss", "hgrn", "log_linear_attention", "lru", "mega", "mom", "rwkv4",
          "s4d", "s5", "attention(cap=2.0)", "block_rnn", "hgrn2(lower_bound=0.5)"]  # fmt: skip
HYBRIDS = ("(mamba2*2, attention)", "(rwkv7, slstm, mingru+none, attention(window=3))")
SPLIT = [[1] * 9, [4, 5], [1, 7, 1]]
KINDS = ("f32", "bf16", "int8", "int4")


def pages():
    found = []
    for name in catalog.names("mixers"):
        mixer = catalog.class_in(catalog.page("mixers", name), Mixer)
        for options in ({}, *mixer.variants):
            text = ", ".join(
                f"{key}={list(value) if isinstance(value, tuple) else value!r}" for key, value in options.items()
            )
            found.append(f"{name}({text})" if text else name)
    return found


def make(pattern, d_model=24, dtype=torch.float32):
    """A model whose parameters are all away from their tidy initial values."""
    model = runnel.build(pattern, vocab_size=VOCAB, d_model=d_model, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.to(dtype)


def tokens(batch, length, seed=0):
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def same(packed, a, b):
    """To the bit, or nearly where a layer runs in PyTorch, which promises no bits."""
    assert a.shape == b.shape
    if not packed.fallbacks or not a.is_floating_point():
        assert torch.equal(a, b), "not the same bits"
    elif a.numel():
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-6


def same_states(packed, a, b):
    assert a.lengths.tolist() == b.lengths.tolist()
    for x, y in zip(leaves(a.layers), leaves(b.layers), strict=True):
        same(packed, x, y)


@pytest.fixture(scope="module", params=[*pages(), *HYBRIDS])
def pattern(request):
    return request.param


@pytest.fixture(scope="module")
def model(pattern):
    return make(pattern)


PACKED = [(page, "bf16") for page in pages() if "=" not in page] + [(text, kind) for text in HYBRIDS for kind in KINDS]
"""All products in the hybrids, one elsewhere; a variant has the operations of its page."""


@pytest.fixture(scope="module", params=PACKED, ids="-".join)
def packed(request):
    pattern, weights = request.param
    return runnel.pack(make(pattern), weights)


@pytest.fixture(scope="module")
def packed_f32(model):
    return runnel.pack(model, "f32")


@pytest.mark.parametrize("name", NATIVE)
def test_these_mixers_are_native(name):
    assert runnel.pack(make(name), "f32").fallbacks == {}


def test_it_is_the_models_function(pattern, packed_f32):
    """Against the model in float64, to 1e-5 of the largest number: outputs and states, from a state of its own."""
    exact = make(pattern, dtype=torch.float64)
    x = tokens(3, 40)
    with torch.no_grad():
        runs = [run_twice(m, x) for m in (exact, packed_f32, make(pattern))]
    for wanted, found, usual in zip(*[[*run[:2], *leaves(run[2].layers)] for run in runs], strict=True):
        assert found.shape == wanted.shape
        if wanted.numel():
            bound = max(1e-5 * wanted.abs().max(), (usual - wanted).abs().max())  # some pages lose more in float32
            assert (found - wanted).abs().max() <= bound
    end, last = runs[1][2], runs[0][2]
    assert [type(m) for m in end.layers] == [type(m) for m in last.layers]


def run_twice(model, x):
    logits, state = model(x)
    return logits, *model(x[:, :5], state)


@pytest.mark.parametrize("name", SPINE)
def test_rounded_weights_stay_near(name):
    model, x = make(name), tokens(2, 20)
    with torch.no_grad():
        expected, _ = model(x)
    for weights, bound in {"bf16": 0.05, "int8": 0.05, "int4": 0.5}.items():
        found, _ = runnel.pack(model, weights)(x)
        assert (found - expected).norm() <= bound * expected.norm(), weights


def test_whole_chunked_and_stepwise_have_the_same_bits(packed):
    x = tokens(2, 9)
    whole, state = packed(x)
    for sizes in SPLIT:
        pieces, at = [], None
        for piece in x.split(sizes, dim=1):
            logits, at = packed(piece, at)
            pieces.append(logits)
        same(packed, torch.cat(pieces, dim=1), whole)
        same_states(packed, at, state)


def test_rows_have_the_same_bits_alone(packed):
    x = tokens(5, 6)
    logits, state = packed(x)
    for row in range(5):
        alone, last = packed(x[row : row + 1])
        same(packed, alone[0], logits[row])
        same_states(packed, last, state.fork([row]))


def test_a_tree_has_the_bits_of_its_paths_and_a_commit_those_of_steps(packed):
    state = packed(tokens(3, 7))[1]
    rng, parents, rows, seen = random.Random(0), [], [], {0: [-1], 2: [-1]}
    for node in range(14):
        row = rng.choice([0, 2])
        parents.append(rng.choice(seen[row]))
        rows.append(row)
        seen[row].append(node)
    tree = runnel.DraftTree([rng.randrange(VOCAB) for _ in rows], parents, rows)
    before = [leaf.clone() for leaf in leaves(state.layers)]
    out = packed.verify(state, tree)
    paths = [[], [], []]
    for node in range(14):
        path = [node]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        at = state.fork([rows[node]])
        for step in path:
            logits, at = packed(tree.tokens[step].view(1, 1), at)
        same(packed, logits[0, 0], out.logits[node])
        if len(path) > len(paths[rows[node]]):
            paths[rows[node]] = path
    after = state.commit(out.pending, paths)
    for row, path in enumerate(paths):
        at = state.fork([row])
        for step in path:
            at = packed(tree.tokens[step].view(1, 1), at)[1]
        same_next(packed, after.fork([row]), at)
    assert all(torch.equal(a, b) for a, b in zip(before, leaves(state.layers), strict=True)), "verify changed the state"


@pytest.mark.parametrize("accepted", [0, 1, 4, 6])
def test_a_chain_has_the_bits_of_its_steps(packed, accepted):
    """One row with a chain and one without; all of it, a part or nothing is accepted."""
    begun = packed(tokens(2, 7))[1]
    text = tokens(1, 6, seed=2)[0]
    out = packed.verify(begun, runnel.DraftTree(text, list(range(-1, 5)), [1] * 6))
    after, at = begun.commit(out.pending, [[], list(range(accepted))]), begun.fork([1])
    for step in range(6):
        logits, following = packed(text[None, step : step + 1], at)
        same(packed, logits[0, 0], out.logits[step])
        at = following if step < accepted else at
        if step >= accepted:
            break
    same_next(packed, after.fork([1]), at)
    same_next(packed, after.fork([0]), begun.fork([0]))


def same_next(packed, a, b):
    """Memories of attention may be padded differently, so what counts is what is computed from them."""
    assert a.lengths.tolist() == b.lengths.tolist()
    step = torch.ones(1, 1, dtype=torch.long)
    same(packed, packed(step, a)[0], packed(step, b)[0])


def test_padded_and_packed_rows(packed_f32, model):
    x, valid = tokens(3, 9), torch.ones(3, 9, dtype=torch.bool)
    valid[0, :4] = valid[1, 5:] = valid[2, 3:6] = False
    begun = packed_f32(tokens(3, 4, seed=1))[1]
    logits, state = packed_f32(x, begun, runnel.Lineage.padded(valid))
    for row in range(3):
        alone, last = packed_f32(x[row : row + 1, valid[row]], begun.fork([row]))
        same(packed_f32, logits[row, valid[row]], alone[0])
        same_next(packed_f32, state.fork([row]), last)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, -1]])
    logits, state = packed_f32(x[:1], begun.fork([0]), runnel.Lineage.packed(segments))
    with torch.no_grad():
        expected, _ = model(x[:1], model(tokens(3, 4, seed=1))[1].fork([0]), runnel.Lineage.packed(segments))
    assert (logits[:, :8] - expected[:, :8]).abs().max() <= 1e-4 * expected.abs().max()
    same_next(packed_f32, state, packed_f32(x[:1, 7:8])[1])


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_text_does_not_depend_on_drafter_or_batch(model, weights):
    packed = runnel.pack(model, weights)
    prompts = [[1, 2, 3, 1, 2, 3], [4], [5, 6, 5, 6, 5]]
    for decoder in ("greedy", "sample"):
        plain = runnel.generate(packed, prompts, max_new_tokens=20, decoder=decoder, seed=3)
        drafted = runnel.generate(packed, prompts, max_new_tokens=20, decoder=decoder, drafter="suffix", seed=3)
        assert drafted.tokens == plain.tokens
        assert packed.fallbacks or drafted.logprobs == plain.logprobs
        alone = runnel.generate(packed, prompts[:1], max_new_tokens=20, decoder=decoder, seed=3)
        assert alone.tokens == plain.tokens[:1]


def test_states_are_saved_and_read(packed, tmp_path):
    state = packed(tokens(2, 5))[1]
    state.save(tmp_path / "a.state")
    same_states(packed, runnel.State.load(tmp_path / "a.state", packed), state)


def test_states_are_those_of_the_model(packed_f32, model, tmp_path):
    """Nothing is rounded, so a state of one is a state of the other."""
    packed_f32(tokens(1, 5))[1].save(tmp_path / "a.state")
    assert runnel.State.load(tmp_path / "a.state", model).lengths.tolist() == [5]


@pytest.mark.parametrize("text", [*HYBRIDS, "(mamba+moe, gla)"])
@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_packed_models_are_saved_and_mapped(text, weights, tmp_path):
    packed = runnel.pack(make(text), weights)
    runnel.save_packed(packed, tmp_path)
    loaded = runnel.load_packed(tmp_path)
    x = tokens(2, 6)
    expected, state = packed(x)
    found, again = loaded(x)
    assert torch.equal(found, expected) and loaded.fallbacks == packed.fallbacks
    same_states(packed, again, state)
    state.save(tmp_path / "a.state")
    runnel.State.load(tmp_path / "a.state", loaded)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"weights.bin is missing or damaged"):
        runnel.load_packed(tmp_path)


def test_two_models_in_two_threads():
    models = [runnel.pack(make(p), "f32") for p in ("mamba2", "attention")]
    expected = [m(tokens(2, 30))[0] for m in models]
    wrong = []

    def work(which):
        for _ in range(20):
            if not torch.equal(models[which](tokens(2, 30))[0], expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKS = """
import os, torch, runnel
torch.set_num_threads(1)
torch.get_num_threads = lambda: 2  # the engine's; a child in which PyTorch itself has several may hang in its OpenMP
packed = runnel.pack(runnel.build("(mamba2, attention)", vocab_size=11, d_model=128, seed=0), "f32")
x = torch.zeros(1, 40, dtype=torch.long)
expected = packed(x)[0]
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(packed(x)[0], expected) else 1)
print(os.waitpid(child, 0)[1])
"""


def test_a_forked_child():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100).stdout == "0\n"


def test_a_layer_without_a_native_form_runs_in_pytorch():
    model = make("(mamba+moe, gla)")
    packed = runnel.pack(model, "f32")
    assert list(packed.fallbacks) == ["layer 0"]
    x = tokens(2, 9)
    state = packed(x[:, :4])[1]
    with torch.no_grad():
        expected, _ = model(x)
        begun = model(x[:, :4])[1]
        tree = runnel.DraftTree([1, 2, 3], [-1, 0, 0], [0, 0, 0])
        wanted = model.verify(begun, tree)
    found, _ = packed(x)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    out = packed.verify(state, tree)
    assert (out.logits - wanted.logits).abs().max() <= 1e-4 * wanted.logits.abs().max()
    after, same = state.commit(out.pending, [[0, 2], []]), begun.commit(wanted.pending, [[0, 2], []])
    for a, b in zip(leaves(after.layers), leaves(same.layers), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_models_of_values():
    model = runnel.build("(mingru, attention)", value_dim=3, d_model=24)
    packed = runnel.pack(model, "f32")
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, _ = model(x)
    found, state = packed(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(packed(x[:, 3:], packed(x[:, :3])[1])[0], found[:, 3:]) and state.lengths.tolist() == [7, 7]


@pytest.mark.parametrize("width", [1, 3, 17, 130])
def test_odd_widths(width):
    for pattern in ("mamba", "mingru", "gla"):
        model = make(pattern, d_model=width)
        with torch.no_grad():
            expected, _ = model(tokens(2, 6))
        found, _ = runnel.pack(model, "f32")(tokens(2, 6))
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("text", HYBRIDS)
def test_any_number_of_threads_gives_the_same_bits(text):
    packed, before = runnel.pack(make(text, d_model=130), "bf16"), torch.get_num_threads()
    expected = packed(tokens(2, 30))[0]
    try:
        for threads in (1, 2, 3, 8, 64):
            torch.set_num_threads(threads)
            assert torch.equal(packed(tokens(2, 30))[0], expected), threads
    finally:
        torch.set_num_threads(before)


def test_inputs_that_are_not_contiguous():
    packed = runnel.pack(make("(mamba, attention)"), "f32")
    assert torch.equal(packed(tokens(6, 2).T)[0], packed(tokens(6, 2).T.contiguous())[0])
    values = runnel.pack(runnel.build("(mamba, attention)", value_dim=3, d_model=24), "f32")
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
    assert torch.equal(values(x)[0], values(x.contiguous())[0])


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"at least one row and one column; got \(0, 5\)"):
        runnel.pack(make("mamba"), "f32")(tokens(0, 5))


def test_the_packed_model_is_a_copy(model):
    packed = runnel.pack(model, "f32")
    before = packed(tokens(1, 5))[0]
    kept = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    after = packed(tokens(1, 5))[0]
    with torch.no_grad():
        for p, old in zip(model.parameters(), kept, strict=True):
            p.copy_(old)
    assert torch.equal(before, after)


def test_a_state_stays_what_it_was():
    """Memories of attention grow in place, but never under a state that can see the place."""
    packed = runnel.pack(make("attention"), "f32")
    state = packed(tokens(1, 5))[1]
    other = packed(tokens(1, 3, seed=1), state)[1]
    first, kept = packed(tokens(1, 4, seed=2), state)
    packed(tokens(1, 4, seed=3), state)
    assert torch.equal(packed(tokens(1, 4, seed=2), state)[0], first)
    assert torch.equal(packed(tokens(1, 2), kept)[0], packed(tokens(1, 2), kept.fork([0]))[0])
    assert torch.equal(packed(tokens(1, 2), other)[0], packed(tokens(1, 2), other.fork([0]))[0])


def test_bad_arguments_are_refused(packed_f32):
    with pytest.raises(ValueError, match="weights must be one of"):
        runnel.pack(make("mingru"), "f8")
    with pytest.raises(ValueError, match=r"tokens must be .* got 99"):
        packed_f32(torch.full((1, 2), 99))
    with pytest.raises(ValueError, match="state must have the 2 rows"):
        packed_f32(tokens(2, 3), packed_f32.init_state(1))
