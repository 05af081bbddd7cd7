"""The patients of one data set, their xrays, and how images get to disk."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from pacx.phantom import state
from pacx.phantom.dicom import write_dicom
from pacx.phantom.radiograph import render_radiographs

BLOCK = 512  # images rendered before they are written


@dataclass(frozen=True)
class Cohort:
    """How many patients, from which seed, drawn how; `bar` counts what is written."""

    splits: dict[str, int]
    image_size: int
    ecg_hz: int
    seed: int
    coupling: float
    lag_days: float
    drift: float
    bar: tqdm

    def patients(self) -> pd.DataFrame:
        """All patients of the data set, with their `split`."""
        # At a coupling of 0 nothing in the picture may tell of the states, not even a device.
        patients = state.sample_patients(sum(self.splits.values()), self.seed, self.coupling)
        return patients.assign(split=np.repeat(list(self.splits), list(self.splits.values())))

    def xrays(
        self,
        patients: pd.DataFrame,
        size: int,
        masks: bool = False,
        only: Sequence[int] | None = None,
    ) -> Iterator[tuple]:
        """Blocks of (row numbers, images, masks), of all rows or of some."""
        for number, start in enumerate(range(0, len(patients), BLOCK)):
            rows = np.arange(start, min(start + BLOCK, len(patients)))
            seed = self.seed + 7919 * (number + 1)
            kept = np.isin(rows, rows if only is None else only)
            images, drawn = render_radiographs(
                patients.iloc[rows], size, seed, masks, self.coupling, only=kept
            )
            yield rows[kept], images, drawn

    def write_xrays(
        self,
        patients: pd.DataFrame,
        paths: Sequence[Path],
        masks: Mapping[str, Sequence[Path]] | None = None,
        stored: Callable[[int, np.ndarray], np.ndarray] = lambda row, image: image,
    ) -> dict[str, np.ndarray]:
        """Draw one frontal view a patient and write it.

        Args:
            patients: (N) rows.
            paths: (N,) of the X-rays.
            masks: Names of exact masks, and (N,) paths of each.
            stored: Row number and image (H, W) to what is written.

        Returns:
            (N,) pixels inside each mask.
        """
        masks = masks or {}
        areas = {name: np.zeros(len(patients), int) for name in masks}
        for rows, images, drawn in self.xrays(patients, self.image_size, masks=bool(masks)):
            files = [stored(row, image) for row, image in zip(rows, images, strict=True)]
            save_images(self, files, [paths[row] for row in rows])
            for name, area in areas.items():
                save_images(self, drawn[name], [masks[name][row] for row in rows])
                area[rows] = drawn[name].sum(axis=(1, 2))
        return areas


def seed_of(seed: int, name: str) -> int:
    """The seed of one data set, or of one split's noise: no two draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def truth_table(patients: pd.DataFrame) -> pd.DataFrame:
    """What only phantoms know: sex, age, BMI and the latent `state_*` columns, index reset."""
    states = patients[list(state.STATES)].add_prefix("state_").round(4)
    facts = patients[["sex", "age_years", "bmi_value"]]
    return pd.concat([facts, states], axis=1).reset_index(drop=True)


def visits(
    patients: pd.DataFrame,
    share: float | pd.Series,
    key: str,
    rng: np.random.Generator,
    most: int = 2,
) -> pd.DataFrame:
    """One row a visit, in the order of `key`: after each, a share of the patients comes again.

    They are positioned anew, with the same states, devices and view. What an X-ray draws for itself
    (build, shape of the heart, ribs, the pacemaker's side) is drawn anew too.
    """
    days = [patients.assign(study=1)]
    for study in range(2, most + 1):
        again = days[-1][rng.random(len(days[-1])) < share]
        rotation = rng.standard_normal(len(again)).astype(np.float32)
        days.append(again.assign(study=study, rotation=rotation))
    return pd.concat(days).sort_values([key, "study"], ignore_index=True)


def otherwise_well(patients: pd.DataFrame) -> pd.DataFrame:
    """Class folders hold one disease a picture: what else ails these patients is mild."""
    lungs = ["fluid", "inflammation", "copd"]
    milder = patients[lungs].mul(0.5) - 0.5
    return patients.assign(**milder, pneumothorax=False)


def mimic_cxr_path(subject: int, study: int) -> str:
    """Where MIMIC-CXR-JPG keeps a xray: `files/p10/p10000032/s50414267/<dicom_id>.jpg`."""
    code = hashlib.sha256(f"{subject}/{study}".encode()).hexdigest()[:40]
    dicom_id = "-".join(code[k : k + 8] for k in range(0, 40, 8))
    return f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom_id}.jpg"


def save_images(cohort: Cohort, images: Sequence[np.ndarray], paths: list[Path]) -> None:
    """Encodes images (bool masks as 0 and 255) to JPEG, PNG or DICOM files."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: _encode(images[i], paths[i]), range(len(paths))):
            cohort.bar.update()


def _encode(image: np.ndarray, path: Path) -> None:
    if path.suffix == ".dicom":
        write_dicom(image, path)
        return
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    options = {"quality": 92} if path.suffix == ".jpg" else {"compress_level": 1}
    Image.fromarray(image).save(path, **options)
