"""Fixtures for all tests."""

import os
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import pytest
import torch

HOUSE = Path(find_spec("runnel").origin).parent
CHECKED = [
    f"runnel.{room}.{page.stem}"
    for room in ("ops", "mixers", "blocks", "norms", "heads")
    for page in sorted((HOUSE / room).glob("*.py"))
    if "from jaxtyping import" in page.read_text(encoding="utf-8")
]
"""Pages whose shapes are checked at every call. Other rooms tell their users themselves what is wrong."""

jaxtyping.install_import_hook(CHECKED, "shape_checker.check")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files beside the checkout; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data files in {folder}, which are not part of the repository")
    return folder
