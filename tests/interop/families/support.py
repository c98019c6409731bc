"""A family's checks: a small random model by transformers, written to a folder, read back as a Runnel model.

A test file of a family holds `class TestX(Family)` with its CASES: config classes of transformers and their settings.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

import runnel
from runnel import Lineage, catalog, interop, native
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
RULES = [name for name in catalog.names("acceptance") if catalog.page("acceptance", name).LOSSLESS]


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
    def exact_drafters(cls, case: str, rule: str | None = None) -> list[str]:
        """The drafters with which the greedy texts of two ragged rows are the literal loop's, each by another rule of
        acceptance; by one rule: of three such rows, and of one alone.
        """
        model, rules = cls.pair(case, torch.float64).ours, itertools.cycle(RULES if rule is None else [rule])
        prompts = [ids[0].tolist() for ids in tokens(*((12, 5) if rule is None else (12, 5, 1)), seed=3)]
        batches = [prompts] if rule is None else [prompts, prompts[:1]]
        plain = [[stepped(model, prompt, 8)[0] for prompt in batch] for batch in batches]
        found = {}
        for name, make in DRAFTERS.items():
            options = {"max_new_tokens": 8, "decoder": "greedy", "acceptance": next(rules)}
            found[name] = [runnel.generate(model, b, drafter=make(model), **options).tokens for b in batches]
        return [name for name, texts in found.items() if texts == plain]

    def test_logits(self, case):
        assert self.parity(case) < BOUND

    def test_logits_in_float64(self, case):
        assert self.parity(case, torch.float64) < (BOUND_64 if self.DOUBLE else BOUND)

    def test_every_drafter(self):
        assert self.exact_drafters(next(iter(self.CASES))) == list(DRAFTERS)

    @pytest.mark.thorough
    @pytest.mark.parametrize("rule", RULES)
    def test_every_drafter_by_every_rule(self, rule):
        assert self.exact_drafters(next(iter(self.CASES)), rule) == list(DRAFTERS)

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

    def check_bytes(self, made: Pair, folder: Path) -> None:
        """Saved, loaded and written back: the same names, dtypes and bytes."""
        runnel.save(made.ours, folder / "run")
        interop.save(runnel.load(folder / "run"), folder / "out", like=made.folder)
        before, after = [folders.open_tensors(place) for place in (made.folder, folder / "out")]
        assert before.keys() == after.keys()
        for name in before:
            one, other = before[name].read(), after[name].read()
            assert one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8)), name

    def test_round_trip(self, case, tmp_path):
        """Also in bfloat16, where some tensors may stay in float32."""
        import transformers

        for dtype in (torch.bfloat16, torch.float32):
            self.check_bytes(self.pair(case, dtype), tmp_path)
        made = self.pair(case)
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


class Written:
    """A function written down, (tokens (T,)) -> logits (T, V), called as a model of transformers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function = function

    def __call__(self, ids: torch.Tensor, **options: Any) -> Any:
        return SimpleNamespace(logits=torch.stack([self.function(row) for row in ids]))


class Layout(Family):
    """A layout whose library needs a GPU: the peer is its function, written down from the definition.

    CASES: name -> config.json. tensors(config): its tensors, float64. logits(config, tensors, tokens (T,)) -> (T, V).
    """

    DOUBLE = True
    tensors: ClassVar[Callable[..., dict[str, torch.Tensor]]]
    logits: ClassVar[Callable[..., torch.Tensor]]

    @classmethod
    def pair(cls, case: str, dtype: torch.dtype = torch.float32) -> Pair:
        return _written(cls, case, dtype)

    def test_greedy_text(self, case):
        """Every token of it is the likeliest one after those before it."""
        made, (ids,) = self.pair(case), tokens(12)
        text = runnel.generate(made.ours, [ids[0].tolist()], max_new_tokens=64, decoder="greedy").tokens[0]
        whole = torch.tensor([[*ids[0].tolist(), *text]])
        assert logits_of(made.theirs, whole)[0, ids.shape[1] - 1 : -1].argmax(-1).tolist() == text

    def test_round_trip(self, case, tmp_path):
        for dtype in (torch.float32, torch.bfloat16):
            self.check_bytes(self.pair(case, dtype), tmp_path)


@functools.cache
def _written(layout: type[Layout], case: str, dtype: torch.dtype) -> Pair:
    config = layout.CASES[case]
    stored = {name: tensor.to(dtype) for name, tensor in layout.tensors(config).items()}
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix=f"runnel-{case}-"))
    folder = Path(_FOLDERS[-1].name)
    folders.write(folder, config, stored.items())
    return Pair(Written(functools.partial(layout.logits, config, stored)), interop.load(folder), folder)
