"""What the tests of serving ask in few words."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import runnel


def completion(client, prompt, **options):
    """The answer to a request that must succeed."""
    found = client.post("/v1/completions", json={"prompt": prompt, **options})
    assert found.status_code == 200, found.text
    return found.json()


def text_of(client, prompt, **options):
    return completion(client, prompt, **options)["choices"][0]["text"]


def parts_of(client, path, asked):
    """The parts of a stream, which must end as streams do."""
    with client.stream("POST", path, json={**asked, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def alone(model, prompt, count, seed, **options):
    """The text and the log-probabilities that the library gives for one request and nobody else."""
    found = runnel.generate(model, [list(prompt.encode())], count, seed=seed, **options)
    return bytes(found.tokens[0]).decode("utf-8", "replace"), found.logprobs[0]


@contextmanager
def process_of(run, states, *options, before=(), program=("-m", "runnel")):
    """A server in a process of its own, and its address. before: a command that runs another. program: of Python."""
    command = [*before, sys.executable, *program, "serve", str(run), "--port", "0", "--states", str(states), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.PIPE, text=True, env=environment)
    with process.stdout:
        try:
            said = process.stdout.readline()
            assert said, "the server did not start"
            yield process, said.split()[-1]
        finally:
            process.kill()
            process.wait()
