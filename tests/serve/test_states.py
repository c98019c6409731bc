"""Kept states: documents that are continued, prefixes that are found again, whole after any crash, and exact."""

import signal
import threading

import httpx
import pytest
import torch

import runnel
from runnel import native
from runnel.serve.jobs import distance
from runnel.serve.metrics import Metrics
from runnel.serve.prefixes import Prefixes
from runnel.serve.store import PREFIX, Budget, Full, Store
from runnel.state import State, leaves
from runnel.storage import read_tensors, write_tensors
from tests.serve.conftest import serving
from tests.serve.support import alone, completion, parts_of, process_of, text_of

TEXT = "The quick brown fox jumps over the lazy dog. " * 30


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(leaves(a.layers), leaves(b.layers), strict=True))


def made(client, text, **more):
    found = client.post("/v1/states", json={"input": text, **more})
    assert found.status_code == 201, found.text
    return found.json()


@pytest.mark.skipif(not native.available(), reason="bits are independent of the pieces natively only")
def test_an_answer_from_a_document_is_the_answer_without_it(client, model):
    document = made(client, TEXT, name="fox")
    assert document["tokens"] == len(TEXT)
    expected, logprobs = alone(model, TEXT + " Then", 40, 7, temperature=0.8)
    found = completion(
        client, " Then", state=document["id"], max_tokens=40, seed=7, temperature=0.8, logprobs=0, drafter="suffix"
    )
    assert found["choices"][0]["text"] == expected
    assert found["choices"][0]["logprobs"]["token_logprobs"] == logprobs
    assert found["usage"]["prompt_tokens"] == 1 + len(" Then")  # the newest token of a state is read with the prompt


def test_a_streamed_text_is_the_text_at_once(client):
    def pieces():
        for start in range(0, len(TEXT), 100):
            yield TEXT[start : start + 100].encode()

    streamed = client.post("/v1/states", content=pieces(), headers={"Content-Type": "text/plain"}).json()
    assert streamed["tokens"] == len(TEXT)
    options = {"max_tokens": 20, "seed": 1}
    assert text_of(client, "x", state=streamed["id"], **options) == text_of(client, TEXT + "x", **options)


def test_a_conversation_goes_on_from_the_state_after_an_answer(client):
    whole = text_of(client, "once", max_tokens=60, seed=3)
    first = completion(client, "once", max_tokens=25, seed=3, save_state=True)["choices"][0]
    second = completion(client, "", state=first["state"], max_tokens=35, seed=3, save_state=True)["choices"][0]
    assert first["text"] + second["text"] == whole
    assert client.get(f"/v1/states/{second['state']}").json()["tokens"] == 4 + 60
    parts = parts_of(client, "/v1/completions", {"prompt": "once", "max_tokens": 25, "seed": 3, "save_state": True})
    streamed = parts[-1]["choices"][0]["state"]
    assert text_of(client, "", state=streamed, max_tokens=35, seed=3) == second["text"]
    chat = {"messages": [{"role": "user", "content": "go on"}], "state": first["state"], "max_tokens": 5}
    assert client.post("/v1/chat/completions", json=chat).status_code == 200


def test_documents_are_listed_and_deleted(run):
    with serving(run) as client:
        made_ids = [made(client, f"text {i}")["id"] for i in range(5)]
        first = client.get("/v1/states", params={"limit": 3}).json()
        rest = client.get("/v1/states", params={"limit": 3, "after": first["data"][-1]["id"]}).json()
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert {entry["id"] for entry in first["data"] + rest["data"]} == set(made_ids)
        assert client.delete(f"/v1/states/{made_ids[0]}").json()["deleted"]
        assert client.get(f"/v1/states/{made_ids[0]}").status_code == 404
        assert client.post("/v1/completions", json={"prompt": "x", "state": made_ids[0]}).status_code == 404
        assert len(list(client.service.store.bodies.glob("*.safetensors"))) == 4


def test_a_file_comes_back_and_a_poisoned_one_does_not(client, tmp_path):
    document = made(client, TEXT)
    file = client.get(f"/v1/states/{document['id']}/file").content
    headers = {"Content-Type": "application/octet-stream"}
    back = client.post("/v1/states", content=file, headers=headers).json()
    options = {"max_tokens": 15, "seed": 2}
    assert text_of(client, "a", state=back["id"], **options) == text_of(client, "a", state=document["id"], **options)
    path = tmp_path / "poisoned.state"
    path.write_bytes(file)
    tensors, notes = read_tensors(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    for change in (
        {name: tensors[name] + float("nan")},
        {name: tensors[name][..., :0]},
        {name: tensors[name].double()},
        {"lengths": tensors["lengths"] + 1},
    ):
        write_tensors(path, {**tensors, **change}, notes)
        assert client.post("/v1/states", content=path.read_bytes(), headers=headers).status_code == 400
    write_tensors(path, tensors, {**notes, "newest": "3"})
    for poison in (path.read_bytes(), file[: len(file) // 2], b"\xff" * 100, b"", b"\0" * 8):
        found = client.post("/v1/states", content=poison, headers=headers)
        assert found.status_code == 400
        assert "/tmp" not in found.text
    assert completion(client, "still there", max_tokens=1)


def test_what_is_known_of_a_prompt_is_not_read_again(run, model):
    with serving(run, stride=64) as client:
        options = {"max_tokens": 12, "seed": 5}
        expected, _ = alone(model, TEXT + "A", 12, 5)
        first = completion(client, TEXT + "A", **options)
        client.service.prefixes.settle()
        second = completion(client, TEXT + "A", **options)
        other = completion(client, TEXT[:500] + "B", **options)
        assert [found["usage"]["prompt_tokens_details"]["cached_tokens"] for found in (first, second, other)] == [
            0,
            len(TEXT),
            448,  # of 64, 128, ...: the last before the texts part
        ]
        assert first["choices"][0]["text"] == second["choices"][0]["text"] == expected
        assert other["choices"][0]["text"] == alone(model, TEXT[:500] + "B", 12, 5)[0]
        written = runnel.generate(model, [list((TEXT + "A").encode())], 12, seed=5).tokens[0]
        whole = [*(TEXT + "A").encode(), *written]
        client.service.prefixes.settle()
        next_turn = completion(client, [*whole, *b" and"], **options)
        assert next_turn["usage"]["prompt_tokens_details"]["cached_tokens"] == len(whole) - 1
        assert 'runnel_prefix_lookups_total{result="hit"} 3.0' in client.get("/metrics").text


def test_distances_grow_with_the_text():
    stops = [at for at in range(1, 40_000) if at % distance(at, 64) == 0]
    assert stops[:16] == list(range(64, 1025, 64))
    for octave in (2048, 4096, 8192, 16384):
        assert 8 <= sum(octave <= at < 2 * octave for at in stops) <= 17


@pytest.fixture
def reader(model):
    """Reads a text into a state of one row."""

    def read(text):
        with torch.no_grad():
            return model(torch.tensor([list(text.encode())]))[1]

    return read


def test_a_store_forgets_memory_but_not_disk(tmp_path, model, reader):
    states = [reader(f"state number {i}") for i in range(6)]
    budget = Budget(memory=2 * states[0].nbytes + 10, disk=1 << 30)
    store = Store(tmp_path, model, budget)
    entries = [store.keep("me", (state, 0), i) for i, state in enumerate(states)]
    assert store.memory_bytes <= budget.memory
    for entry, state in zip(entries, states, strict=True):
        assert same(store.state(entry), state)
    assert store.memory_bytes <= budget.memory
    store.close()
    again = Store(tmp_path, model, budget)
    assert [again.find("me", entry.id) for entry in entries] == entries
    assert all(same(again.state(entry), state) for entry, state in zip(entries, states, strict=True))
    assert again.find("you", entries[0].id) is None
    again.close()


def test_prefixes_give_way_and_documents_do_not(tmp_path, model, reader):
    state = reader("some text")
    store = Store(tmp_path, model, Budget(memory=1 << 20, disk=4 * state.nbytes))
    prefixes = [store.keep("me", (state, 0), None, digest=str(i), kind=PREFIX) for i in range(4)]
    store.state(prefixes[0])  # used last
    documents = [store.keep("me", (state, 0), 1) for _ in range(3)]
    assert [store.state(entry) is not None for entry in prefixes] == [True, False, False, False]
    store.keep("me", (state, 0), 1)
    with pytest.raises(Full):
        store.keep("me", (state, 0), 1)
    assert all(store.state(entry) is not None for entry in documents)
    assert len(list(store.bodies.iterdir())) == 4
    assert store.disk_bytes == 4 * state.nbytes
    store.close()


def test_a_state_of_a_crowd_is_kept_without_its_company(tmp_path, model):
    with torch.no_grad():
        both = State.cat([model(torch.tensor([list(range(20))]))[1], model(torch.tensor([[1, 2]]))[1]])
        expected = model(torch.tensor([[1, 2]]))[1]
    store = Store(tmp_path, model, Budget())
    kept = store.state(store.keep("me", (both, 1), 7))
    assert same(kept, expected)
    assert kept.nbytes == expected.nbytes < both.nbytes
    store.close()


def test_damaged_and_half_written_files_are_found_out(tmp_path, model, reader):
    store = Store(tmp_path, model, Budget(memory=0))
    entries = [store.keep("me", (reader(text), 0), 1) for text in ("a", "bb", "ccc")]
    body = store.file(entries[0])
    raw = bytearray(body.read_bytes())
    raw[-20] ^= 1
    body.write_bytes(raw)
    store.file(entries[1]).unlink()
    assert [store.state(entry) is None for entry in entries] == [True, True, False]
    assert store.find("me", entries[0].id) is None
    store.close()
    (store.bodies / "left over.safetensors").write_bytes(b"x")
    (store.bodies / ".abc.safetensors.tmp").write_bytes(b"x")
    with pytest.raises(ValueError, match="another server"):
        first = Store(tmp_path, model, Budget())
        try:
            Store(tmp_path, model, Budget())
        finally:
            first.close()
    again = Store(tmp_path, model, Budget())
    assert [path.stem for path in again.bodies.iterdir()] == [entries[2].id]
    again.close()


def test_prefixes_are_their_owner_s(tmp_path, model, reader):
    store = Store(tmp_path, model, Budget())
    prefixes = Prefixes(store, Metrics(), 64)
    prefixes.offer("me", [1, 2, 3], (reader("abc"), 0))
    prefixes.settle()
    assert prefixes.longest("me", [1, 2, 3, 4]).tokens == 3
    assert prefixes.longest("you", [1, 2, 3, 4]) is None
    assert prefixes.longest("me", [1, 2]) is None
    assert prefixes.longest("me", [2, 2, 3]) is None
    prefixes.offer("me", [7, 7], (reader("ab"), 0))
    prefixes.settle()
    for entry in store.prefixes():
        if entry.tokens == 2:
            store.drop(entry)
    assert prefixes.longest("me", [7, 7, 7]) is None
    prefixes.close()
    store.close()
    store = Store(tmp_path, model, Budget())
    again = Prefixes(store, Metrics(), 64)
    assert again.longest("me", [1, 2, 3, 4]).tokens == 3
    again.close()
    store.close()


def test_a_kill_in_the_middle_of_saving_leaves_whole_states(run, tmp_path, model):
    acknowledged, begun = [], threading.Event()

    def save(address, worker):
        with httpx.Client(base_url=address, timeout=10) as client:
            for i in range(100):
                text = f"state {worker} {i} " * (1 + i % 7)
                try:
                    found = client.post("/v1/states", json={"input": text})
                except httpx.HTTPError:
                    return
                acknowledged.append((found.json()["id"], text))
                if len(acknowledged) > 30:
                    begun.set()

    with process_of(run, tmp_path) as (_, address):
        workers = [threading.Thread(target=save, args=(address, worker)) for worker in range(4)]
        for worker in workers:
            worker.start()
        assert begun.wait(60)
    for worker in workers:
        worker.join()
    assert 30 < len(acknowledged) < 400
    with process_of(run, tmp_path) as (process, address), httpx.Client(base_url=address, timeout=10) as client:
        listed = client.get("/v1/states", params={"limit": 1000}).json()["data"]
        assert {entry["id"] for entry in listed} >= {identity for identity, _ in acknowledged}
        for identity, text in acknowledged:
            assert text_of(client, "!", state=identity, max_tokens=2, seed=1) == alone(model, text + "!", 2, 1)[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    ids = {path.stem for path in (tmp_path / "bodies").iterdir()}
    assert ids >= {identity for identity, _ in acknowledged}


def test_a_full_disk_refuses_and_serves_on(run):
    with serving(run, budget=Budget(memory=1 << 20, disk=50_000)) as client:
        statuses = [client.post("/v1/states", json={"input": f"t{i}"}).status_code for i in range(30)]
        assert set(statuses) == {201, 507}
        assert completion(client, "x", max_tokens=2)
        assert client.get("/health").status_code == 200
