import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for small_run, which is also a script


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 kB of words drawn from twelve: a byte model learns them in a few dozen steps."""
    words = ["the", "state", "of", "a", "model", "is", "plain", "value", "stream", "forks", "saves", "loads"]
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(rng.choice(words) for _ in range(5000)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def one_thread():
    """Bits are compared here, and the number of threads decides the order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
