"""What an encoder is held against: linear models of the pixels, ridge to the teachers, ceilings.

Each name of `READINGS` gives features for a probe, as an encoder does. A reading is what an encoder
calls a pooling: the CLS token or the mean of the patches there, a number of components here.
"""

from functools import lru_cache

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets import load_pairs, teachers_of
from pacx.data.table import Dataset
from pacx.evaluation.features import extract_features, images_of
from pacx.files import cached_array
from pacx.run import Run
from pacx.training.distill import standardise, teacher_embeddings
from pacx.training.encoders import fingerprint_of
from pacx.training.mae import pretraining_images
from pacx.training.targets import whiten

POOLINGS = ("cls", "mean")
_COMPONENTS = (16, 32, 64, 96, 128, 192)
_RANKS = (4, 8, 16, 32)

#: Baseline -> how its features may be read; which one is best, validation labels say.
READINGS: dict[str, tuple[str, ...]] = {
    # Principal components of the pixels, from the X-rays of stage 1.
    "pixels": tuple(f"{k} components" for k in _COMPONENTS),
    # Those, then a linear map of low rank to the teachers' embeddings: stage 2 without a network.
    "pixels-teachers": tuple(f"rank {k}" for k in _RANKS),
    # The same map from the frozen MAE.
    "mae-teachers": tuple(f"rank {k}" for k in _RANKS),
    # The same towards whitened embeddings: regularised canonical correlation analysis.
    "mae-cca": tuple(f"rank {k}" for k in _RANKS),
    # The same network trained end to end on all labels.
    "supervised": ("own head",),
    # The true states of phantoms.
    "states": ("true states",),
}
#: Columns `known_*` of the reader's own table, such as the view: what needs no image.
KNOWN = "known"


def readings_of(model: str) -> tuple[str, ...]:
    """How a model's features may be read: an encoder's poolings, or a baseline's readings."""
    return READINGS.get(model, POOLINGS) if model != KNOWN else ("columns",)


def features_of(
    run: Run,
    dataset: Dataset,
    model: str,
    split: str,
    reading: str,
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """(N, D) frozen features of a split's X-rays.

    The model is a baseline or an encoder, read in one of `readings_of(model)`. X-rays may be
    mirrored left to right; true states stay what they are.

    Raises:
        PacxError: An artefact that the features need is missing.
    """
    if model == "states":
        return dataset.split(split).filter(like="state_").to_numpy(np.float32)
    if model == KNOWN:
        return dataset.split(split).filter(like="known_").to_numpy(np.float32)
    images = images_of(run, dataset, split)
    if mirrored:
        images = _mirrored(run, images)
    if model == "pixels":
        return _pixel_components(run, images)[:, : int(reading.split()[0])]
    if model in ("pixels-teachers", "mae-teachers", "mae-cca"):
        source, towards = model.split("-")
        ridge, directions = _map_to_teachers(run, source, towards)
        predicted = ridge.predict(_source(run, source, images))
        return predicted @ directions[: int(reading.split()[1])].T
    features = extract_features(run, model, images)
    if model == "supervised":
        return np.concatenate([features.cls, features.mean], 1)
    return getattr(features, reading)


def supervised_head(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (1, 2 D, C) and bias (1, 1, C) of the network that was trained on the labels."""
    head = load_file(run.artefact("supervised") / "head.safetensors")
    return head["weight"].T[None], head["bias"][None, None]


def _pixel_components(run: Run, images: np.ndarray) -> np.ndarray:
    """(N, K) scores of images (N, H, W) on the principal components of stage 1's X-rays."""
    stage_one = _stage_one(run)
    count = min(max(_COMPONENTS), len(stage_one), stage_one[0].size)

    def fill(out: np.ndarray) -> None:
        pca = _principal_axes(run)
        for start in range(0, len(images), 1024):
            out[start : start + 1024] = pca.transform(_flat(images[start : start + 1024]))

    key = "pixels", run.profile.seed, stage_one, images
    return cached_array(run.cache, key, (len(images), count), np.float32, fill)


@lru_cache(maxsize=1)
def _stage_one(run: Run) -> np.ndarray:
    return pretraining_images(run, "train")


@lru_cache(maxsize=1)
def _principal_axes(run: Run) -> PCA:
    images = _stage_one(run)
    rng = np.random.default_rng(run.profile.seed)
    rows = np.sort(rng.permutation(len(images))[:8192])  # more would change the first axes little
    pca = PCA(min(max(_COMPONENTS), len(rows), images[0].size), random_state=run.profile.seed,
              svd_solver="randomized")  # fmt: skip
    return pca.fit(_flat(images[rows]))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / np.float32(255)


def _source(run: Run, source: str, images: np.ndarray) -> np.ndarray:
    """(N, D) what is mapped to the teachers: pixels' components, or both poolings of the MAE."""
    if source == "pixels":
        return _pixel_components(run, images)
    return np.concatenate(extract_features(run, source, images), 1)


def _map_to_teachers(run: Run, source: str, towards: str) -> tuple[Pipeline, np.ndarray]:
    """Reduced-rank ridge from `pixels` or an encoder to both teachers' embeddings.

    Towards `teachers` each of their dimensions is standardised, towards `cca` they are whitened.

    Returns:
        The ridge regression, its penalty chosen by leave-one-out errors on the training pairs, and
        the directions (R, D_teachers) in which its predictions vary most.
    """
    models = [*teachers_of(run), *([] if source == "pixels" else [source])]
    return _fit_map(run, source, towards, *(fingerprint_of(run, model) for model in models))


@lru_cache(maxsize=3)
def _fit_map(
    run: Run, source: str, towards: str, *_fingerprints: str
) -> tuple[Pipeline, np.ndarray]:
    pairs = load_pairs(run, "train")
    scale = whiten if towards == "cca" else standardise
    targets = np.concatenate([scale(t) for t in teacher_embeddings(run, pairs).values()], 1)
    x = _source(run, source, pairs.cxr)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))).fit(x, targets)
    predicted = ridge.predict(x)
    directions = np.linalg.svd(predicted - predicted.mean(0), full_matrices=False)[2]
    return ridge, directions[: max(_RANKS)]


def _mirrored(run: Run, images: np.ndarray) -> np.ndarray:
    """The images (N, H, W) left to right, on disk as they are: a training split may be large."""

    def fill(out: np.ndarray) -> None:
        out[:] = images[:, :, ::-1]

    return cached_array(run.cache, ("mirrored", images), images.shape, images.dtype, fill)
