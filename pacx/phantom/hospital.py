"""The phantom hospital on disk: every data set in the layout of the real one."""

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pacx.constants import CANDIDATES, SHIFTED
from pacx.data.table import SPLITS
from pacx.errors import PacxError
from pacx.files import code_of, locked, new_folder
from pacx.phantom import benchmarks, layouts
from pacx.phantom.cohort import Cohort, seed_of
from pacx.phantom.pairs import write_symile_mimic

WRITERS: dict[str, Callable[[Path, Cohort], None]] = {
    "chexpert": layouts.write_chexpert,
    "symile-mimic": write_symile_mimic,
    "ecg-archive": layouts.write_ecg_archive,
    "chexchonet": layouts.write_chexchonet,
    "medmod": layouts.write_medmod,
    "chestx6": layouts.write_chestx6,
    "covid-qu-ex": layouts.write_covid_qu_ex,
    "tb": benchmarks.write_tb,
    "vindr-cxr": benchmarks.write_vindr_cxr,
    "nih-14": benchmarks.write_nih_14,
    "qata-cov19": benchmarks.write_qata_cov19,
    "cxl-seg": benchmarks.write_cxl_seg,
    "actualmed": benchmarks.write_actualmed,
    "phantom-truth": layouts.write_phantom_truth,
}
DATASETS = tuple(WRITERS)
_DRAWN = ("image_size", "ecg_hz", "coupling", "lag_days", "drift")


def write_hospital(
    root: Path,
    patients: Mapping[str, Mapping[str, int]],
    image_size: int,
    ecg_hz: int,
    seed: int,
    coupling: float = 1.0,
    lag_days: float = 0.0,
    drift: float = 0.0,
) -> None:
    """Writes the phantom data sets to `root/<dataset>/`.

    Every data set has patients of its own. A folder appears only when it is complete; one that
    was written with the same settings is kept.

    Args:
        root: Folder of all data sets.
        patients: Data set -> split ("train", "val", "test") -> number of patients. Data sets that
            ship without a split (`chexchonet`, `medmod`, `tb`, `actualmed`, `ecg-archive`) write
            the sum; those with an official test set alone (`vindr-cxr`, `nih-14`, `qata-cov19`)
            write train and val as one.
        image_size: Pixels a side of the X-rays (Symile-MIMIC's are 10/7 of it, as 320 is of 224).
        ecg_hz: Samples a second of the ECGs.
        seed: Seed of the hospital.
        coupling: How strongly X-rays show the patients' states; 0 = not at all.
        lag_days: Mean days from a paired X-ray to its ECG and blood tests.
        drift: How fast acute states change, see `pacx.phantom.state.move_on`.

    Raises:
        PacxError: A data set has no such split or too few patients, an image or a rate is too
            small, or a folder holds something else than these settings would write.
    """
    _check(patients, image_size, ecg_hz)
    root = Path(root)
    all_settings = [
        {
            "code": code_of(__name__), "dataset": name, "patients": dict(counts), "seed": seed,
            "image_size": image_size, "ecg_hz": ecg_hz, "coupling": coupling,
            "lag_days": lag_days, "drift": drift,
        }
        for name, counts in patients.items()
    ]  # fmt: skip
    wanted = [s for s in all_settings if not _is_complete(root / s["dataset"], s)]
    # Drawing is arithmetic on large arrays, which lets other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        writing = [pool.submit(_write, root, settings) for settings in wanted]
        try:
            for data_set in writing:
                data_set.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(root: Path, settings: dict) -> None:
    """Write one data set, unless another process was first."""
    name = settings["dataset"]
    with locked(root / name):
        if _is_complete(root / name, settings):  # by the process that was waited for
            return
        with (
            new_folder(root / name, replace=True) as partial,
            tqdm(desc=f"phantom {name}", unit=" files") as bar,
        ):
            drawn = {fact: settings[fact] for fact in _DRAWN}
            seed = seed_of(settings["seed"], name)
            WRITERS[name](partial, Cohort(settings["patients"], seed=seed, bar=bar, **drawn))
            text = json.dumps(settings, indent=1)
            (partial / "phantom.json").write_text(text, encoding="utf-8")


def _check(sizes: Mapping[str, Mapping[str, int]], image_size: int, ecg_hz: int) -> None:
    """What a profile may say, since its names and numbers are possible, and no data set can be."""
    splits_of = {"chexpert": ("train", "val"), "phantom-truth": (*SPLITS, SHIFTED)}
    for name, splits in sizes.items():
        possible = splits_of.get(name, SPLITS)
        if not splits or set(splits) - set(possible):
            raise PacxError(
                f"phantom {name}: {dict(splits)} is not possible; splits are "
                f"{', '.join(possible)}, write them like train: 10."
            )
    paired = sizes.get("symile-mimic")
    if paired and (few := [split for split in SPLITS if paired.get(split, 0) < CANDIDATES]):
        raise PacxError(
            f"phantom symile-mimic: {few} need at least {CANDIDATES} patients each: a query of the "
            f"retrieval test has {CANDIDATES} candidates."
        )
    if image_size < 16 or ecg_hz < 50:
        raise PacxError(
            f"phantom: image_size {image_size} must be at least 16 px, ecg_hz {ecg_hz} at least 50."
        )


def _is_complete(folder: Path, settings: dict) -> bool:
    if not folder.exists():
        return False
    note = folder / "phantom.json"
    written = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if written == settings:
        return True
    if written and written | {"code": ""} == settings | {"code": ""}:
        return False  # by other code: they are written anew
    what = "phantoms of other settings" if written else "something that is not a phantom data set"
    raise PacxError(
        f"{folder} already holds {what}. Delete the folder to write it anew, or choose another "
        "root."
    )
