"""The authors' folders: the tensors of transformers' Mamba under their names, which is what its converter undoes."""

import json

import pytest
import torch

from runnel import interop
from runnel.interop import folder as folders

from . import test_mamba, test_mamba2
from .support import BOUND, error, logits_of, tokens

CASES = {
    "mamba": (test_mamba.TestMamba, {"d_state": 8}),
    "mamba2": (test_mamba2.TestMamba2, {"layer": "Mamba2", "d_state": 8, "headdim": 8}),
}
BASE = {"d_model": 32, "n_layer": 3, "vocab_size": 97, "rms_norm": True, "pad_vocab_size_multiple": 1}


@pytest.fixture(params=CASES)
def authors(request, tmp_path):
    """A model by transformers, and a folder of the same in the authors' layout."""
    family, ssm = CASES[request.param]
    theirs = family.pair(request.param).theirs
    tied = theirs.config.tie_word_embeddings
    names = {name.replace("embeddings", "embedding"): tensor for name, tensor in theirs.state_dict().items()}
    torch.save(names, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({**BASE, "tie_embeddings": tied, "ssm_cfg": ssm}))
    return theirs, tmp_path


@pytest.mark.filterwarnings("ignore:.*safetensors files are safer")
def test_logits_and_round_trip(authors, tmp_path):
    theirs, folder = authors
    model, (ids,) = interop.load(folder), tokens(30)
    with torch.no_grad():
        assert error(model(ids)[0], logits_of(theirs, ids)) < BOUND
    interop.save(model, tmp_path / "out", like=folder)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )
    before, after = folders.open_tensors(folder), folders.open_tensors(tmp_path / "out")
    assert set(before) - set(after) <= {"lm_head.weight"}
    assert all(torch.equal(before[name].read(), after[name].read()) for name in after)


def test_what_has_no_part_here(authors):
    _, folder = authors
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "attn_layer_idx": [1]}))
    with pytest.raises(ValueError, match=r"attn_layer_idx = \[1\] is not supported"):
        interop.load(folder)


def test_the_vocabulary_is_padded():
    page = interop.supported()["mamba_ssm"]
    theirs = interop.complete(page, {"model_type": "mamba_ssm", "vocab_size": 50277, "d_model": 8, "n_layer": 1})
    assert page.model_config(theirs).vocab_size == 50280
