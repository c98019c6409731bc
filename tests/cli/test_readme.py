"""The README says what is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    """tools/readme.py as a module."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools/readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_methods_is_up_to_date(tool):
    assert tool.filled(README) == README, "run: python tools/readme.py"


def test_a_readme_without_markers_is_refused(tool):
    with pytest.raises(ValueError, match="once each"):
        tool.filled("no markers")


def test_the_tree_names_every_room():
    named = re.findall(r"^[├└]── (\S+)", README, flags=re.MULTILINE)
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "src/runnel").iterdir()}
    assert sorted(named) == sorted(there - {"__init__.py", "__pycache__/"})


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/cli.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1], {})
    assert "target_calls" in capsys.readouterr().out
