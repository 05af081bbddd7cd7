"""X-rays in; embeddings, calibrated probabilities, attention overlays and warnings out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.covariance import LedoitWolf
from torchvision.transforms.v2 import functional as vision
from tqdm import tqdm

from pacx.data.dicom import is_dicom
from pacx.data.images import normalise, read_image
from pacx.errors import PacxError
from pacx.evaluation.attention import rollout_of, upsample
from pacx.figures.attention import overlays
from pacx.figures.style import use_style
from pacx.files import new_file, new_folder
from pacx.models.encoder import encode
from pacx.share.calibration import load_probe
from pacx.share.export import load_exported

RANGE = "range.safetensors"
PROBES = "probes"
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp")
#: An overlay is drawn from about so many pixels a side, at most twice as many.
PIXELS = 600
#: Share of images like the training's that may be warned about.
FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class TrainingRange:
    """How far from the training X-rays an embedding lies: Mahalanobis distance with a limit.

    Attributes:
        mean: (2 D,) of CLS token and mean patch token side by side.
        precision: (2 D, 2 D) inverse covariance, shrunk after Ledoit and Wolf.
        limit: Distances above it are warned about.
    """

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    def distance(self, tokens: np.ndarray) -> np.ndarray:
        """Distances (N,) of tokens (N, 2 D)."""
        away = tokens - self.mean
        return np.sqrt(np.maximum(np.einsum("nd,de,ne->n", away, self.precision, away), 0))

    def save(self, folder: Path) -> None:
        """Write `range.safetensors` into a folder."""
        arrays = {"mean": self.mean, "precision": self.precision, "limit": np.array([self.limit])}
        with new_file(folder / RANGE) as partial:
            save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, partial)


def fit_range(tokens: np.ndarray) -> TrainingRange:
    """Learn where training X-rays lie, and how far others of the same kind go.

    The first half gives mean and covariance, the second half the limit: its conformal quantile, so
    that of further images like them at most a share of `FALSE_ALARMS` is warned about, whatever the
    distances' distribution. With too few images for that, it is the farthest of them.

    Args:
        tokens: (N, 2 D), CLS and mean patch side by side, patients in order.
    """
    first, second = np.array_split(tokens, 2)
    model = LedoitWolf().fit(first)
    unlimited = TrainingRange(model.location_, model.precision_, np.inf)
    distances = np.sort(unlimited.distance(second))
    rank = int(np.ceil((len(distances) + 1) * (1 - FALSE_ALARMS)))
    return replace(unlimited, limit=float(distances[min(rank, len(distances)) - 1]))


def load_range(folder: Path) -> TrainingRange | None:
    """The range in an exported folder; None where there is none.

    Raises:
        PacxError: The file is damaged.
    """
    path = folder / RANGE
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        return TrainingRange(arrays["mean"], arrays["precision"], float(arrays["limit"][0]))
    except (SafetensorError, KeyError, IndexError) as error:
        raise PacxError(f"{path} is damaged ({error!r}). Export the encoder again.") from error


def predict(
    images: Sequence[str | Path],
    encoder: str | Path,
    out: str | Path,
    *,
    probes: Sequence[str] = (),
    overlay: bool = True,
) -> pd.DataFrame:
    """Embed X-rays and write what is known about each.

    Args:
        images: PNG, JPEG, DICOM, TIFF or BMP files, and folders of them. In a folder, DICOM files
            need no suffix. An image that is named twice counts once.
        encoder: Folder that `pacx export` made.
        out: New folder: `predictions.csv`; `embeddings.parquet` (`image`, then D columns); and
            `overlays/`, a PNG an image.
        probes: Names of exported probes.
        overlay: Also draw the attention rollout over each image.

    Returns:
        One row an image: `image`, `distance` and `limit` of the training range (if there is one),
        `<probe>: <class>` probabilities, read from the CLS token, and `warning`, empty where there
        is none. A file that cannot be read has a warning and nothing else.

    Raises:
        PacxError: There is no image, none can be read, the encoder or a probe is missing, or `out`
            exists.

    Example:
        >>> table = predict(["x-rays"], "encoder", "predictions", probes=["tb"])
    """
    use_style()
    paths = _find_images([Path(image) for image in images])
    predictor = Predictor(Path(encoder), probes)
    with new_folder(Path(out)) as partial:
        (partial / "overlays").mkdir()
        rows, embeddings = [], {}
        for number, path in enumerate(tqdm(paths, unit="image", disable=None)):
            row = {"image": str(path)}
            try:
                picture = read_image(path)
            except PacxError as error:
                rows.append(row | {"warning": str(error)})
                continue
            embeddings[str(path)], facts = predictor(picture)
            rows.append(row | facts)
            if overlay:
                file = partial / "overlays" / f"{number:05d}-{path.stem}.png"
                _draw(predictor.attention(picture), picture, file)
        if not embeddings:
            raise PacxError(f"No image can be read, of {len(paths)}. {rows[0]['warning']}")
        table = pd.DataFrame(rows)
        table.insert(len(table.columns) - 1, "warning", table.pop("warning").fillna(""))
        table.to_csv(partial / "predictions.csv", index=False)
        frame = pd.DataFrame(np.stack(list(embeddings.values()))).rename(
            columns="cls_{:03d}".format
        )
        frame.insert(0, "image", list(embeddings))
        frame.to_parquet(partial / "embeddings.parquet", index=False)
    return table


class Predictor:
    """An exported encoder with what it needs to speak about one image."""

    def __init__(self, folder: Path, probes: Sequence[str]):
        self.encoder = load_exported(folder)
        self.range = load_range(folder)
        self.probes = {name: load_probe(path) for name, path in _paths_of(folder, probes).items()}

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, dict]:
        """CLS token (D,) and facts of an image (H, W) uint8."""
        cls, patches = encode(self.encoder, self._input(picture))
        facts: dict = {}
        warning = ""
        if self.range is not None:
            tokens = torch.cat([cls, patches.mean(1)], dim=1).double().numpy()
            distance, limit = float(self.range.distance(tokens)[0]), self.range.limit
            facts = {"distance": distance, "limit": limit}
            if distance > limit:
                warning = (
                    f"Far from the training images (distance {distance:.1f}, limit {limit:.1f}): "
                    "perhaps no frontal chest X-ray, or of another kind. Do not trust the numbers."
                )
        for name, probe in self.probes.items():
            probabilities = probe.probabilities(cls.numpy())[0]
            facts |= {f"{name}: {c}": p for c, p in zip(probe.classes, probabilities, strict=True)}
        return cls[0].numpy(), facts | {"warning": warning}

    def attention(self, picture: np.ndarray) -> np.ndarray:
        """Attention rollout (H, W) on the pixels of an image (H, W) uint8."""
        rollout = rollout_of(self.encoder, self._input(picture))
        return upsample(rollout, picture.shape)[0].numpy()

    def _input(self, picture: np.ndarray) -> torch.Tensor:
        """As in training: squashed to a square, then normalised."""
        pixels = torch.from_numpy(np.array(picture))[None]
        size = list(self.encoder.patch_embed.img_size)
        return normalise(vision.resize(pixels, size, antialias=True))


def _find_images(given: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            paths += sorted(f for f in path.rglob("*") if f.is_file() and _is_image(f))
        else:
            paths.append(path)
    if not paths:
        raise PacxError(
            f"There is no image in {', '.join(map(str, given))}. Expected DICOM files, or files "
            f"ending in {', '.join(SUFFIXES)}."
        )
    return list({os.path.abspath(path): path for path in paths}.values())


def _is_image(file: Path) -> bool:
    if file.suffix.lower() in SUFFIXES:
        return True
    # A disc's table of contents is DICOM, too, under this name.
    return file.name != "DICOMDIR" and os.access(file, os.R_OK) and is_dicom(file)


def _paths_of(folder: Path, probes: Sequence[str]) -> dict[str, Path]:
    files = {path.stem: path for path in sorted((folder / PROBES).glob("*.safetensors"))}
    if unknown := [name for name in probes if name not in files]:
        raise PacxError(
            f"{folder} has no probe {', '.join(unknown)}. It has: {', '.join(files) or 'none'}."
        )
    return {name: files[name] for name in probes}


def _draw(attention: np.ndarray, picture: np.ndarray, file: Path) -> None:
    height, width = picture.shape
    step = max(1, max(height, width) // PIXELS)
    attention, picture = attention[::step, ::step], picture[::step, ::step]
    figure = overlays(picture[None], {"attention rollout": attention[None]})
    figure.set_size_inches(8, min(12, 1.4 + 4 * height / width))
    figure.savefig(file, dpi=150)
    plt.close(figure)
