"""GGUF files: what they hold is what llama.cpp reads; its own outputs are compared where its binding is installed."""

import gguf
import numpy as np
import pytest
import torch

import runnel
from runnel import interop
from runnel.interop import gguf as writer

from .families import test_gemma2, test_llama, test_mamba, test_mistral, test_qwen2, test_qwen3
from .families.support import tokens

CASES = {
    "llama": test_llama.TestLlama,
    "mistral_whole": test_mistral.TestMistral,
    "qwen2": test_qwen2.TestQwen2,
    "qwen3": test_qwen3.TestQwen3,
    "mamba": test_mamba.TestMamba,
}
CASES |= {
    "llama_linear": test_llama.TestLlama,
    "llama_yarn": test_llama.TestLlama,
    "falcon_mamba": test_mamba.TestMamba,
}


def written(case, tmp_path, family=None):
    made = (family or CASES[case]).pair(case)
    file = tmp_path / f"{case}.gguf"
    writer.write(made.ours, file, like=made.folder)
    return made, file


@pytest.mark.parametrize("case", CASES)
def test_the_file_holds_every_number(case, tmp_path):
    made, file = written(case, tmp_path)
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    stored = sum(array.size for array in found.values())
    assert stored == sum(t.numel() for _, t in interop.theirs_of(made.ours, interop.described(made.ours, made.folder)))
    assert np.array_equal(found["token_embd.weight"], made.ours.embed.weight.detach().numpy())


def test_rotated_pairs_stand_side_by_side(tmp_path):
    made, file = written("llama", tmp_path)
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}["blk.0.attn_q.weight"]
    queries = made.theirs.model.layers[0].self_attn.q_proj.weight.detach().view(4, 8, 32)  # 4 heads of 8
    assert np.array_equal(found.reshape(4, 4, 2, 32)[:, :, 0], queries[:, :4])
    assert np.array_equal(found.reshape(4, 4, 2, 32)[:, :, 1], queries[:, 4:])


def test_the_decay_is_stored_as_it_is_used(tmp_path):
    made, file = written("mamba", tmp_path)
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    assert np.array_equal(found["blk.1.ssm_a"], -made.ours.layers[1].mixer.log_a.detach().exp().numpy())
    assert found["blk.0.ssm_conv1d.weight"].shape == (64, 4)


@pytest.mark.parametrize(
    ("case", "family", "said"),
    [
        ("gemma2", test_gemma2.TestGemma2, "can be written of falcon_mamba, llama, .*; got gemma2"),
        ("mistral", test_mistral.TestMistral, "has no windows"),
        ("mamba_biases", test_mamba.TestMamba, "has no biases but that of its convolution"),
        ("qwen3_biases", test_qwen3.TestQwen3, "has no biases of attention"),
        ("llama3", test_llama.TestLlama, "stretched by linear or plain yarn; got llama3"),
    ],
)
def test_what_llama_cpp_has_no_form_of(case, family, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        written(case, tmp_path, family)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_the_same(case, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    made, file = written(case, tmp_path)
    (ids,) = tokens(20)
    wide = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}  # it keeps halves otherwise
    other = llama_cpp.Llama(str(file), n_ctx=64, logits_all=True, verbose=False, n_threads=1, **wide)
    other.eval(ids[0].tolist())
    with torch.no_grad():
        expected = made.ours(ids)[0][0].numpy()
    found = np.array(other.scores[: ids.shape[1]])
    bound = 2e-4 if case == "falcon_mamba" else 2e-5  # llama.cpp knows one epsilon for all of its norms
    assert np.abs(found - expected).max() / np.abs(expected).max() < bound
    text = runnel.generate(made.ours, ids.tolist(), max_new_tokens=1, decoder="greedy").tokens[0]
    assert int(found[-1].argmax()) == text[0]
