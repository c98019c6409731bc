"""Records become documents, whoever holds them."""

import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes
from runnel.data import open_source
from runnel.data.text import Config, Source
from runnel.interop.datasets import stream
from runnel.train import TrainConfig, fit

RECORDS = [{"text": f"number {i} and more of it. " * 3, "id": i} for i in range(20)]


def source(records, folder):
    return Source(stream(records, folder), Config(), Bytes(), length=16, batch_size=4, spool=folder)


def test_documents_are_the_records(tmp_path):
    made = stream([*RECORDS, {"text": ""}], tmp_path)
    assert len(made.documents) == len(RECORDS) + 1
    for record, start, stop in zip(RECORDS, made.documents, made.documents[1:], strict=False):
        assert made.read(start, stop).tobytes().decode() == record["text"]


def test_training_reads_them(tmp_path):
    model = runnel.build("mingru", vocab_size=256, d_model=8)
    before = model.embed.weight.clone()
    fit(model, source(RECORDS, tmp_path / "spool"), tmp_path / "run", TrainConfig(steps=3))
    assert not torch.equal(before, model.embed.weight)


def test_datasets_themselves(tmp_path):
    """As objects of either kind; and what `save_to_disk` wrote, alone and by its split, as `runnel train` names it."""
    datasets = pytest.importorskip("datasets", reason="its objects need datasets")
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list(RECORDS)
    expected = stream(RECORDS, tmp_path / "plain")
    made.save_to_disk(tmp_path / "alone")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "split")
    found = [stream(made, tmp_path / "a"), stream(made.to_iterable_dataset(), tmp_path / "b")]
    for name in ("alone", "split"):
        opened = open_source(f"hf://{tmp_path / name}", Bytes(), 16, 4, 0, tmp_path / "spool" / name)
        found.append(opened.stream)
    for one in found:
        assert list(one.documents) == list(expected.documents)
        assert one.read(0, len(one)).tobytes() == expected.read(0, len(expected)).tobytes()


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"text": "a"}, {"body": "b"}], "record 1 must have a text in 'text'; it has NoneType there, and body"),
        ([], "documents must have some text; there is none"),
    ],
)
def test_mistakes(records, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        stream(records, tmp_path)
