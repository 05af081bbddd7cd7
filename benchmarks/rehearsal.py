"""The whole chain at the paper's size on phantoms: seconds and peak memory of every part.

Each part runs in a process of its own in profile `rehearsal` (or another): patients, the trainings
of stages 1 and 2, then probes on a benchmark. Peak memory is the process's resident set, and on a
GPU also what torch held there.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = ("patients", "mae", "labs", "ecg", "pacx", "probes")


def main() -> None:
    """Run all parts, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="rehearsal")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("PART", "RUNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(rehearse(*options.child, options)))
        return
    report = {"profile": options.profile, "precision": options.precision, **machine()}
    with tempfile.TemporaryDirectory() as runs:
        report["parts"] = [in_child(part, runs, options) for part in PARTS]
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def in_child(part: str, runs: str, options: argparse.Namespace) -> dict:
    """One part in a process of its own. This one stays small: a child inherits its peak."""
    chosen = ["--profile", options.profile, "--precision", options.precision]
    command = [sys.executable, __file__, *chosen, "--child", part, runs]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rehearse(part: str, runs: str, options: argparse.Namespace) -> dict:
    """The child: one part, measured."""
    import torch

    from pacx.chapter import open_chapter
    from pacx.evaluation.transfer import compare_probes, open_benchmark
    from pacx.profile import load_profile
    from pacx.run import open_run
    from pacx.training.pipeline import train_encoders

    run = open_run(load_profile(options.profile, precision=options.precision), runs)
    start = time.perf_counter()
    if part == "patients":
        open_chapter(run.folder / "profile.yaml", runs)
    elif part == "probes":
        name = run.profile.benchmarks[0]
        compare_probes(run, open_benchmark(run, name), ["mae", "pacx"], fraction=1.0)
    else:
        train_encoders(run, part)
    seconds = time.perf_counter() - start
    found = {"part": part, "seconds": round(seconds, 1)}
    if part in ("mae", "labs", "ecg", "pacx"):
        history = run.artefact(part) / "history.csv"
        found["steps"] = len(history.read_text().splitlines()) - 1
        settings = getattr(run.profile, {"pacx": "distill"}.get(part, part))
        found["rows a step"] = settings.batch_size
    found["peak, MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if torch.cuda.is_available():
        found["peak on the GPU, MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def machine() -> dict:
    """What these figures were measured on."""
    import torch

    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "load before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
