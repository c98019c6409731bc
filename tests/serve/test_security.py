"""Who may ask for what: keys, their limits, whose states they are, and what a browser is told."""

import itertools
import logging
import random

import pytest

from runnel.serve.keys import Key, Keys, add, hashed
from runnel.serve.server import check_address
from tests.serve.conftest import serving
from tests.serve.support import completion


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, {name: add(path, name) for name in ("alice", "bob")}


@pytest.fixture(scope="module")
def guarded(run, keys):
    with serving(run, keys=keys[0], stride=32) as client:
        yield client


def of(keys, name):
    return {"Authorization": f"Bearer {keys[1][name]}"}


def test_a_file_of_keys_holds_no_key(keys):
    text = keys[0].read_text()
    assert all(key not in text for key in keys[1].values())
    assert keys[0].stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="must differ"):
        add(keys[0], "bob")
    with pytest.raises(ValueError, match="must differ"):
        Keys([Key("nobody", hashed("x"))])
    with pytest.raises(ValueError, match="64 hexadecimal"):
        Key("x", "abc")


def test_without_a_key_nothing_is_told(guarded, keys):
    for presented in (None, "Bearer wrong", "Bearer", "Basic wrong", keys[1]["bob"]):
        headers = {} if presented is None else {"Authorization": presented}
        for method, path in (
            ("GET", "/v1/models"),
            ("POST", "/v1/completions"),
            ("GET", "/metrics"),
            ("GET", "/nowhere"),
        ):
            found = guarded.request(method, path, headers=headers)
            assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.get("/health").status_code == 200
    assert guarded.get("/v1/models", headers=of(keys, "bob")).status_code == 200


def test_two_hundred_attempts_on_somebody_else_s_states(guarded, keys):
    secret = "alice writes about her plans " * 20
    made = guarded.post("/v1/states", json={"input": secret, "name": "plans"}, headers=of(keys, "alice")).json()
    asked = {"prompt": secret, "max_tokens": 4, "save_state": True, "seed": 1}
    saved = guarded.post("/v1/completions", json=asked, headers=of(keys, "alice")).json()["choices"][0]["state"]
    guarded.service.prefixes.settle()
    bob, rng = of(keys, "bob"), random.Random(0)
    before = guarded.get("/v1/states", headers=of(keys, "alice")).json()
    ids = [
        made["id"],
        saved,
        made["id"].upper(),
        f"{made['id']}%00",
        f"../bodies/{saved}",
        f"{saved}.safetensors",
        "%",
        "*",
    ]
    ids += [
        f"' OR id = '{saved}",
        f"{saved}/file",
        "..",
        "../secret",
        "..%2f..%2fsecret",
        "/etc/passwd",
        "index.sqlite",
    ]

    def attempt(identity):
        yield guarded.get(f"/v1/states/{identity}", headers=bob)
        yield guarded.get(f"/v1/states/{identity}/file", headers=bob)
        yield guarded.delete(f"/v1/states/{identity}", headers=bob)
        yield guarded.post("/v1/completions", json={"prompt": "x", "state": identity}, headers=bob)
        yield guarded.post("/v1/states", json={"input": "x", "state": identity}, headers=bob)
        messages = [{"role": "user", "content": "x"}]
        yield guarded.post("/v1/chat/completions", json={"messages": messages, "state": identity}, headers=bob)
        yield guarded.get("/v1/states", params={"after": identity}, headers=bob)
        yield guarded.get(
            "/v1/states", params={"after": identity, "owner": "alice"}, headers={**bob, "X-Owner": "alice"}
        )

    attempts = 0
    for identity in itertools.chain(ids, ("".join(rng.choices(saved, k=24)) for _ in range(12))):
        for found in attempt(identity):
            attempts += 1
            if found.status_code == 200:
                assert found.json() == {"object": "list", "data": [], "has_more": False}
            else:
                assert found.status_code in (400, 404, 405), found.text
                assert "alice" not in found.text
    assert attempts >= 200
    own = guarded.post("/v1/completions", json={**asked, "save_state": False}, headers=bob).json()
    assert own["usage"]["prompt_tokens_details"]["cached_tokens"] == 0  # nor does the time tell what alice has asked
    assert guarded.get("/v1/states", headers=of(keys, "alice")).json() == before


def test_a_key_has_limits_of_its_own(run, tmp_path):
    from runnel.storage import write_json

    path = tmp_path / "keys.json"
    small = {"name": "small", "sha256": hashed("s"), "requests": 1, "state_bytes": 30_000}
    write_json(path, {"keys": [small, {"name": "large", "sha256": hashed("l")}]})
    with serving(run, keys=path) as client:
        headers = [{"Authorization": f"Bearer {key}"} for key in "sl"]
        statuses = [client.post("/v1/states", json={"input": "x"}, headers=headers[0]).status_code for _ in range(9)]
        assert set(statuses) == {201, 403}
        assert client.post("/v1/states", json={"input": "x"}, headers=headers[1]).status_code == 201
        asked = {"prompt": "x", "max_tokens": 2000, "stream": True, "drafter": "none"}
        with client.stream("POST", "/v1/completions", json=asked, headers=headers[0]) as response:
            lines = response.iter_lines()
            next(lines)
            assert client.get("/v1/models", headers=headers[0]).status_code == 429
            assert client.get("/v1/models", headers=headers[1]).status_code == 200


def test_a_public_address_needs_a_key():
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        with pytest.raises(ValueError, match="--keys"):
            check_address(host, Keys(), force=False)
        check_address(host, Keys(), force=True)
        check_address(host, Keys([Key("a", hashed("a"))]), force=False)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_address(host, Keys(), force=False)


def test_pages_of_others_may_not_ask(client, guarded, keys):
    body = {"content": b"text", "headers": {"Content-Type": "text/plain"}}
    for name, value in (("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Host", "evil.example")):
        body["headers"] = {"Content-Type": "text/plain", name: value}
        assert client.post("/v1/states", **body).status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.get("/v1/models", headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert guarded.get("/v1/models", headers={**of(keys, "bob"), "Host": "models.example"}).status_code == 200


def test_headers_of_every_answer(guarded):
    for path in ("/", "/health", "/nowhere", "/v1/models"):
        headers = guarded.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert "http://" not in guarded.get("/").text.replace("http://www.w3.org", "")


def test_prompts_are_not_logged(client, caplog):
    with caplog.at_level(logging.DEBUG):
        completion(client, "my secret prompt", max_tokens=3)
        client.post("/v1/completions", json={"prompt": "my secret prompt", "drafter": "secret"})
        client.post("/v1/completions", content=b'{"prompt": "my secret prompt')
    assert not [record for record in caplog.records if "secret" in record.getMessage()]


def test_what_is_served_is_described(client):
    described = client.get("/openapi.json").json()
    assert {"/v1/completions", "/v1/chat/completions", "/v1/states", "/v1/embeddings"} <= set(described["paths"])
