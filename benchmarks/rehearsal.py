"""The whole chain at the paper's size on phantoms: seconds and peak memory of every part.

Each part runs in a process of its own in profile `rehearsal` (or another): patients, the trainings
of stages 1 and 2, then probes on a benchmark. Seconds leave out the imports, memory does not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import peak_memory, write_report

#: Part -> the profile's settings of that training.
PARTS = {
    "patients": None,
    "mae": "mae",
    "labs": "labs",
    "ecg": "ecg",
    "pacx": "distill",
    "probes": None,
}


def main() -> None:
    """Run all parts, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="rehearsal")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("PART", "RUNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(rehearse(*options.child, options)))
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as runs:
        parts = [in_child(part, runs, options) for part in PARTS]
    report = {"profile": options.profile, "precision": options.precision, "parts": parts}
    write_report(report | {"ratios": []}, options.json, load)


def in_child(part: str, runs: str, options: argparse.Namespace) -> dict:
    """One part in a process of its own. This one stays small: a child inherits its peak."""
    chosen = ["--profile", options.profile, "--precision", options.precision]
    command = [sys.executable, __file__, *chosen, "--child", part, runs]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rehearse(part: str, runs: str, options: argparse.Namespace) -> dict:
    """The child: one part, measured."""
    from pacx.book.chapter import open_chapter
    from pacx.evaluation.transfer import compare_probes, open_benchmark
    from pacx.profile import load_profile
    from pacx.run import open_run
    from pacx.training.pipeline import train_encoders

    run = open_run(load_profile(options.profile, precision=options.precision), runs)
    start = time.perf_counter()
    if part == "patients":
        open_chapter(run.folder / "profile.yaml", runs)
    elif part == "probes":
        compare_probes(run, open_benchmark(run, run.profile.benchmarks[0]), ["mae", "pacx"])
    else:
        train_encoders(run, part)
    found = {"part": part, "seconds": time.perf_counter() - start}
    if PARTS[part]:
        history = run.artefact(part) / "history.csv"
        found["steps"] = len(history.read_text().splitlines()) - 1
        found["rows_a_step"] = getattr(run.profile, PARTS[part]).batch_size
    return found | peak_memory()


if __name__ == "__main__":
    main()
