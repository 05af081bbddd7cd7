"""The evidence: the chapters' tables on fresh cohorts with several training seeds.

A repetition is a run like any other, with seeds of its own: its chapters are executed by the code
that executes the reader's, and their result tables are put together. What was stopped goes on.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from joblib import cpu_count
from tqdm import tqdm

from pacx.book.chapter import open_chapter
from pacx.book.execution import execute, signature_of, sources_of
from pacx.constants import PHYSIOLOGY_TASKS
from pacx.errors import PacxError
from pacx.evaluation.baselines import POOLINGS
from pacx.evaluation.transfer import compare_probes, open_benchmark
from pacx.files import new_folder
from pacx.processes import device, end_quietly
from pacx.profile import Profile
from pacx.run import Run, open_run
from pacx.training.pipeline import train_encoders

#: Tables that are pooled, where a chapter has made them.
TABLES = (
    "transfer", "physiology", "probe_length", "residual_states", "label_efficiency", "alignment",
    "components", "controls", "ladder_all", "direct", "teachers", "forgetting", "keeping",
    "attention", "faithfulness", "randomisation", "claims",
)  # fmt: skip
#: Phantoms that a dose-response needs.
_DOSE_DATA = ("chexpert", "symile-mimic", "ecg-archive", "phantom-truth")


def gather_evidence(run: Run, out: Path, project: Path = Path()) -> Path:
    """Repeat the chapters, and write their tables with cohort and seed to `out`.

    Each repetition has one thread, so as many run side by side as there are cores. Repetitions of
    one cohort share its patients, who are written first. `out` is replaced when all are done.

    Args:
        run: Of a profile with `evidence`; repetitions are runs inside its folder.
        out: Folder for a CSV file a table, `profile.yaml` and `provenance.json`.
        project: Folder that holds `notebooks/`.

    Raises:
        PacxError: The profile has no `evidence`, there is no such chapter, a dose-response lacks a
            data set, `out` holds something else, or a chapter failed.
    """
    settings = run.profile.evidence
    if settings is None:
        raise PacxError(f"Profile {run.profile.name} repeats nothing: it has no `evidence`.")
    doses = [("coupling", dose) for dose in settings.couplings]
    doses += [("teachers", dose) for dose in settings.teacher_shares]
    lacking = [data for data in _DOSE_DATA if data not in run.profile.phantom.patients]
    if doses and lacking:
        raise PacxError(
            f"Profile {run.profile.name}: couplings and teacher_shares need {', '.join(lacking)} "
            "in phantom.patients. Add them, or leave both lists empty."
        )
    for chapter in settings.chapters:
        sources_of(project, chapter)
    out = Path(os.path.abspath(out))  # `.` has no name
    if out.exists() and not (out / "provenance.json").is_file() and any(out.iterdir()):
        raise PacxError(
            f"{out} holds something else than evidence, and would be replaced. Choose a new or an "
            "empty folder with --out."
        )
    cohorts = settings.cohorts
    _side_by_side("patients", _admit, product([run], cohorts))
    repetitions = [(run, c, seed, project) for seed, c in product(settings.seeds, cohorts)]
    made = _side_by_side("repetitions", _repeat, repetitions)
    dosed = [(run, c, *dose) for c, dose in product(cohorts, doses)]
    responses = _side_by_side("dose-responses", _respond, dosed)
    tables = {name: [t[name] for t, _ in made if name in t] for name in TABLES}
    tables["dose"] = responses
    made_by = {k: v for k, v in run.provenance().items() if k not in ("seed", "cohort")}
    provenance = made_by | {
        "cohorts": cohorts,
        "seeds": settings.seeds,
        "seconds": [seconds for _, seconds in made],
    }
    tables = {name: pd.concat(repeated) for name, repeated in tables.items() if repeated}
    return _write(out, tables, run.folder / "profile.yaml", provenance)


def _admit(run: Run, cohort: int) -> None:
    """Write a cohort's patients."""
    seed = run.profile.evidence.seeds[0]
    repetition = _repetition(run, f"{cohort}-{seed}", cohort, seed)
    open_chapter(repetition.folder / "profile.yaml", run.folder)


def _repeat(run: Run, cohort: int, seed: int, project: Path) -> tuple[dict, dict]:
    """Execute the chapters on one cohort with one seed: their tables, and seconds a chapter."""
    settings, variants = run.profile.evidence, run.profile.variants
    first = settings.seeds[0]
    if seed != first:
        variants = [name for name in variants if name not in settings.variants_once]
    repetition = _repetition(run, f"{cohort}-{seed}", cohort, seed, variants=variants)
    if seed != first:
        _share(repetition, run.folder / f"{cohort}-{first}", "data", "cache")
    for chapter in settings.chapters:
        execute(repetition, only=chapter, project=project)
    tables = {
        name: table.assign(cohort=cohort, seed=seed)
        for name in TABLES
        if (table := repetition.find_results(name)) is not None
    }
    chapters = sorted(repetition.notebooks.glob("[0-9]*.ipynb"))
    seconds = {path.stem: round(signature_of(path)["seconds"]) for path in chapters}
    return tables, {"cohort": cohort, "seed": seed, **seconds}


def _respond(run: Run, cohort: int, what: str, dose: float) -> pd.DataFrame:
    """The gain on the physiology tasks under another coupling, or shorter trained teachers.

    By the converged probe, from both poolings.
    """
    profile, seed = run.profile, run.profile.evidence.seeds[0]
    name = f"{cohort}-{seed}-{what}-{dose:g}"
    if what == "coupling":
        patients = {data: profile.phantom.patients[data] for data in _DOSE_DATA}
        repetition = _repetition(run, name, cohort, seed, coupling=dose, patients=patients)
    else:
        shorter = {
            teacher: settings.model_copy(update={"epochs": max(1, round(dose * settings.epochs))})
            for teacher, settings in (("ecg", profile.ecg), ("labs", profile.labs))
        }
        repetition = _repetition(run, name, cohort, seed, **shorter)
        _share(repetition, run.folder / f"{cohort}-{seed}", "data", "cache", "artefacts/mae")
    open_chapter(repetition.folder / "profile.yaml", run.folder)  # writes its patients
    train_encoders(repetition, "mae", "pacx")
    phantoms = open_benchmark(repetition, "phantom-truth")
    fractions = (min(profile.label_efficiency.fractions), 1.0)
    usual = {"models": ["pacx"], "tasks": PHYSIOLOGY_TASKS}
    scores = [
        compare_probes(repetition, phantoms, fraction=f, pooling=p, **usual)
        for f, p in product(fractions, POOLINGS)
    ]
    return pd.concat(scores).assign(what=what, dose=dose, cohort=cohort, seed=seed)


def _repetition(run: Run, name: str, cohort: int, seed: int, **changes: object) -> Run:
    """A run inside the evidence's; `changes` are of the profile, or of its phantoms."""
    fields = set(Profile.model_fields)
    phantom = {"seed": cohort, **{k: v for k, v in changes.items() if k not in fields}}
    update = {
        "name": name, "seed": seed, "evidence": None,
        "phantom": run.profile.phantom.model_copy(update=phantom),
        **{k: v for k, v in changes.items() if k in fields},
    }  # fmt: skip
    return open_run(run.profile.model_copy(update=update), run.folder)


def _share(run: Run, other: Path, *folders: str) -> None:
    """Use another run's folders in place of own ones."""
    for folder in folders:
        (other / folder).mkdir(parents=True, exist_ok=True)  # the other run may come later
        link = run.folder / folder
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            target = os.path.relpath(other / folder, link.parent)  # both may be moved
            link.symlink_to(target, target_is_directory=True)


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


def _write(out: Path, tables: dict[str, pd.DataFrame], profile: Path, provenance: dict) -> Path:
    with new_folder(out, replace=True) as partial:
        for name, table in tables.items():
            table.to_csv(partial / f"{name}.csv", index=False, float_format="%.5g")
        shutil.copy(profile, partial)
        text = json.dumps(provenance, indent=1) + "\n"
        (partial / "provenance.json").write_text(text, encoding="utf-8")
    return out
