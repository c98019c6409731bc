"""What docs/compat.md says of transformers: every script runs, transformers differs from itself, Runnel does not."""

import re
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "docs" / "compat"
NUMBER = r"(\d\.\d+e[+-]\d+)"


@pytest.mark.parametrize("script", [path.name for path in sorted(SCRIPTS.glob("[a-z]*.py"))])
def test_transformers_differs_from_itself_and_runnel_does_not(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPTS)
    runpy.run_path(str(SCRIPTS / script))
    sys.modules.pop("_pair", None)
    said = capsys.readouterr().out
    ours = [float(number) for number in re.findall(rf"Runnel(?: against transformers' steps)? {NUMBER}", said)]
    theirs = [float(number) for number in re.findall(rf"transformers {NUMBER}", said)]
    assert ours and max(ours) < 2e-5
    assert max(theirs) > 1e-3
