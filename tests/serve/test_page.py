"""The page: one file that needs nothing else, and that a browser may run as it stands."""

import base64
import hashlib
import math
import re
import shutil
import subprocess
from itertools import pairwise

import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes
from runnel.serve.app import PAGE
from tests.serve.conftest import serving
from tests.serve.support import text_of


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


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A model of ASCII, whose texts are the same bytes again when they are sent back."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    model = runnel.build("mingru, attention(window=24), mamba2", vocab_size=128, d_model=16, seed=1)
    with torch.no_grad():
        model.head.logits.weight.mul_(12.0)
    runnel.save(model, folder)
    Bytes().save(folder)
    with serving(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    """The system's chromium; none is downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives chromium")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium, which runs the page")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, client):
    """The page of the server in a window of its own, which must not complain."""
    from playwright.sync_api import expect

    found, said = browser.new_page(), []
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(str(client.base_url))
    expect(found.locator("#model")).to_contain_text("small: mingru")
    expect(found.locator("#drafter option")).to_have_count(4)
    yield found
    found.close()
    assert not [text for text in said if not text.startswith("Failed to load resource")]  # a refusal, as asked for
    while kept := client.get("/v1/states").json()["data"]:  # a page that goes leaves no states behind
        client.delete(f"/v1/states/{kept[0]['id']}")


def settle(page, text=re.compile(r"^\d+ tokens$")):
    from playwright.sync_api import expect

    expect(page.locator("#said")).to_have_text(text, timeout=30_000)


def write(page, prompt, count=40, way="completion", drafter="suffix"):
    if not page.locator("details").first.get_attribute("open"):
        page.locator("details").first.evaluate("(box) => { box.open = true; }")
    page.select_option("#way", way)
    page.fill("#count", str(count))
    page.select_option("#drafter", drafter)
    page.fill("#prompt", prompt)
    page.press("#prompt", "Control+Enter")
    settle(page)


def shown(page, number):
    return "".join(page.locator(".branch").nth(number).locator(".text").all_text_contents())


def test_a_completion_is_the_server_s_own_and_shows_how_it_was_drafted(page, client):
    write(page, "abcabcabc", count=60)
    expected = text_of(client, "abcabcabc", max_tokens=60, temperature=0.8, seed=0)
    assert shown(page, 0) == "abcabcabc" + expected
    assert page.locator("#speed").text_content().isdigit()
    about = client.get("/v1/models").json()["data"][0]
    assert page.locator("#state").text_content() == f"{about['state_bytes'] / 1e3:.1f} kB"
    assert page.locator("#cache").text_content().startswith(f"{8 * 3 * 16 * (9 + 60) / 1e3:.1f} kB")


def test_drafted_tokens_are_coloured_by_their_place(page):
    page.locator("#temperature").evaluate("(box) => { box.value = 0; }")  # what repeats itself can be guessed
    write(page, "ab" * 40, count=400)
    names = page.locator(".token").evaluate_all("(tokens) => tokens.map((token) => token.className)")
    depths = [int(name.removeprefix("token").strip(" d") or 0) for name in names]
    assert all(b in (0, min(a + 1, 4)) for a, b in pairwise([0, *depths]))
    assert any(depths)
    share = f"{math.floor(100 * sum(map(bool, depths)) / len(depths) + 0.5)} % drafted"  # as a browser rounds
    assert share in page.locator(".branch > .dim").text_content()
    assert page.locator("#positions").get_attribute("aria-label").startswith("position 1: ")


def test_a_text_is_forked_by_the_keyboard(page, client):
    write(page, "abc", count=30)
    whole = shown(page, 0)
    tokens = page.locator(".branch").first.locator(".token")
    tokens.last.focus()
    page.keyboard.press("Home")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    begun = whole[:3] + "".join(tokens.all_text_contents()[:10])
    assert whole.startswith(begun)
    assert shown(page, 1) == begun + text_of(client, begun, max_tokens=30, temperature=0.8, seed=1)
    assert shown(page, 0) == whole
    page.get_by_role("button", name="Close").first.click()
    assert page.locator(".branch").count() == 1


def test_a_conversation_goes_on_and_is_forked(page, client):
    write(page, "Hello!", count=20, way="chat")
    write(page, "And?", count=20, way="chat")
    texts = page.locator(".branch .text").all_text_contents()
    assert texts[::2] == ["Hello!", "And?"]
    told = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, texts, strict=True)]
    asked = {"messages": told[:3], "max_tokens": 20, "temperature": 0.8, "seed": 0}
    assert client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"] == texts[3]
    page.locator(".turn").nth(1).locator(".token").nth(4).click()
    settle(page)
    begun = "".join(page.locator(".turn").nth(1).locator(".token").all_text_contents()[:5])
    told = [told[0], {"role": "assistant", "content": begun}]
    asked |= {"messages": told, "seed": 1, "continue_final_message": True}
    rest = client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
    assert shown(page, 1) == "Hello!" + begun + rest


def test_a_state_is_saved_and_gone_on_from(page, client, tmp_path):
    write(page, "abc", count=20)
    whole = shown(page, 0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    download.value.save_as(tmp_path / "x.state")
    page.set_input_files("#load", tmp_path / "x.state")
    settle(page, "what is written now follows 23 tokens that the state has read")
    write(page, "!", count=20)
    assert shown(page, 1) == "!" + text_of(client, whole + "!", max_tokens=20, temperature=0.8, seed=1)
    page.get_by_role("button", name="Clear").click()
    page.set_input_files("#load", {"name": "x.txt", "mimeType": "text/plain", "buffer": b"a document"})
    settle(page, "what is written now follows 10 tokens that the state has read")


def test_what_goes_wrong_is_said(page):
    write(page, "abc", count=5)
    page.evaluate("""() => { document.getElementById("count").removeAttribute("max"); }""")
    page.fill("#count", "1000000")
    page.press("#prompt", "Control+Enter")
    settle(page, re.compile("max_tokens must"))
    page.get_by_role("button", name="Save").last.click()
    settle(page, "a text has a state once it is finished")


def test_a_table_is_forecast(page):
    pytest.importorskip("pandas", reason="forecasting needs pandas")
    from playwright.sync_api import expect

    page.locator("#write").press("ArrowRight")
    rows = "".join(f"{i},{i % 7},{(i * i) % 11}\n" for i in range(150))
    page.set_input_files("#file", {"name": "x.csv", "mimeType": "text/csv", "buffer": f"t,a,b\n{rows}".encode()})
    expect(page.locator("#told")).to_have_text("ridge, 2 series", timeout=60_000)
    assert page.locator("#chart .fan").count() == 3
    assert page.locator("#table tr").count() == 25
    before = page.locator("#chart .ahead").get_attribute("d")
    page.select_option("#series", "b")
    assert page.locator("#chart .ahead").get_attribute("d") != before
    page.press("#chart", "ArrowRight")
    expect(page.locator("#reading")).to_contain_text("151: ")
    page.set_input_files("#file", {"name": "x.csv", "mimeType": "text/csv", "buffer": b"a,b\nx,y\n"})
    expect(page.locator("#told")).to_contain_text("csv must have", timeout=60_000)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_nothing_sticks_out_on_a_phone_and_the_dark_is_dark(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    write(page, "abc" * 30, count=20)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    channels = page.evaluate("() => getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
    assert (int(channels[0]) < 64) == (scheme == "dark")


def test_the_model_says_what_the_page_shows(client):
    (about,) = client.get("/v1/models").json()["data"]
    assert about["layers"] == 3
    assert about["state_bytes"] > 0
    assert about["state_bytes_per_token"] == 0  # a window of 24 tokens is full when it is measured
    assert about["drafter"] in about["drafters"]
