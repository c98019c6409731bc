"""A small model behind a real server at a loopback address, started and stopped by the test that asks for it."""

import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes
from runnel.serve.server import Settings, model_of, server_of


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `runnel train` leaves it: a model of bytes with a short memory and a long one."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    model = runnel.build("mingru, attention(window=24), mamba2", vocab_size=256, d_model=16, seed=1)
    with torch.no_grad():
        model.head.logits.weight.mul_(12.0)
    runnel.save(model, folder)
    Bytes().save(folder)
    return folder


@contextmanager
def serving(run: Path, **options):
    """A client of a server with these settings, at a port that is free."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _serving(Settings(run, **{"states": Path(folder), "port": 0, **options}))


def _serving(settings: Settings):
    found: list[str] = []
    server = server_of(settings, found.append)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not found:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < end, "the server did not start in time"
            time.sleep(0.01)
        with httpx.Client(base_url=found[0], timeout=60) as client:
            client.engine, client.service = server.service.engine, server.service
            yield client
    finally:
        server.handle_exit(15, None)
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def client(run):
    with serving(run) as found:
        yield found


@pytest.fixture(scope="session")
def model(run):
    """The served model, for answers alone."""
    return model_of(run, None)
