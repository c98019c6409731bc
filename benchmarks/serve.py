"""Serving, measured: streams under load, beside `transformers serve`, parked conversations, a long document resumed.

    python benchmarks/serve.py runs/demo --page docs/results/serving.md     # about half an hour
    python benchmarks/serve.py runs/demo --quick                            # a minute, to see that it works
    python benchmarks/serve.py runs/demo --only load --seconds 60

Starts servers on this machine and reads their memory from /proc. Needs `runnel[serve]`; for the peer also transformers
and openai, which `transformers serve` asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from streams import Load, Request, load

import runnel
from runnel import codecs, interop
from runnel.bench.side_by_side import circumstances, installed, show
from runnel.serve.server import model_of

PROMPTS = ("def main(", "import os\n", "class Stream:\n    ", "# A small state,", "for i in range(10):\n    ")
TOKENS, PEER_TOKENS = 128, 64
DISTINCT = 256
"""Requests that differ; each is answered alone before, and again and again under load."""
IN_PROCESS = 16
"""Of the answers alone, so many are also held against those of the library."""
MEMORY = 200
"""Megabytes of kept states in memory."""
SECTIONS = ("load", "peer", "parked", "document")


def requests(count: int, **more: Any) -> list[Request]:
    common = {"max_tokens": TOKENS, "temperature": 0.8, **more}
    return [{"prompt": PROMPTS[i % len(PROMPTS)], "seed": i, **common} for i in range(count)]


# ---- servers --------------------------------------------------------------------------------------------------------


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of a module of this interpreter, ended when it is no longer needed."""
    own = {**os.environ, **environment}
    with subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, env=own) as found:
        try:
            yield found
        finally:
            found.terminate()
            found.wait(90)


@contextmanager
def server(run: Path, folder: str, *options: str) -> Iterator[tuple[str, int]]:
    """The address and the process of `runnel serve`."""
    command = ["runnel", "serve", str(run), "--port", "0", "--states", folder, "--memory", str(MEMORY), "--json"]
    with process(*command, *options) as started:
        assert started.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = started.stdout.readline()
            if not line:
                raise RuntimeError("the server did not start")
            said += line
        yield json.loads(said)["address"], started.pid


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory; 0 where /proc does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def run_load(address: str, pid: int, asked: Sequence[Request], streams: int, seconds: float, most: int) -> Load:
    return asyncio.run(load(address, asked, streams, seconds, lambda: memory_of(pid), most))


# ---- what is measured -----------------------------------------------------------------------------------------------


def under_load(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One stream alone, which also writes every answer alone; then all of them side by side."""
    asked = requests(options.distinct, drafter=options.drafter)
    with tempfile.TemporaryDirectory() as folder, server(run, folder, *options.serve) as (address, pid):
        alone = run_load(address, pid, asked, 1, float("inf"), len(asked))
        together = run_load(address, pid, asked, options.streams, options.seconds, 10**9)
    expected = {number: next(iter(texts)) for number, texts in alone.answers.items()}
    wrong = sum(
        count for i, texts in together.answers.items() for text, count in texts.items() if text != expected.get(i)
    )
    begun = min(60.0, 0.1 * together.seconds)
    return {
        "drafter": options.drafter,
        "alone": alone.row(),
        "streams": options.streams,
        "together": together.row(),
        "times_one_stream": round(together.rate / alone.rate, 2),
        "answers_unlike_alone": wrong,
        "alone_unlike_in_process": unlike_in_process(run, asked, expected),
        "memory_from_second": round(begun),
        "memory_mb_early": together.memory_at(begun) >> 20,
        "memory_mb_late": together.memory_at(together.seconds) >> 20,
        "first_errors": [*alone.errors, *together.errors][:5],
    }


def unlike_in_process(run: Path, asked: Sequence[Request], texts: dict[int, str]) -> int:
    """How many of the first answers are not those that the library gives in this process."""
    model, codec, wrong = model_of(run, None), codecs.load(run), 0
    for number, one in list(enumerate(asked))[:IN_PROCESS]:
        prompt = codec.encode(one["prompt"])
        found = runnel.generate(model, [prompt], TOKENS, seed=one["seed"], temperature=0.8, codec=codec)
        wrong += found.texts[0] != texts[number]
    return wrong


def peer_folder(folder: Path) -> None:
    """A Llama of a million parameters and byte tokens with random weights, as transformers writes it."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=352, num_hidden_layers=5, num_attention_heads=4,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.do_sample = True
    model.save_pretrained(folder)


@contextmanager
def transformers_serve(folder: Path, port: int, *options: str) -> Iterator[tuple[str, int]]:
    """The address and the process of `transformers serve`."""
    command = ["transformers.cli.transformers", "serve", str(folder), "--port", str(port), "--device", "cpu", *options]
    with process(*command, HF_HUB_OFFLINE="1") as started:
        address, end = f"http://localhost:{port}", time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if started.poll() is not None or time.monotonic() > end:
                raise RuntimeError("transformers serve did not start")
            time.sleep(0.5)
        yield address, started.pid


def beside_peer(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One Llama served by both, in turn, with the same load."""
    if not (installed("transformers") and installed("openai")):
        return {"not_measured": "transformers serve needs transformers and openai"}
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        theirs, ours = Path(place) / "llama", Path(place) / "run"
        peer_folder(theirs)
        interop.import_run(theirs, ours)
        ways = {
            "runnel serve": lambda: server(ours, tempfile.mkdtemp(dir=place), *options.serve),
            "transformers serve": lambda: transformers_serve(theirs, options.port),
            "transformers serve --continuous-batching": lambda: transformers_serve(
                theirs, options.port, "--continuous-batching"
            ),
        }
        for _ in range(options.rounds):
            for name, way in ways.items():
                more = {"drafter": "none"} if name == "runnel serve" else {"model": str(theirs)}
                asked = requests(options.distinct, **{**more, "max_tokens": PEER_TOKENS})
                try:
                    with way() as (address, pid):
                        run_load(address, pid, asked, 1, options.peer_seconds / 6, 8)  # to warm up
                        for streams in (1, options.streams):
                            found = run_load(address, pid, asked, streams, options.peer_seconds, 10**9)
                            row = {**found.row(), "first_errors": found.errors[:3]}
                            rows.setdefault(f"{name}, {streams}", []).append(row)
                except (RuntimeError, OSError, ValueError, IndexError) as error:
                    rows.setdefault(name, []).append({"failed": repr(error)})
    return {"model": "llama, 5 layers of width 128, 256 tokens", "rows": rows}


def parked(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Conversations that are kept, most of them on disk; some of them are gone on with, in the order of chance."""
    words = "the river ran over small stones and nobody counted them "
    with (
        tempfile.TemporaryDirectory() as folder,
        server(run, folder, "--disk", "20000", *options.serve) as (address, pid),
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        client.post("/v1/completions", json={"prompt": words, "max_tokens": 8}).raise_for_status()

        def keep(number: int) -> dict[str, Any]:
            text = f"user: I am number {number}. {words * 4}\nassistant: noted, number {number}."
            return client.post("/v1/states", json={"input": text}).raise_for_status().json()

        before, begun, kept = memory_of(pid), time.perf_counter(), list[dict[str, Any]]()
        with ThreadPoolExecutor(8) as pool:
            for made in pool.map(keep, range(options.parked)):
                kept.append(made)
                if len(kept) % 1000 == 0:
                    said = f"{len(kept)} conversations, {memory_of(pid) >> 20} MB"
                    print(said, file=sys.stderr, flush=True)
        seconds, full = time.perf_counter() - begun, memory_of(pid)
        times = []
        for made in kept[7 :: max(1, len(kept) // 100)]:
            begun = time.perf_counter()
            asked = {"prompt": "!", "state": made["id"], "max_tokens": 1, "drafter": "none"}
            client.post("/v1/completions", json=asked).raise_for_status()
            times.append(time.perf_counter() - begun)
        metrics = client.get("/metrics").text
    kept_bytes = [line for line in metrics.splitlines() if line.startswith("runnel_kept_bytes{")]
    held = {line.split('"')[1]: float(line.split()[-1]) for line in kept_bytes}
    return {
        "conversations": len(kept),
        "tokens_each": round(statistics.mean(made["tokens"] for made in kept)),
        "seconds": round(seconds, 1),
        "per_second": round(len(kept) / seconds, 1),
        "kept_on_disk_mb": round(held["disk"] / 1e6),
        "kept_in_memory_mb": round(held["memory"] / 1e6),
        "budget_mb": MEMORY,
        "process_mb_before": before >> 20,
        "process_mb_after": full >> 20,
        "resume_median_ms": round(1e3 * statistics.median(times), 1),
        "resume_worst_ms": round(1e3 * max(times), 1),
    }


def document(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A long text: its first token when it is read, and when its state comes from the disk of another server."""
    lines = (f"line {i}: a small state, a long stream\n" for i in range(options.document))
    text = ""
    while len(text) < options.document:
        text += next(lines)
    text = text[: options.document]
    asked = {"max_tokens": 1, "seed": 0, "temperature": 0.8, "drafter": "none"}

    def first_token(client: httpx.Client, **more: Any) -> tuple[float, str]:
        begun = time.perf_counter()
        found = client.post("/v1/completions", json={**asked, **more}).raise_for_status().json()
        return time.perf_counter() - begun, found["choices"][0]["text"]

    with tempfile.TemporaryDirectory() as folder:
        with (
            server(run, folder, "--stride", "0", *options.serve) as (address, _),
            httpx.Client(base_url=address, timeout=3600) as client,
        ):
            read, expected = first_token(client, prompt=f"{text}\n")
            headers = {"Content-Type": "text/plain"}
            made = client.post("/v1/states", content=text.encode(), headers=headers).raise_for_status().json()
        with (
            server(run, folder, "--stride", "0", *options.serve) as (address, _),
            httpx.Client(base_url=address, timeout=60) as client,
        ):
            first_token(client, prompt="warm")
            cold, text_cold = first_token(client, prompt="\n", state=made["id"])
            warm = [first_token(client, prompt="\n", state=made["id"])[0] for _ in range(20)]
    return {
        "tokens": made["tokens"],
        "state_bytes": made["bytes"],
        "read_seconds": round(read, 2),
        "resumed_ms": round(1e3 * cold, 1),
        "times_sooner": round(read / cold),
        "resumed_again_ms": round(1e3 * statistics.median(warm), 1),
        "same_token": text_cold == expected,
    }


# ---- the page -------------------------------------------------------------------------------------------------------


def page(report: dict[str, Any]) -> Iterable[str]:
    where = report["circumstances"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    yield "# Serving, measured\n"
    yield f"Made by `python benchmarks/serve.py {report['command']}` on {where['processor']}, {os.cpu_count()} cores,"
    yield f"kernels {where['kernels']}, {versions}. Server and clients share the cores.\n"
    for name, told in (("load", _load), ("peer", _peer), ("parked", _parked), ("document", _document)):
        if name in report:
            yield from told(report[name])


def _load(found: dict[str, Any]) -> Iterable[str]:
    streams, together = found["streams"], found["together"]
    yield "## Streams under load\n"
    yield f"{TOKENS} tokens an answer, temperature 0.8, drafter `{found['drafter']}`; an answer that ends is followed"
    yield "by the next one at once.\n"
    yield from _table([{"streams": 1, **found["alone"]}, {"streams": streams, **together}])
    yield ""
    yield f"- {found['times_one_stream']} times the tokens of one stream (wanted: 4)."
    yield f"- The late gap (p99) is {together['gap_p99_over_median']} times the median (wanted: under 10)."
    yield f"- {together['answers']} answers, {together['errors']} errors; {found['answers_unlike_alone']} differ from"
    yield f"  what the same request is answered alone. {found['alone_unlike_in_process']} of {IN_PROCESS} answers alone"
    yield "  differ from the library's in another process."
    yield f"- Memory of the server: {found['memory_mb_early']} MB after {found['memory_from_second']} s,"
    yield f"  {found['memory_mb_late']} MB at the end.\n"


def _peer(found: dict[str, Any]) -> Iterable[str]:
    yield "## Beside transformers serve\n"
    if "not_measured" in found:
        yield f"Not measured: {found['not_measured']}.\n"
        return
    yield f"The same weights ({found['model']}), random, in float32, served in turn, {PEER_TOKENS}"
    yield "tokens an answer; tokens a second by round.\n"
    yield "| server, streams | tokens/s | errors |"
    yield "|---|---|---|"
    many: dict[str, float] = {}
    for name, rounds in found["rows"].items():
        failed = [row["failed"] for row in rounds if "failed" in row]
        if failed:
            yield f"| {name} | failed: {failed[0]} | |"
            continue
        rates = [row["tokens_per_second"] for row in rounds]
        if not name.endswith(", 1"):
            many[name] = statistics.median(rates)
        yield f"| {name} | {' / '.join(map(str, rates))} | {sum(row['errors'] for row in rounds)} |"
    ours = [rate for name, rate in many.items() if name.startswith("runnel")]
    theirs = [rate for name, rate in many.items() if not name.startswith("runnel")]
    if ours and any(theirs):
        yield f"\nSide by side: {ours[0] / max(theirs):.1f} times the tokens of the faster of theirs (wanted: 3).\n"


def _parked(found: dict[str, Any]) -> Iterable[str]:
    yield "## Parked conversations\n"
    yield f"{found['conversations']} conversations of about {found['tokens_each']} tokens, kept by eight clients"
    yield f"({found['per_second']} a second): {found['kept_on_disk_mb']} MB on disk. In memory there are"
    yield f"{found['kept_in_memory_mb']} MB of states (budget: {found['budget_mb']}); the process had"
    yield f"{found['process_mb_before']} MB before and {found['process_mb_after']} MB after. Going on with one takes"
    yield f"{found['resume_median_ms']} ms to the answer of one token (median; worst {found['resume_worst_ms']} ms).\n"


def _document(found: dict[str, Any]) -> Iterable[str]:
    yield "## A long document\n"
    yield f"{found['tokens']} tokens: {found['read_seconds']} s to the first token after it. From its state of"
    yield f"{found['state_bytes']} bytes, which a server that was started anew reads from disk:"
    yield f"{found['resumed_ms']} ms, {found['times_sooner']} times sooner (wanted: 100);"
    yield f"{found['resumed_again_ms']} ms from memory. The token"
    yield "is the same.\n" if found["same_token"] else "differs.\n"


def _table(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield f"| {' | '.join(name.replace('_', ' ') for name in rows[0])} |"
    yield f"|{'---|' * len(rows[0])}"
    for row in rows:
        yield f"| {' | '.join(map(str, row.values()))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600, help="of the streams side by side")
    parser.add_argument("--drafter", default="none")
    parser.add_argument("--distinct", type=int, default=DISTINCT, help="requests that differ")
    parser.add_argument("--peer-seconds", type=float, default=60, help="of each load of each server")
    parser.add_argument("--rounds", type=int, default=2, help="in which the servers are measured in turn")
    parser.add_argument("--port", type=int, default=18765, help="of transformers serve")
    parser.add_argument("--parked", type=int, default=10_000, help="conversations that are kept")
    parser.add_argument("--document", type=int, default=100_000, help="tokens of the document")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="measure this; may be given again")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION", help="e.g. --serve=--threads=1")
    parser.add_argument("--quick", action="store_true", help="all of it, too small to mean anything")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--page", type=Path, help="write the page here")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(streams=8, seconds=5.0, distinct=16, peer_seconds=3.0, rounds=1, parked=100, document=3000)
    report: dict[str, Any] = {"command": " ".join(sys.argv[1:]), "circumstances": circumstances()}
    measured = {"load": under_load, "peer": beside_peer, "parked": parked, "document": document}
    for name in options.only or SECTIONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        report[name] = measured[name](options.run, options)
    show(report, options.json)
    if options.page is not None:
        options.page.write_text("\n".join(page(report)))


if __name__ == "__main__":
    main()
