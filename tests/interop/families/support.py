"""A family's checks: a small random model by transformers, written to a folder, read back as a Runnel model.

A test file of a family holds `class TestX(Family)` with its CASES: config classes of transformers and their settings.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

import runnel
from runnel import Lineage, interop, native
from runnel.interop import folder as folders
from tests.decoding.support import CASES as DRAFTERS
from tests.decoding.support import stepped

VOCABULARY = 97
DECODER = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
BOUND, BOUND_64 = 2e-5, 1e-9
LENGTHS = (40, 23, 7)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One model in two libraries. folder: where transformers wrote it."""

    theirs: Any
    ours: runnel.Model
    folder: Path


@functools.cache
def pair(kind: str, settings: str, case: str, dtype: torch.dtype = torch.float32) -> Pair:
    """kind: the config class; settings: the case's settings, as text, so that pairs can be kept."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = getattr(transformers, kind)(**eval(settings))
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config, experts_implementation="eager").eval()
    theirs.generation_config.eos_token_id = theirs.generation_config.pad_token_id = None
    with torch.no_grad():
        learned = [*theirs.parameters(), *(t for n, t in theirs.named_buffers() if n.endswith("correction_bias"))]
        for parameter in learned:  # initial values are too small or too regular to tell parts apart
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.15))
    theirs = theirs.to(dtype)
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix=f"runnel-{case}-"))
    folder = Path(_FOLDERS[-1].name)
    theirs.save_pretrained(folder)
    return Pair(theirs, interop.load(folder), folder)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""Kept as long as the process."""


def tokens(*lengths: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (1, length), generator=generator) for length in lengths]


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((actual - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def logits_of(theirs: Any, ids: torch.Tensor) -> torch.Tensor:
    return theirs(ids, use_cache=False).logits


def padded(rows: Sequence[torch.Tensor], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, T) and where they are valid."""
    width = max(row.shape[1] for row in rows)
    ids, valid = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        span = slice(width - row.shape[1], width) if left else slice(0, row.shape[1])
        ids[i, span], valid[i, span] = row[0], True
    return ids, valid


class Family:
    """CASES: name -> (config class of transformers, settings). DOUBLE: transformers computes it in float64.

    FALLBACKS: cases with a layer that has no native form.
    """

    CASES: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {}
    DOUBLE: ClassVar[bool] = False
    FALLBACKS: ClassVar[tuple[str, ...]] = ()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", list(self.CASES))

    @classmethod
    def pair(cls, case: str, dtype: torch.dtype = torch.float32) -> Pair:
        kind, settings = cls.CASES[case]
        return pair(kind, repr(settings), case, dtype)

    @classmethod
    @torch.no_grad()
    def parity(cls, case: str, dtype: torch.dtype = torch.float32) -> float:
        """The error of the logits of a text against transformers'."""
        made, (ids,) = cls.pair(case, dtype), tokens(LENGTHS[0])
        found = made.ours(ids)[0]
        assert found.dtype == dtype
        return error(found, logits_of(made.theirs, ids).to(dtype))

    @classmethod
    def exact_drafters(cls, case: str) -> list[str]:
        """The drafters with which the greedy text is the literal loop's."""
        model, (ids,) = cls.pair(case, torch.float64).ours, tokens(12, seed=3)
        prompt = ids[0].tolist()
        plain, _ = stepped(model, prompt, 8)
        options = {"max_new_tokens": 8, "decoder": "greedy", "acceptance": "match"}
        texts = {
            name: runnel.generate(model, [prompt], drafter=make(model), **options).tokens[0]
            for name, make in DRAFTERS.items()
        }
        return [name for name, text in texts.items() if text == plain]

    def test_logits(self, case):
        assert self.parity(case) < BOUND

    def test_logits_in_float64(self, case):
        assert self.parity(case, torch.float64) < (BOUND_64 if self.DOUBLE else BOUND)

    def test_every_drafter(self):
        assert self.exact_drafters(next(iter(self.CASES))) == list(DRAFTERS)

    def test_greedy_text(self, case):
        made, (ids,) = self.pair(case), tokens(12)
        expected = made.theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        found = runnel.generate(made.ours, [ids[0].tolist()], max_new_tokens=64, decoder="greedy")
        assert found.tokens[0] == expected[0, ids.shape[1] :].tolist()

    def test_ragged_rows_and_chunks(self, case):
        """Padded on either side, in two chunks or token by token: each row as transformers has it alone."""
        made, rows = self.pair(case), tokens(*LENGTHS)
        expected = [logits_of(made.theirs, row)[0] for row in rows]
        with torch.no_grad():
            for left in (False, True):
                ids, valid = padded(rows, left)
                found, _ = made.ours(ids, lineage=Lineage.padded(valid))
                for i in range(len(rows)):
                    assert error(found[i][valid[i]], expected[i]) < BOUND
            for cuts in ([17], list(range(1, LENGTHS[0]))):
                state, parts = None, []
                for piece in rows[0].tensor_split(cuts, dim=1):
                    logits, state = made.ours(piece, state)
                    parts.append(logits[0])
                assert error(torch.cat(parts), expected[0]) < BOUND

    def test_round_trip(self, case, tmp_path):
        """Also in bfloat16, where some tensors may stay in float32: the same names, dtypes and bytes."""
        import transformers

        for dtype in (torch.float32, torch.bfloat16):
            made = self.pair(case, dtype)
            runnel.save(made.ours, tmp_path / "run")
            interop.save(runnel.load(tmp_path / "run"), tmp_path / "out", like=made.folder)
            before, after = [folders.open_tensors(folder) for folder in (made.folder, tmp_path / "out")]
            assert before.keys() == after.keys()
            for name in before:
                one, other = before[name].read(), after[name].read()
                assert one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8)), name
        loaded, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not any(info.values())
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), made.theirs.parameters(), strict=True))

    def test_tree_equals_paths_and_native_equals_torch(self, case, tmp_path):
        made, (ids,) = self.pair(case), tokens(9)
        with torch.no_grad():
            _, state = made.ours(ids)
            tree = runnel.DraftTree([5, 7, 11, 13], [-1, 0, 0, 2], [0] * 4)
            out = made.ours.verify(state, tree)
            expected = made.ours(torch.tensor([[5, 11, 13]]), state)[0][0]
            assert error(out.logits[[0, 2, 3]], expected) < BOUND
            if not native.available():
                return
            packed = runnel.pack(made.ours, weights="f32")
            assert bool(packed.fallbacks) == (case in self.FALLBACKS), packed.fallbacks
            assert error(packed(ids)[0], made.ours(ids)[0]) < BOUND
            runnel.save_packed(packed, tmp_path)
            assert torch.equal(runnel.load_packed(tmp_path)(ids)[0], packed(ids)[0])
