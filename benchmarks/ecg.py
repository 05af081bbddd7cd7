"""ECG preprocessing: ours against ECGFounder's chain lead by lead, in one run.

Prints, for records of 12 leads, 500 Hz and 10 s: milliseconds a record (CPU time, best of
`--repeats`; and wall time, where threads count), their ratios, and the largest difference of
the outputs. The last entry is scipy's running median by itself: its ratio bounds what any
arrangement of scipy's filters can reach on one core.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy import signal as dsp

from pacx.data.ecg import preprocess
from pacx.phantom.ecg import render_ecgs
from pacx.phantom.state import sample_patients

HZ = 500
WINDOW = int(0.4 * HZ) + 1  # samples of the running median


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    records = np.asarray(
        render_ecgs(sample_patients(options.records, seed=1), HZ, seed=1), dtype=np.float64
    )
    ways: dict[str, Callable[[], np.ndarray]] = {
        "reference, lead by lead": lambda: np.stack([reference(x) for x in records]),
        "ours, one record at a time": lambda: np.stack([preprocess(x, HZ) for x in records]),
        "ours, all records at once": lambda: preprocess(records, HZ),
        "the running median alone": lambda: ndimage.median_filter(records.ravel(), WINDOW),
    }
    seconds = {name: [] for name in ways}
    outputs = {}
    for _ in range(options.repeats):  # in turn, so that a busy moment slows all of them
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            outputs[name] = way()
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    expected = outputs["reference, lead by lead"]
    best = {name: np.min(s, axis=0) / len(records) * 1e3 for name, s in seconds.items()}
    base = best["reference, lead by lead"]
    results = {
        name: {
            "cpu_ms": round(float(cpu), 2),
            "wall_ms": round(float(wall), 2),
            "times_faster_cpu": round(float(base[0] / cpu), 2),
            "times_faster_wall": round(float(base[1] / wall), 2),
        }
        for name, (cpu, wall) in best.items()
    }
    for name in ways:
        if name.startswith("ours"):
            difference = np.abs(outputs[name] - expected).max()
            results[name]["largest_difference"] = float(difference)
    report = {"records": len(records), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    text = json.dumps(report | results, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


def reference(x: np.ndarray) -> np.ndarray:
    """ECGFounder's chain as its authors describe it, one scipy call a lead: (12, T) to (12, T)."""
    notch = dsp.iirnotch(50, Q=30, fs=HZ)
    band = dsp.butter(4, [0.67, 40], "bandpass", fs=HZ)
    out = np.empty_like(x)
    for lead, row in enumerate(x):
        row = dsp.filtfilt(*band, dsp.filtfilt(*notch, row))
        out[lead] = row - dsp.medfilt(row, WINDOW)
    return (out - out.mean()) / (out.std() + 1e-8)


if __name__ == "__main__":
    main()
