"""The authors' folders: the tensors of transformers' Mamba under their names, which is what its converter undoes."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from runnel import interop
from runnel.interop import folder as folders

from . import test_mamba, test_mamba2
from .support import Family, Pair

BASE = {"d_model": 32, "n_layer": 3, "vocab_size": 97, "rms_norm": True, "pad_vocab_size_multiple": 1}


@functools.cache
def authors(case, dtype):
    family, own, ssm = TestMambaSsm.CASES[case]
    theirs = family.pair(own, dtype).theirs
    folder = Path(tempfile.mkdtemp(prefix="runnel-authors-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    names = {name.replace("embeddings", "embedding"): tensor for name, tensor in theirs.state_dict().items()}
    torch.save(names, folder / "pytorch_model.bin")
    config = {**BASE, "tie_embeddings": theirs.config.tie_word_embeddings, "ssm_cfg": ssm}
    (folder / "config.json").write_text(json.dumps(config))
    return Pair(theirs, interop.load(folder), folder)


@pytest.mark.filterwarnings("ignore:.*safetensors files are safer")
class TestMambaSsm(Family):
    CASES = {
        "mamba_ssm": (test_mamba.TestMamba, "mamba", {"d_state": 8}),
        "mamba_ssm_2": (test_mamba2.TestMamba2, "mamba2", {"layer": "Mamba2", "d_state": 8, "headdim": 8}),
    }

    @classmethod
    def pair(cls, case, dtype=torch.float32):
        return authors(case, dtype)

    def test_round_trip(self, case, tmp_path):
        """What is written are safetensors, with a tied head once; the settings are the authors' own."""
        made = self.pair(case)
        interop.save(made.ours, tmp_path, like=made.folder)
        before, after = [folders.open_tensors(folder) for folder in (made.folder, tmp_path)]
        assert json.loads((tmp_path / "config.json").read_text()) == json.loads(
            (made.folder / "config.json").read_text()
        )
        assert set(before) - set(after) <= {"lm_head.weight"}
        assert all(torch.equal(before[name].read(), after[name].read()) for name in after)


@pytest.mark.parametrize("case", TestMambaSsm.CASES)
@pytest.mark.filterwarnings("ignore:.*safetensors files are safer")
def test_what_has_no_part_here(case, tmp_path):
    content = json.loads((authors(case, torch.float32).folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "attn_layer_idx": [1]}))
    with pytest.raises(ValueError, match=r"attn_layer_idx = \[1\] is not supported"):
        interop.load(tmp_path)


def test_the_vocabulary_is_padded():
    page = interop.supported()["mamba_ssm"]
    theirs = interop.complete(page, {"model_type": "mamba_ssm", "vocab_size": 50277, "d_model": 8, "n_layer": 1})
    assert page.model_config(theirs).vocab_size == 50280
