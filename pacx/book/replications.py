"""The evidence: the chapters' tables on fresh cohorts, each with a training seed of its own.

A repetition is a run like any other, with seeds of its own: its chapters are executed by the code
that executes the reader's, and their result tables are put together. What was stopped goes on.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from joblib import cpu_count
from tqdm import tqdm

from pacx.book.execution import execute, signature_of, sources_of
from pacx.errors import PacxError
from pacx.files import new_folder
from pacx.processes import device, end_quietly
from pacx.run import Run, open_run

#: Tables that are pooled, where a chapter has made them.
TABLES = (
    "transfer", "physiology", "probe_length", "residual_states", "shortcut", "another_hospital",
    "label_efficiency", "alignment", "components", "controls", "ladder_all", "direct", "teachers",
    "forgetting", "keeping", "attention", "faithfulness", "randomisation", "claims",
)  # fmt: skip


def gather_evidence(
    run: Run, out: Path, project: Path = Path(), part: tuple[int, int] = (1, 1)
) -> Path:
    """Repeat the chapters on fresh cohorts, and write their tables with their cohort to `out`.

    Each repetition has one thread, so as many run side by side as there are cores. A repetition's
    seed is that of its cohort: patients and trainings vary together.

    Args:
        run: Of a profile with `evidence`; repetitions are runs inside its folder.
        out: Folder for a CSV file a table, `profile.yaml` and `provenance.json`; replaced when all
            repetitions are done.
        project: Folder that holds `notebooks/`.
        part: `(i, n)` repeats every n-th cohort from the i-th on, the first being 1; unless it is
            `(1, 1)`, nothing is written to `out`.

    Returns:
        `out`, or of a part the folder of the repetitions.

    Raises:
        PacxError: The profile has no `evidence`, there is no such chapter, `out` holds something
            else, or a chapter failed.
    """
    settings = run.profile.evidence
    if settings is None:
        raise PacxError(f"Profile {run.profile.name} repeats nothing: it has no `evidence`.")
    for chapter in settings.chapters:
        sources_of(project, chapter)
    out = Path(os.path.abspath(out))  # `.` has no name
    if out.exists() and not (out / "provenance.json").is_file() and any(out.iterdir()):
        raise PacxError(
            f"{out} holds something else than evidence, and would be replaced. Choose a new or an "
            "empty folder with --out."
        )
    first, step = part
    made = _side_by_side(
        "repetitions", _repeat, [(run, c, project) for c in settings.cohorts[first - 1 :: step]]
    )
    if part != (1, 1):
        return run.folder
    tables = {name: [t[name] for t, _ in made if name in t] for name in TABLES}
    made_by = {k: v for k, v in run.provenance().items() if k not in ("seed", "cohort")}
    seconds = [seconds for _, seconds in made]
    provenance = made_by | {"cohorts": settings.cohorts, "seconds": seconds}
    tables = {name: pd.concat(repeated) for name, repeated in tables.items() if repeated}
    with new_folder(out, replace=True) as partial:
        for name, table in tables.items():
            table.to_csv(partial / f"{name}.csv", index=False, float_format="%.5g")
        shutil.copy(run.folder / "profile.yaml", partial)
        text = json.dumps(provenance, indent=1) + "\n"
        (partial / "provenance.json").write_text(text, encoding="utf-8")
    return out


def _repeat(run: Run, cohort: int, project: Path) -> tuple[dict, dict]:
    """Execute the chapters on one cohort: their tables, and seconds a chapter."""
    phantom = run.profile.phantom.model_copy(update={"seed": cohort})
    changes = {"name": str(cohort), "seed": cohort, "evidence": None, "phantom": phantom}
    repetition = open_run(run.profile.model_copy(update=changes), run.folder)
    for chapter in run.profile.evidence.chapters:
        execute(repetition, only=chapter, project=project)
    tables = {
        name: table.assign(cohort=cohort)
        for name in TABLES
        if (table := repetition.find_results(name)) is not None
    }
    chapters = sorted(repetition.notebooks.glob("[0-9]*.ipynb"))
    seconds = {path.stem: round(signature_of(path)["seconds"]) for path in chapters}
    return tables, {"cohort": cohort, **seconds}


def _side_by_side(what: str, call: Callable, jobs: Iterable[tuple]) -> list:
    """Results of `call(*job)` in the jobs' order; one thread each, on a GPU one after another."""
    workers = cpu_count() if device().type == "cpu" else 1
    context = get_context("spawn")  # a forked process would inherit the locks of this one's threads
    with ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
        running = [pool.submit(call, *job) for job in jobs]
        try:
            return [job.result() for job in tqdm(running, what, unit="job")]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    # For the chapters' kernels as well.
    os.environ |= {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1", "TQDM_DISABLE": "1"}
    torch.set_num_threads(1)
    end_quietly()
