"""A tiny run with all that baselines and the ladder need, made once a test session."""

import pytest
from filelock import FileLock

from pacx.data.datasets import load_dataset
from pacx.data.table import Dataset
from pacx.phantom.hospital import write_hospital
from pacx.profile import load_profile
from pacx.run import Run, open_run
from pacx.training.pipeline import train_encoders

SIZE, SEED = 32, 12
PATIENTS = {
    "chexpert": {"train": 96, "val": 8},
    "symile-mimic": {"train": 64, "val": 10, "test": 20},
    "ecg-archive": {"train": 24},
    "phantom-truth": {"train": 150, "val": 60, "test": 80, "shifted": 40},
}


@pytest.fixture(scope="session")
def run(shared) -> Run:
    """A run whose networks have seen each X-ray once; never changed."""
    profile = load_profile("smoke")
    once = {"epochs": 1, "batch_size": 16}
    stages = ("mae", "labs", "ecg", "supervised")
    parts = {stage: getattr(profile, stage).model_copy(update=once) for stage in stages}
    hospital = {"image_size": SIZE, "patients": PATIENTS, "seed": SEED}
    parts["phantom"] = profile.phantom.model_copy(update=hospital)
    parts["vit"] = profile.vit.model_copy(update={"image_size": SIZE})
    parts["label_efficiency"] = profile.label_efficiency.model_copy(update={"fractions": [0.5, 1]})
    with FileLock(shared / "evaluation.lock"):
        run = open_run(profile.model_copy(update=parts), shared / "evaluation")
        if not run.data_root.exists():
            write_hospital(run.data_root, **run.profile.phantom.model_dump())
        train_encoders(run, *stages)
    return run


@pytest.fixture(scope="session")
def dataset(run) -> Dataset:
    return load_dataset("phantom-truth", run.data_root)
