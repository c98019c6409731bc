"""The page: one file that needs nothing else, and that a browser may run as it stands."""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest

from runnel.serve.app import PAGE


def test_the_page_needs_nothing_from_elsewhere():
    text = PAGE.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["']|@import|url\(|https?://|innerHTML|eval\(""", text)
    names = set(re.findall(r'\bid="([a-z]+)"', text))
    assert set(re.findall(r'at\("([a-z]+)"\)', text)) == names
    assert names >= set(re.findall(r'\bfor="([a-z]+)"', text))


def test_its_policy_allows_what_stands_in_it_and_nothing_else(client):
    found = client.get("/")
    policy = found.headers["content-security-policy"]
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (inline,) = re.findall(f"<{kind}>(.*?)</{kind}>", found.text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert not re.findall(r"\son[a-z]+=", found.text)


def test_its_script_is_one(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which reads the script")
    (script,) = re.findall("<script>(.*?)</script>", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    path = tmp_path / "page.js"
    path.write_text(script)
    assert subprocess.run([node, "--check", path], capture_output=True, check=False).returncode == 0


def test_a_browser_runs_it(client, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium, which runs the page")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", str(client.base_url)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "small: mingru" in found.stdout  # its script has asked the server which model there is
    assert '<option value="suffix">' in found.stdout


def test_the_model_says_what_the_page_shows(client):
    (about,) = client.get("/v1/models").json()["data"]
    assert about["layers"] == 3
    assert about["state_bytes"] > 0
    assert about["state_bytes_per_token"] == 0  # a window of 24 tokens is full when it is measured
    assert about["drafter"] in about["drafters"]
