"""The benchmarks of speed start, and the book's table reads what they write."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pacx.book_parts import _speed

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", ["mae_step", "distill_step"])
def test_the_parent_stays_small_and_explains_itself(name):
    """Without torch: a child inherits its parent's peak memory."""
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import {name}; "
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
    command = [sys.executable, FOLDER / f"{name}.py", "--help"]
    assert "--json" in subprocess.check_output(command, text=True)


def test_the_table_says_which_targets_were_reached(tmp_path):
    assert "make bench" in _speed(tmp_path)
    ratios = [
        {"what": "fast", "value": 25.0, "target": 20.0},
        {"what": "slow", "value": 0.5, "target": 1.0},
        {"what": "near", "value": 0.001, "target": 0.003, "at_most": True},
        {"what": "far", "value": 0.01, "target": 0.003, "at_most": True},
        {"what": "open", "value": 2.0, "target": None},
    ]
    report = {"ratios": ratios, "machine": {"processor": "abacus"}, "command": "python x.py"}
    (tmp_path / "x.json").write_text(json.dumps(report))
    cells = [[c.strip() for c in r.split("|")[1:-1]] for r in _speed(tmp_path).splitlines()]
    said = {row[0]: row[2:] for row in cells if len(row) == 4}
    assert said["fast"] == ["at least 20", "yes"]
    assert said["slow"] == ["at least 1", "no"]
    assert said["near"] == ["at most 0.003", "yes"]
    assert said["far"] == ["at most 0.003", "no"]
    assert said["open"] == ["", ""]
    assert any("abacus" in cell for row in cells for cell in row)
