"""Folders of checkpoints: what is refused, and how; shards; pickles; the way through the command line."""

import json
import os

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import runnel
from runnel import codecs, interop
from runnel.cli import _app
from runnel.interop import folder as folders

CONFIG = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 12, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    """A small folder, made from a fresh model."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    family = interop.family_of(CONFIG)
    config = family.model_config(interop.complete(family, CONFIG))
    interop.save(runnel.build(**config.to_dict()), folder, like=folder)
    return folder


def change(folder, **fields):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def shard(folder, parts=3):
    """The same tensors in several files with an index."""
    tensors = {name: stored.read() for name, stored in folders.open_tensors(folder).items()}
    size = sum(t.nbytes for t in tensors.values())
    (folder / "model.safetensors").unlink()
    folders.write(folder, json.loads((folder / "config.json").read_text()), tensors.items(), shard=size // parts)


def test_shards_are_the_same_model(checkpoint):
    whole = interop.load(checkpoint)
    shard(checkpoint)
    assert len(list(checkpoint.glob("model-*.safetensors"))) >= 3
    assert interop.load(checkpoint).fingerprint() == whole.fingerprint()


def test_a_folder_without_the_prefix_of_its_names(checkpoint):
    whole = interop.load(checkpoint)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors_of(checkpoint).items()}
    head = bare.pop("lm_head.weight")
    (checkpoint / "model.safetensors").unlink()  # the model that was read looks at it still
    save_file({**bare, "lm_head.weight": head}, checkpoint / "model.safetensors")
    assert interop.load(checkpoint).fingerprint() == whole.fingerprint()


def test_a_pickle_is_read_for_tensors_only(checkpoint):
    whole = interop.load(checkpoint)
    torch.save(tensors_of(checkpoint), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="safetensors files are safer"):
        assert interop.load(checkpoint).fingerprint() == whole.fingerprint()
    torch.save({"model.norm.weight": Harm()}, checkpoint / "pytorch_model.bin")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="cannot be read as tensors only"):
        interop.load(checkpoint)


class Harm:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "lama"}, r"'lama' is not supported; did you mean 'llama'\?; supported are .*mamba2"),
        ({"model_type": None}, "must be an object with a model_type"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "asks for code of its own .* never run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised .gptq.; only folders of plain tensors"),
        ({"hidden_act": "softsign"}, "hidden_act must be one of silu, .* got 'softsign'"),
        ({"rope_scaling": {"type": "su"}}, "rope_type must be default, .* got 'su'"),
        ({"hidden_size": "8"}, "hidden_size of a llama must be a positive number; got '8'"),
        ({"num_key_value_heads": 2}, r"k_proj.weight of .* must be \(8, 8\); got \(4, 8\)"),
        ({"num_hidden_layers": 3}, r"lacks the tensor model.layers.2.input_layernorm.weight, of shape \(8,\)"),
        ({"num_hidden_layers": 1}, "has 9 tensors that its model_type does not: model.layers.1"),
    ],
)
def test_what_is_refused(checkpoint, fields, said):
    change(checkpoint, **fields)
    with pytest.raises(ValueError, match=said):
        interop.load(checkpoint)


def test_shards_that_are_missing_or_elsewhere(checkpoint):
    shard(checkpoint)
    lost = sorted(checkpoint.glob("model-*"))[0]
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ValueError, match=r"model-00001-of-.* is missing: it should hold \d+ tensors, such as"):
        interop.load(checkpoint)
    (checkpoint.parent / "outside.safetensors").write_bytes(content)
    file = checkpoint / "model.safetensors.index.json"
    file.write_text(file.read_text().replace(lost.name, "../outside.safetensors"))
    with pytest.raises(ValueError, match="a shard must lie in the folder itself"):
        interop.load(checkpoint)


@pytest.mark.parametrize("damage", ["cut", "header", "offsets", "dtype", "nothing"])
def test_damaged_files(checkpoint, damage):
    file = checkpoint / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header["model.norm.weight"]
    if damage == "offsets":
        entry["data_offsets"] = [entry["data_offsets"][0], entry["data_offsets"][1] + 4]
    if damage == "dtype":
        entry["dtype"] = "F8_E4M3"
    written = json.dumps(header).encode()
    made = {
        "cut": content[:-8],
        "header": content[:8] + b"{" * length + content[8 + length :],
        "nothing": b"",
    }.get(damage, len(written).to_bytes(8, "little") + written + content[8 + length :])
    file.write_bytes(made)
    with pytest.raises(ValueError, match=r"damaged|F8_E4M3; supported are"):
        interop.load(checkpoint)


def test_export_needs_the_model_that_the_folder_describes(checkpoint):
    with pytest.raises(ValueError, match=r"must be the one that .* describes"):
        interop.save(runnel.build("mamba", 300, 8), checkpoint.parent / "out", like=checkpoint)


def tokenizer_json(folder, extra=()):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<s>", "</s>", *extra])
    made.post_processor = processors.TemplateProcessing("<s> $0", special_tokens=[("<s>", 256)])
    made.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    settings = {"eos_token": "</s>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_import_and_export_by_the_command_line(checkpoint, capsys):
    tokenizer_json(checkpoint)
    run, out = checkpoint.parent / "run", checkpoint.parent / "out"
    assert _app.run(["import", str(checkpoint), str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tokenizer"] and facts["vocab_size"] == 300
    codec = codecs.load(run)
    assert codec.decode(codec.encode("né ü 中")) == "né ü 中"
    assert (codec.opening, codec.eos, codec.vocab_size) == ([256], 257, 300)
    asked = codec.chat([{"role": "user", "content": "hi"}])
    assert asked == [256, *codec.encode("user: hi"), 257]
    assert _app.run(["export", str(run), str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert json.loads((out / "config.json").read_text()) == CONFIG
    assert _app.run(["export", str(run), str(out / "model.gguf")]) == 0
    fields = gguf.GGUFReader(out / "model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 257
    assert (out / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()


def test_a_tokenizer_that_does_not_fit(checkpoint):
    tokenizer_json(checkpoint, [f"<{i}>" for i in range(100)])
    with pytest.raises(ValueError, match="must fit the 300 tokens of the model; its largest is 357"):
        interop.import_run(checkpoint, checkpoint.parent / "run")


def test_nothing_is_written_over_what_it_is_made_of(checkpoint, tmp_path):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with pytest.raises(ValueError, match="must go to another folder; got the same"):
        interop.import_run(checkpoint, checkpoint.parent / "other" / ".." / checkpoint.name)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    interop.import_run(checkpoint, tmp_path / "run")
    with pytest.raises(ValueError, match="must go to another folder; got the same"):
        interop.export_run(tmp_path / "run", tmp_path / "run")


@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_code_in_a_folder_is_never_run(checkpoint, kind, tmp_path):
    """Not when config.json asks for it, not when it does not, and it does not travel with an import."""
    mark = tmp_path / "it ran"
    (checkpoint / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')")
    change(checkpoint, model_type=kind, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(ValueError, match="asks for code of its own"):
        interop.import_run(checkpoint, tmp_path / "run")
    change(checkpoint)
    interop.import_run(checkpoint, tmp_path / "run")
    assert not mark.exists() and not list((tmp_path / "run").rglob("*.py"))


def test_only_what_was_imported_is_exported(checkpoint):
    runnel.save(runnel.build("mamba", 300, 8), checkpoint.parent / "own")
    with pytest.raises(ValueError, match="must be a run that `runnel import` made"):
        interop.export_run(checkpoint.parent / "own", checkpoint.parent / "out")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.filterwarnings("ignore:.*safetensors files are safer")
def test_a_name_of_the_hub(checkpoint, tmp_path, monkeypatch, kind):
    """From the copy that the Hub's own library keeps: it asks the network for nothing else here."""
    expected = interop.load(checkpoint).fingerprint()
    kept = tmp_path / "hub" / "models--some--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots").mkdir()
    checkpoint.rename(kept / "snapshots" / ("0" * 40))
    if kind == "bin":
        file = kept / "snapshots" / ("0" * 40) / "model.safetensors"
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        file.unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert interop.load("some/model").fingerprint() == expected


def test_what_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="some/model is no folder, and the Hub does not give it"):
        interop.load("some/model")
    with pytest.raises(FileNotFoundError, match=r"nowhere.config.json does not exist"):
        interop.load("nowhere")
