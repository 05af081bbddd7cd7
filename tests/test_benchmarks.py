"""The benchmarks of speed start, and the book's table reads what they write."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pacx.book.parts import _scale, _speed

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
    (tmp_path / "y.json").write_text(json.dumps({"machine": {}, "power": []}))  # not of speed
    cells = [[c.strip() for c in r.split("|")[1:-1]] for r in _speed(tmp_path).splitlines()]
    said = {row[0]: row[2:] for row in cells if len(row) == 4}
    assert said["fast"] == ["at least 20", "yes"]
    assert said["slow"] == ["at least 1", "no"]
    assert said["near"] == ["at most 0.003", "yes"]
    assert said["far"] == ["at most 0.003", "no"]
    assert said["open"] == ["", ""]
    assert any("abacus" in cell for row in cells for cell in row)


def test_ten_times_the_data_is_computed_from_the_two_largest_sizes(tmp_path):
    assert "make bench" in _scale(tmp_path)
    sizes = []
    for images, mib in ((1_000, 600), (2_000, 700)):
        part = {"anonymous_mib": 500, "files_mib": 9, "seconds": 60, "cpu_seconds": 3600}
        parts = dict.fromkeys(("start", "table", "open again", "epoch"), part)
        parts["decode"] = part | {"anonymous_mib": mib}
        sizes.append({"images": images, **parts, "cache_bytes": 5e8})
    report = {"pixels": 224, "sizes": sizes}
    (tmp_path / "scale.json").write_text(json.dumps(report))
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in _scale(tmp_path).splitlines()]
    said = {row[0]: row[1:] for row in rows if row}
    assert said["2,000"] == ["500", "500", "700", "500", "500", "9"]
    assert said["what"] == ["2,000 images", "20,000, computed"]
    assert said["cache at 224 pixels, GB"] == ["0.50", "5.0"]
    assert said["hashing and decoding, once, hours of one core"] == ["1.00", "10.0"]
    assert said["opening the cache again, minutes"] == ["1.00", "10.0"]
    # 100 MiB for 1,000 images more, so 1,800 MiB for 18,000 more.
    assert said["anonymous memory, GiB"] == [f"{700 / 1024:.2f}", f"{2500 / 1024:.1f}"]


def test_windows_are_the_first_and_the_last_tenth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from scale import windows

    # 1 second a thousand up to the middle, 3 from there; with every mark twice.
    marks = [(n, n / 1000 + max(0, n - 10_000) / 500) for n in range(0, 20_001, 500)]
    assert windows(sorted(marks * 2)) == pytest.approx([1.0, 3.0])


def test_a_spectrum_has_a_wave_at_its_frequency_and_white_noise_everywhere(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from spectrum import radial_spectrum

    wave = np.cos(2 * np.pi * 6 * np.arange(56) / 56)
    assert radial_spectrum(np.broadcast_to(100 * wave, (2, 56, 56))).argmax() == 6 - 1
    noise = np.random.default_rng(0).normal(0, 3, (400, 56, 56))
    # The lowest frequencies lose what the images' means take away.
    np.testing.assert_allclose(radial_spectrum(noise)[3:], 9, rtol=0.1)


def test_the_committed_spectra_are_within_a_factor_of_two():
    report = json.loads((FOLDER.parent / "book" / "benchmarks" / "spectrum.json").read_text())
    assert report["frequency"] == list(range(1, 29))
    assert all(0.5 <= ratio <= 2 for ratio in report["ratio"])
    assert report["within_a_factor_of_two"]
    assert "ChestX-ray14" in report["source"]
