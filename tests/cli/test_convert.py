"""`runnel convert`: the example, folders of transformers, resuming, and mistakes."""

import json
from pathlib import Path

import pytest

import runnel as library
from runnel import convert
from tests.cli.conftest import examples, runnel, shell


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    model = library.build("attention(heads=4, head_dim=8)*4", vocab_size=64, d_model=32)
    library.save(model, folder / "teacher")
    return folder


def test_example_runs_as_printed_and_says_what_was_lost(tmp_path):
    result = shell(" && ".join(examples("convert")), tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("teacher: ", "converted, before training: ", "converted, after training: "):
        line = next(line for line in result.stdout.splitlines() if line.startswith(name))
        assert "bits per token, perplexity" in line and "recall" in line
    model = library.load(tmp_path / "runs/gla")
    assert [type(m).__name__ for m in model.mixers] == ["GatedLinearAttention"] * 3 + ["Attention"]


def test_teaching_closes_a_part_of_the_gap_and_the_same_command_goes_on(run):
    source = "recall:pairs=4,vocab=64,valid_batches=2"
    options = ("--keep", "1/2", "--data", source, "--length", 32, "--transfer-steps", 10, "--steps", 20, "--json")
    command = ("convert", "teacher", "out", "--to", "mamba2", *options)
    first, again = runnel(*command, cwd=run), runnel(*command, cwd=run)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    told = json.loads(first.stdout)
    assert told["replaced"] == 2 and set(told["gap"]) == {"teacher", "before", "after"}
    other = runnel("convert", "teacher", "out", "--to", "gla", cwd=run)
    assert other.returncode == 2 and "must be new or hold this very conversion" in other.stderr


def test_without_data_the_weights_are_only_carried_over(run):
    result = runnel("convert", "teacher", "plain", "--to", "gated_deltanet", "--keep", "0.25", cwd=run)
    assert result.returncode == 0, result.stderr
    assert "after training" not in result.stdout and library.load(run / "plain").config.vocab_size == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "lstm"), "attention cannot become 'lstm'"),
        (("--to", "gla", "--keep", "5/4"), "keep must be a share in [0, 1]; got 5/4"),
        (("--to", "gla", "--keep", "some"), "keep must be a share such as 1/4 or 0.25; got 'some'"),
        (("--to", "gla(rank=3)"), "rank must divide the 32 channels of the keys; got 3"),
        (("--to", "gla(ranks=3)"), "gla has no option 'ranks'"),
        (("--to", "gla", "--data", __file__), "the model has no tokenizer, so it cannot read"),
    ],
)
def test_mistakes(run, options, message):
    result = runnel("convert", "teacher", "none", *options, cwd=run)
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1]
    assert not (run / "none/conversion.json").exists()


def test_a_checkpoint_of_transformers_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    teacher = convert.read(tmp_path / "llama").model
    pupil = convert.begin(teacher, "mamba2", "1/2")
    assert pupil.replaced == (0,) and Path(tmp_path / "llama").is_dir()
