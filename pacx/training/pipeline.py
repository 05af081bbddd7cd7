"""All stages in their order, so that a chapter can start from nothing."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context

import pandas as pd
import torch
from joblib import cpu_count

from pacx.data.datasets import lacking, teachers_of
from pacx.processes import device, end_quietly
from pacx.run import Run
from pacx.training.distill import VARIANTS, distill, modalities_of
from pacx.training.ecg import train_ecg
from pacx.training.labs import train_labs
from pacx.training.mae import pretrain_mae, pretraining_images
from pacx.training.supervised import train_supervised

#: Images: less than what one core trains on while a new process imports its libraries.
SHORT = 5000


def encoders_of(run: Run) -> list[str]:
    """All that the chapters train with this profile, in an order in which it can be trained.

    Left out is what the run has no data for; see `pacx.data.datasets.lacking`.
    """
    lacks = lacking(run)
    stage_one = [] if "mae" in lacks else ["mae", "mae-other-ratio"]
    teachers = [name for name in ("labs", "ecg") if name not in lacks]
    ceiling = ["supervised"] if run.is_phantom else []
    if "pacx" in lacks:
        return [*stage_one, *teachers, *ceiling]
    method = replace(VARIANTS["pacx"], modalities=modalities_of(run, VARIANTS["pacx"]))
    variants = []
    for name in run.profile.variants:  # with one teacher left, `pacx` itself is a variant
        possible = replace(VARIANTS[name], modalities=modalities_of(run, VARIANTS[name]))
        if possible.modalities and possible != method:
            variants.append(name)
    return [*stage_one, *teachers, "pacx", "mae-continued", *ceiling, *variants]


def train_encoders(run: Run, *names: str) -> None:
    """Make sure that the run holds these encoders; what is there already is only checked.

    Args:
        run: The run.
        *names: `random`, `mae`, `mae-other-ratio` (the profile's other mask ratio), `mae-continued`
            (the MAE trained on for as many steps as the distillation took), `supervised` (the MAE
            trained on with the phantoms' labels), the teachers `labs` and `ecg`, or keys of
            `pacx.training.distill.VARIANTS`. Teachers without data are passed over.

    Raises:
        NoDataError: The run has no data for an encoder.
    """
    names = _without_lacking_teachers(run, names)
    _prepare(run, names)
    for name in names:
        _train(run, name)


def train_side_by_side(run: Run, *names: str) -> None:
    """The same as `train_encoders` for encoders that do not depend on each other.

    On a CPU each trains in a process of its own with one thread: networks this small use two
    threads badly. On a GPU they follow one another, and so do trainings that take less time than a
    process needs to start.
    """
    names = _without_lacking_teachers(run, names)
    workers = min(len(names), cpu_count())
    if device().type != "cpu" or workers == 1 or _are_short(run):
        train_encoders(run, *names)
        return
    _prepare(run, names)
    pretraining_images(run, "train")  # decoded once, before the processes need it
    # A forked process would inherit the locks of this one's threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        for done in [pool.submit(_train, run, name) for name in names]:
            done.result()


def _without_lacking_teachers(run: Run, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(n for n in names if n not in ("ecg", "labs") or n in teachers_of(run))


def _are_short(run: Run) -> bool:
    """Whether this profile's trainings see few images."""
    if not run.is_phantom:
        return False
    patients = run.profile.phantom.patients
    mae = run.profile.mae.epochs * patients[run.profile.pretraining]["train"]
    distill = run.profile.distill.epochs * patients[run.profile.pairs]["train"]
    return mae + distill < SHORT


def _one_thread() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # as in the chapters
    end_quietly()


def _prepare(run: Run, names: tuple[str, ...]) -> None:
    """What the named encoders start from."""
    distilled = [name for name in names if name in VARIANTS]
    if distilled or {"mae-continued", "supervised"} & set(names):
        pretrain_mae(run)
    if distilled or "mae-continued" in names:
        shares = {1.0, *(VARIANTS[name].teacher_training for name in distilled)} - {0.0}
        for share, teacher in product(sorted(shares), teachers_of(run)):
            {"ecg": train_ecg, "labs": train_labs}[teacher](run, share)
    if any(VARIANTS[name].start == "mae-other-ratio" for name in distilled):
        _train(run, "mae-other-ratio")
    if "mae-continued" in names:
        distill(run, "pacx")


def _train(run: Run, name: str) -> None:
    stages = {
        "mae": pretrain_mae, "labs": train_labs, "ecg": train_ecg, "supervised": train_supervised
    }  # fmt: skip
    if name in VARIANTS:
        distill(run, name)
    elif name in stages:
        stages[name](run)
    elif name == "mae-other-ratio":
        pretrain_mae(run, name, mask_ratio=run.profile.mae.other_mask_ratio)
    elif name == "mae-continued":
        history = pd.read_csv(run.artefact("pacx") / "history.csv")
        pretrain_mae(run, name, further_steps=len(history))
