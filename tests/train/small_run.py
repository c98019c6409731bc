"""A run small enough for a test; as a script, in a process that can be killed: small_run.py TEXT FOLDER SETTINGS."""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import dropout

import runnel
from runnel.codecs.bytes import Bytes
from runnel.data import open_source
from runnel.train import Interrupted, TrainConfig, fit

SETTINGS = {"steps": 12, "lr": 1e-2, "valid_every": 5, "save_seconds": 1e9}
SAVING = {**SETTINGS, "save_seconds": 0.0}  # after each step


def make_model(noisy=True, pattern="mingru, attention"):
    """noisy: dropout after the embedding, so that a run depends on PyTorch's generator; evaluation draws too."""
    model = runnel.build(pattern, vocab_size=256, d_model=16, seed=0)
    if noisy:
        embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
        embedding.register_forward_hook(_drop)
    return model


def _drop(module, args, output):
    dropped = dropout(output, 0.1)
    return dropped if module.training else output


def make_source(text, batch_size=4):
    return open_source(text, Bytes(), length=24, batch_size=batch_size, seed=0, valid_fraction=0.02)


def run(text, folder, on_step=None, noisy=True, **settings):
    config = TrainConfig(**{**SETTINGS, **settings})
    return fit(make_model(noisy), make_source(text), folder, config, on_step)


def exported(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def main():
    torch.set_num_threads(1)
    text, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    try:
        run(text, folder, lambda report: print(report.step, flush=True), **settings)
    except (ValueError, OSError, Interrupted) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
