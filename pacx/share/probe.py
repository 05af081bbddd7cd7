"""An exported encoder scored on labelled X-rays: converged probes, with intervals over patients."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from pacx.data.datasets import own, read_folder
from pacx.data.images import load_images, normalise
from pacx.data.splits import refuse_leaks
from pacx.data.table import SPLITS
from pacx.errors import PacxError
from pacx.evaluation.statistics import BY_RANK, bootstrap_weights, interval, on_resamples
from pacx.models.encoder import encode
from pacx.processes import infer
from pacx.share.export import load_exported
from pacx.training.probe import fit_probes, labels_of


def probe(encoder: str | Path, data: str | Path, resamples: int = 1000) -> pd.DataFrame:
    """Linear probes on an exported encoder's features, scored on the test split.

    They are solved to convergence on the training split, the strength of their penalty is chosen on
    the validation split, and intervals are bootstraps over the test patients.

    Args:
        encoder: Folder that `pacx export` made.
        data: Folder of a labelled data set, of the reader's own or a public one by its name.
        resamples: Of the bootstrap.

    Returns:
        One row a pooling (`cls`, or `mean` of the patch tokens), task (each label, and `macro`: the
        mean over labels) and metric: dataset, pooling, task, metric, value, low, high (95 %),
        `patients`, `positives` and `images` of the test split whose label is known. A label of one
        class is left out.

    Raises:
        PacxError: The encoder or the data cannot be read, or there is nothing to score.

    Example:
        >>> table = probe("encoder", "data/my-x-rays")
    """
    network, root = load_exported(encoder), Path(data)
    dataset = own.read(root) if own.is_own(root) else read_folder(root.resolve().name, root)
    if not dataset.labels or dataset.task == "pretraining":
        raise PacxError(f"{root} has no labels to score: its task is {dataset.task}.")
    refuse_leaks(pd.DataFrame({"patient": []}), dataset)
    splits = {split: dataset.split(split) for split in SPLITS}
    labels = {split: labels_of(dataset, split) for split in SPLITS}
    features = {split: _features(network, root, table) for split, table in splits.items()}
    truth, patients = labels["test"], splits["test"]["patient"].to_numpy()
    weights = bootstrap_weights(patients, resamples, seed=0)
    both = [c for c, t in enumerate(truth.T) if (t == 1).any() and (t == 0).any()]
    if not both:
        raise PacxError(f"{root}: no label has both classes in the split 'test'.")
    rows = []
    for pooling in features["test"]:
        train, val = ((features[split][pooling], labels[split]) for split in ("train", "val"))
        probes = fit_probes(train, val, multiclass=dataset.task == "multiclass")
        scores = probes.probabilities(features["test"][pooling])[0]
        tasks = {dataset.labels[c]: [c] for c in both}
        for task, columns in {**tasks, "macro": both}.items() if len(both) > 1 else tasks.items():
            known = ~np.isnan(truth[:, columns]).all(axis=1)
            counts = {
                "patients": len(set(patients[known])), "images": int(known.sum()),
                "positives": int(np.nansum(truth[:, columns])),
            }  # fmt: skip
            facts = {"dataset": dataset.name, "pooling": pooling, "task": task}
            for metric, score in BY_RANK.items():
                scored = partial(score, truth[:, columns], scores[:, columns])
                estimate = interval(*on_resamples(scored, weights))
                rows.append(facts | {"metric": metric} | estimate._asdict() | counts)
    return pd.DataFrame(rows)


def _features(encoder: VisionTransformer, root: Path, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Pooling -> (N, D) features of the table's images."""

    def tokens(images: Tensor) -> Tensor:
        cls, patches = encode(encoder, normalise(images))
        return torch.cat([cls, patches.mean(1)], 1)

    with tempfile.TemporaryDirectory() as cache:
        size = encoder.patch_embed.img_size[0]
        images = load_images(root, list(table["image"]), size, Path(cache))
        cls, mean = np.split(infer(encoder, tokens, images), 2, axis=1)
    return {"cls": cls, "mean": mean}
