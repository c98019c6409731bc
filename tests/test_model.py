"""The surface of a model: what it accepts, what it refuses and how it says so, files, groups, values."""

import dataclasses
import json

import pytest
import torch

import runnel
from runnel import catalog, patterns
from runnel.state import leaves


def model(**options) -> runnel.Model:
    return runnel.build("(mamba2, attention)", vocab_size=16, d_model=8, **options)


def test_same_arguments_same_weights_and_no_trace_in_the_global_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, other = model(seed=1), model(seed=1), model(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[1, 2, 300]]), r"in \[0, 16\); got 300 at row 0, position 2"),
        (torch.tensor([[1], [-1]]), r"got -1 at row 1, position 0"),
        (torch.zeros(0, 5, dtype=torch.long), r"at least one row and one column; got \(0, 5\)"),
        (torch.zeros(2, 0, dtype=torch.long), r"at least one row and one column; got \(2, 0\)"),
        (torch.zeros(2, 3), r"int64 .* torch.float32"),
        (torch.zeros(3, dtype=torch.long), r"\(B, T\)"),
    ],
)
def test_bad_tokens(tokens, message):
    with pytest.raises(ValueError, match=message):
        model()(tokens)


def test_mixtures_of_tokens_are_means_of_embeddings():
    made = model().double()
    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    certain = torch.eye(16, dtype=torch.float64)[tokens]
    torch.testing.assert_close(made(certain)[0], made(tokens)[0], rtol=0, atol=0)
    weights = torch.rand(2, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    logits, state = made(weights[:, :3])
    mixed = torch.cat([logits, made(weights[:, 3:], state)[0]], dim=1)
    embeddings = (weights @ made.embed.weight).detach()
    made.embed = torch.nn.Embedding.from_pretrained(embeddings.reshape(8, -1))  # a token for each mixture
    expected, _ = made(torch.arange(8).reshape(2, 4))
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.full((1, 2, 15), 1 / 15), r"mixtures of tokens must be \(B, T, 16\) float .* got \(1, 2, 15\)"),
        (torch.full((1, 2, 16), 1 / 8), "sum to 1; got a sum of 2, the least 0.125, at row 0, position 0"),
        (torch.tensor([[[2.0, -1.0] + [0.0] * 14]]), "weights >= 0 .* got a sum of 1, the least -1, at row 0"),
        (torch.full((1, 1, 16), torch.nan), "got a sum of nan, the least nan, at row 0, position 0"),
    ],
)
def test_bad_mixtures(weights, message):
    with pytest.raises(ValueError, match=message):
        model()(weights)


def test_state_and_lineage_must_fit():
    made = model()
    x = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="state must have the 2 rows of the input; got 3"):
        made(x, made.init_state(3))
    with pytest.raises(ValueError, match=r"lineage must be \(2, 3\), as the input; got \(2, 4\)"):
        made(x, lineage=runnel.Lineage.sequence(2, 4))
    with pytest.raises(ValueError, match=r"use model.verify"):
        made(x, lineage=runnel.Lineage.tree(torch.tensor([[-1, 0, 1]] * 2)))
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        made.init_state(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "mamba9"}, "no mixer is called 'mamba9'; did you mean 'mamba"),
        ({"pattern": "atention"}, "did you mean 'attention'"),
        ({"pattern": "zzz"}, "there are: aaren, "),
        ({"pattern": "mamba2+moo"}, "no block is called 'moo'; did you mean 'moe'"),
        ({"pattern": "mamba2(d_stat=3)"}, "mamba2 has no option 'd_stat'; did you mean 'd_state'"),
        ({"pattern": "mamba2(d_state=)"}, r"options are written \(name=number"),
        ({"pattern": "(mamba2, attention"}, r"expected a closing '\)', found the end"),
        ({"pattern": "mamba2*0"}, "a number from 1 to 1024 after '\\*', found '0'"),
        ({"pattern": "mamba2 attention"}, "found 'a'"),
        ({"pattern": ""}, "expected the name of a mixer, found the end"),
        ({"pattern": "mamba2*1000*1000"}, "found '\\*'"),
        ({"pattern": "(mamba2*1000)*1000"}, "at most 1024 layers"),
        ({"pattern": "(mamba2, gla)", "n_layers": 3}, "positive multiple of the pattern's 2 layers; got 3"),
        ({"pattern": "mamba2", "vocab_size": 0}, "vocab_size must be at least 1; got 0"),
        ({"pattern": "mamba2", "value_dim": 2}, "exactly one of vocab_size"),
        ({"pattern": "mamba2", "head": "gausian"}, "no head is called 'gausian'; did you mean 'gaussian'"),
        ({"pattern": "mamba2", "channel": "swiglue"}, "did you mean 'swiglu'"),
    ],
)
def test_bad_build(arguments, message):
    with pytest.raises(ValueError, match=message):
        runnel.build(**{"vocab_size": 16, "d_model": 8, **arguments})


@pytest.mark.parametrize("mixer", catalog.names("mixers"))
def test_sizes_that_cannot_be(mixer):
    """Of every mixer, whatever its page checks itself."""
    fields = {field.name: field.type for field in dataclasses.fields(catalog.page("mixers", mixer).Config)}
    for size in [name for name in (*patterns.SIZES, "rotated") if "int" in fields.get(name, "")]:
        for value in (-1, 7) if size == "rotated" else (0, -1):
            with pytest.raises(ValueError, match=f"got .*{value}"):
                runnel.build(f"{mixer}({size}={value})", vocab_size=5, d_model=16)


def test_patterns_mean_what_they_say():
    from runnel import patterns

    layers = patterns.parse("(mamba2*2, attention(window=4)+none)*2, gla+moe(experts=4, active=1)", "swiglu")
    assert [layer.mixer.name for layer in layers] == ["mamba2", "mamba2", "attention"] * 2 + ["gla"]
    assert layers[2].mixer.options == {"window": 4} and layers[2].block is None
    assert layers[0].block.name == "swiglu" and layers[-1].block.options == {"experts": 4, "active": 1}
    assert [layer.block for layer in patterns.parse("mamba", None, n_layers=3)] == [None] * 3


def test_mixers_side_by_side_are_added():
    from runnel import patterns

    (layer,) = patterns.parse("mamba2 & attention(window=4) & gla+none", "swiglu")
    assert [part.name for part in (layer.mixer, *layer.beside)] == ["mamba2", "attention", "gla"]
    assert layer.beside[0].options == {"window": 4} and layer.block is None
    made = runnel.build("mamba2(head_dim=4) & attention+none", vocab_size=16, d_model=8)
    assert made.semantics() == {"mamba2": 1, "attention": 1}
    mixer, x = made.mixers[0], torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    lineage = runnel.Lineage.sequence(1, 5)
    alone = [part(x, part.init_state(1), lineage)[0] for part in mixer.pages]
    torch.testing.assert_close(mixer(x, mixer.init_state(1), lineage)[0], alone[0] + alone[1])
    torch.testing.assert_close(mixer.reference(x), alone[0] + alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (([1, 2], [-1], [0, 0]), "flat lists of one length"),
        (([1, 2], [1, -1], [0, 0]), "parent of node 0 must be -1 or an earlier node; got 1"),
        (([1, 2], [-1, 0], [0, 1]), "node 1 of row 1 has its parent 0 in row 0"),
        (([1], [-1], [2]), "node 0 continues row 2; the state has 2 rows"),
        (([99], [-1], [0]), r"in \[0, 16\); got 99"),
    ],
)
def test_bad_trees(tree, message):
    made = model()
    with pytest.raises(ValueError, match=message):
        made.verify(made.init_state(2), runnel.DraftTree(*tree))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([[0]], "one list per row"),
        ([[0, 2], []], "broken at node 2: its parent is -1, not 0"),
        ([[1], []], "broken at node 1: its parent is 0, not -1"),
        ([[3], []], "node 3, which belongs to row 1"),
        ([[7], []], "names node 7; the tree has 4 nodes"),
    ],
)
def test_bad_paths(paths, message):
    made = model()
    state = made.init_state(2)
    out = made.verify(state, runnel.DraftTree([1, 2, 3, 4], [-1, 0, -1, -1], [0, 0, 0, 1]))
    with pytest.raises(ValueError, match=message):
        state.commit(out.pending, paths)


def test_pending_of_another_state_is_refused():
    made = model()
    state = made.init_state(1)
    out = made.verify(state, runnel.DraftTree([1], [-1], [0]))
    with pytest.raises(ValueError, match="pending belongs to another state"):
        made.init_state(1).commit(out.pending, [[0]])


def test_saved_model_is_the_same_to_the_bit(tmp_path):
    made = model()
    runnel.save(made, tmp_path / "run")
    loaded = runnel.load(tmp_path / "run")
    assert loaded.fingerprint() == made.fingerprint()
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), loaded.parameters(), strict=True))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "model.safetensors"}


def damage(folder, kind):
    """Spoil a saved model; returns the message that must name the trouble."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        return "damaged or is not a safetensors file"
    if kind == "pickle":
        torch.save({"x": torch.ones(2)}, weights)
        return "damaged or is not a safetensors file"
    if kind == "empty":
        weights.write_bytes(b"")
        return "damaged or is not a safetensors file"
    if kind == "config":
        config.write_text("{not json")
        return "is damaged"
    if kind == "foreign":
        config.write_text('{"architectures": ["LlamaForCausalLM"]}')
        return "does not describe a Runnel model"
    if kind == "other weights":
        runnel.save(runnel.build("gla", vocab_size=16, d_model=8), folder / "other")
        weights.write_bytes((folder / "other" / "model.safetensors").read_bytes())
        return "belongs to another config.json"
    content = json.loads(config.read_text())
    content["semantics"]["mamba2"] = 99
    config.write_text(json.dumps(content))
    return "belongs to another config.json"


@pytest.mark.parametrize("kind", ["truncated", "pickle", "empty", "config", "foreign", "other weights", "edited"])
def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, kind):
    runnel.save(model(), tmp_path / "run")
    message = damage(tmp_path / "run", kind)
    with pytest.raises(ValueError, match=message) as error:
        runnel.load(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        runnel.load(tmp_path / "nothing")


def test_changed_semantics_are_refused(tmp_path, monkeypatch):
    """The same weights under a page whose function has changed: refused, model and state alike."""
    from runnel.mixers.mamba2 import Mamba2

    made = model()
    runnel.save(made, tmp_path / "run")
    made.init_state(1).save(tmp_path / "text.state")
    monkeypatch.setattr(Mamba2, "semantics", 2)
    with pytest.raises(ValueError, match="other versions of its mixers"):
        runnel.load(tmp_path / "run")
    with pytest.raises(ValueError, match="belongs to another model"):
        runnel.State.load(tmp_path / "text.state", model())


def test_a_state_of_trained_on_weights_is_not_saved(tmp_path):
    made = model()
    state = made.init_state(1)
    with torch.no_grad():
        made.norm.weight.add_(1.0)
    with pytest.raises(ValueError, match="weights have changed since this state was begun"):
        state.save(tmp_path / "text.state")


@pytest.mark.parametrize("kind", ["truncated", "foreign", "missing leaf"])
def test_damaged_state_files(tmp_path, kind):
    from safetensors.torch import save_file

    made, path = model(), tmp_path / "text.state"
    made.init_state(2).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    elif kind == "foreign":
        save_file({"x": torch.ones(1)}, path)
    else:
        save_file({"x": torch.ones(1)}, path, {"format": "runnel.state", "model": made.fingerprint()})
    with pytest.raises(ValueError, match=r"damaged|is not a Runnel state file"):
        runnel.State.load(path, made)


@pytest.mark.parametrize(
    ("rows", "message"), [([], "at least one row"), ([2], r"in \[0, 2\); got \[2\]"), ([-1], "-1")]
)
def test_bad_forks(rows, message):
    with pytest.raises(ValueError, match=message):
        model().init_state(2).fork(rows)


def test_cat_refuses_strangers():
    with pytest.raises(ValueError, match="states of one model"):
        runnel.State.cat([model().init_state(1), model(seed=5).init_state(1)])
    with pytest.raises(ValueError, match="at least one state"):
        runnel.State.cat([])


def test_values_in_values_out():
    """A model of real vectors: Gaussian parameters out, NaN and infinity refused with their position."""
    made = runnel.build("mamba2", value_dim=2, d_model=8)
    x = torch.randn(2, 5, 2)
    parameters, state = made(x)
    assert parameters.shape == (2, 5, 4) and state.lengths.tolist() == [5, 5]
    assert made.head.log_prob(parameters, x).shape == (2, 5)
    for bad in (float("nan"), float("inf")):
        x[1, 3, 0] = bad
        with pytest.raises(ValueError, match=f"got {bad} at row 1, step 3, channel 0"):
            made(x)
    with pytest.raises(ValueError, match=r"values must be \(B, T, 2\)"):
        made(torch.zeros(1, 3, 1))


def test_parameter_groups_hold_everything_once_and_spare_gates():
    made = runnel.build("(mamba, rwkv7, slstm, gated_deltanet+moe)", vocab_size=16, d_model=8)
    groups = made.parameter_groups()
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, _ in made.named_parameters())
    treated = {name: group for group in groups for name, _ in group["params"]}
    assert treated["layers.0.mixer.input.weight"]["matrix"] and treated["layers.0.mixer.input.weight"]["weight_decay"]
    for spared in (
        "layers.0.mixer.log_a",
        "layers.0.mixer.dt_bias",
        "layers.1.mixer.mu",
        "norm.weight",
        "embed.weight",
    ):
        assert not treated[spared]["weight_decay"] and not treated[spared]["matrix"]


def test_residual_projections_are_scaled_with_depth():
    shallow, deep = [runnel.build("attention", vocab_size=4, d_model=64, n_layers=n) for n in (1, 16)]
    ratio = shallow.layers[0].mixer.out.weight.std() / deep.layers[0].mixer.out.weight.std()
    assert 3.6 < ratio.item() < 4.4


def test_all_leaves_are_batch_first():
    state = runnel.build("(mamba, attention, slstm)", vocab_size=4, d_model=8).init_state(3)
    assert all(leaf.shape[0] == 3 for leaf in leaves(state.layers))
