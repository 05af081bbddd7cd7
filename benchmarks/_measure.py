"""What the benchmarks share: ways that take turns, each in a process of its own, and the report."""

import importlib.metadata
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path


def take_turns(script: str, ways: Mapping[str, list[str]], repeats: int) -> dict[str, dict]:
    """Measure ways side by side, so that a busy moment slows all of them.

    This process must stay small: a child inherits its peak memory.

    Args:
        script: File that calls `serve` when it gets the arguments of a way.
        ways: Name to arguments.
        repeats: Turns of each way.

    Returns:
        Name to the facts of `serve`, with median and best seconds and the peak memory in MiB.
    """
    children = {
        name: subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Threads that spin while another process has its turn would slow it.
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )
        for name, arguments in ways.items()
    }

    def ask(name: str) -> dict:
        children[name].stdin.write("\n")
        children[name].stdin.flush()
        answer = children[name].stdout.readline()
        if not answer:
            raise SystemExit(f"'{name}' ended early; its own message stands above.")
        return json.loads(answer)

    try:
        results = {name: ask(name) for name in children}  # builds, warms up
        seconds = {name: [] for name in children}
        for _ in range(repeats):
            for name in children:
                seconds[name].append(ask(name)["seconds"])
        for name, child in children.items():
            results[name]["seconds"] = statistics.median(seconds[name])
            results[name]["best_seconds"] = min(seconds[name])
            results[name] |= json.loads(child.communicate()[0])
    finally:
        for child in children.values():
            child.kill()
    return results


def serve(make: Callable[[], tuple[Callable[[], object], dict]]) -> None:
    """The child: build, then one step for every line read; at the end the peak memory.

    Args:
        make: Gives the step, and facts for the report.
    """
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        sys.stdin.readline()
        step, facts = make()
        step()
        print(json.dumps(facts), file=answers, flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            step()
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds}), file=answers, flush=True)
    print(json.dumps(peak_memory()))


def peak_memory() -> dict[str, int]:
    """Of this process, and on a GPU what torch held there; MiB."""
    import torch

    found = {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    if torch.cuda.is_available():
        found["gpu_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def write_report(report: dict, file: Path | None, load: float) -> None:
    """Print, and write under a temporary name that is then renamed.

    Args:
        report: `ratios` is a list of {what, value, target}; the book's table is made of it.
        file: None only prints.
        load: Of the machine before the work.
    """
    import torch

    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    machine = {
        "processor": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": importlib.metadata.version("torch"),
        "load_before": round(load, 2),
    }
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_public(sys.argv[1:])])
    text = json.dumps({"machine": machine, "command": command, **report}, indent=1)
    print(text)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, file)


def _public(arguments: list[str]) -> list[str]:
    """Arguments without this machine's folders."""
    return [Path(a).name if a.startswith("/") else a for a in arguments]
