"""From frozen encoders to tidy tables of probe and segmentation results with paired intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch

from pacx.data.cache import cached_array, identity_of
from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.splits import SAME_PATIENTS_AS_SYMILE, drop_patients, refuse_leaks
from pacx.data.table import Dataset
from pacx.evaluation.features import extract_features, images_of, stamp_of
from pacx.evaluation.probe import Probes, draw_subsets, fit_probes, labels_of
from pacx.evaluation.segment import scores_per_image, segment
from pacx.evaluation.statistics import (
    bootstrap_weights,
    f1_thresholds,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    paired_table,
)
from pacx.run import Run

Metric = Literal["AUROC", "AUPRC", "F1", "F1 (tuned)"]
_BY_RANK = {"AUROC": macro_auroc, "AUPRC": macro_average_precision}


def open_benchmark(run: Run, name: str) -> Dataset:
    """Load a benchmark as the profile splits it, and let no patient leak.

    What happens to patients who were distilled is the profile's `leaks`: the benchmark is refused,
    or they are removed from it, or (waived) the leak is only printed.

    Raises:
        PacxError: See `pacx.data.splits.refuse_leaks`.
    """
    dataset = load_dataset(name, run.data_root, run.profile.benchmark_split)
    distilled = read_patients(run.data_root, "train")
    if run.profile.leaks == "remove" and name in SAME_PATIENTS_AS_SYMILE:
        dataset = drop_patients(dataset, distilled["patient"])
    refuse_leaks(distilled, dataset, allow=run.profile.leaks == "waive")
    return dataset


def probe_scores(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    fraction: float = 1.0,
    pooling: str = "cls",
    split: Literal["val", "test"] = "test",
) -> np.ndarray:
    """Probabilities of the linear probes on one frozen encoder.

    Args:
        run: The run.
        dataset: A benchmark.
        model: See `pacx.evaluation.features.encoder_of`.
        fraction: Share of the training labels; below 1 several draws are made.
        pooling: `cls`, as in the paper, or `mean` of the patch tokens.
        split: Whose images; `val` is for choosing thresholds.

    Returns:
        (K, M, C): draw, image, label.
    """
    probes = train_probes(run, dataset, model, fraction=fraction, pooling=pooling)
    features = extract_features(run, model, images_of(run, dataset, split))
    return probes.probabilities(getattr(features, pooling))


def train_probes(
    run: Run, dataset: Dataset, model: str, *, fraction: float = 1.0, pooling: str = "cls"
) -> Probes:
    """The linear probes behind `probe_scores`, cached; see there for the arguments."""
    images = [images_of(run, dataset, split) for split in ("train", "val")]
    labels = [labels_of(dataset, split) for split in ("train", "val")]
    seed, settings = run.profile.seed, run.profile.probe
    draws = 1 if fraction == 1 else run.profile.label_efficiency.draws

    def features(images: np.ndarray) -> np.ndarray:
        return getattr(extract_features(run, model, images), pooling)

    def fill(out: np.ndarray) -> None:
        views = [images[0], _mirrored(run, images[0])] if settings.flip else [images[0]]
        probes = fit_probes(
            (np.stack([features(view) for view in views]), labels[0]),
            (features(images[1]), labels[1]),
            settings,
            multiclass=dataset.task == "multiclass",
            subsets=None if fraction == 1 else draw_subsets(labels[0], fraction, draws, seed),
            seed=seed,
        )
        out[:, :-1], out[:, -1:] = probes.weight, probes.bias

    data = " ".join([dataset.task, *map(identity_of, [*images, *labels])])
    key = f"probes {data} {stamp_of(run, model)} {settings} {seed} {fraction} {draws} {pooling}"
    shape = (draws, run.profile.vit.width + 1, len(dataset.labels))
    kept = cached_array(run.cache, key, shape, np.float32, fill, "models", "evaluation")
    layers = torch.from_numpy(np.array(kept))
    return Probes(layers[:, :-1], layers[:, -1:], dataset.task == "multiclass")


def compare_probes(
    run: Run,
    dataset: Dataset,
    models: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    metric: Metric = "AUROC",
    fraction: float = 1.0,
    pooling: str = "cls",
    reference: str = "mae",
) -> pd.DataFrame:
    """Macro score of several encoders on the same test patients, with paired differences.

    With several draws of the training labels, a score is the mean over draws; intervals resample
    patients.

    Args:
        run: The run.
        dataset: A benchmark.
        models: Encoders.
        tasks: Labels to average over; all of them when None.
        metric: `AUROC`; `AUPRC`; `F1` at a probability of 0.5, as in the paper; `F1 (tuned)` at the
            threshold that is best on the validation split. Of exclusive classes the likeliest one
            is the decision in both.
        fraction: Share of the training labels.
        pooling: `cls` or `mean`.
        reference: The encoder that the others are compared with.

    Returns:
        One row a model: dataset, task, pooling, fraction, metric, then the columns of
        `pacx.evaluation.statistics.paired_table`.
    """

    def measure(model: str) -> tuple[float, np.ndarray]:
        return macro_score(
            run, dataset, model, tasks=tasks, metric=metric, fraction=fraction, pooling=pooling
        )

    task = "macro" if tasks is None or len(tasks) > 1 else tasks[0]
    return paired_table(
        models, reference, measure,
        dataset=dataset.name, task=task, pooling=pooling, fraction=fraction, metric=metric,
    )  # fmt: skip


def macro_score(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    metric: Metric = "AUROC",
    fraction: float = 1.0,
    pooling: str = "cls",
) -> tuple[float, np.ndarray]:
    """One encoder's score, and its score on each bootstrap resample, equal for all encoders.

    See `compare_probes` for the arguments.

    Returns:
        The score, and (R,) scores of the resamples.
    """
    chosen = [dataset.labels.index(t) for t in tasks or dataset.labels]
    truth = labels_of(dataset, "test")[:, chosen]
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    once = np.ones((1, len(truth)), np.float32)

    def scores(split: Literal["val", "test"]) -> list[np.ndarray]:
        found = probe_scores(run, dataset, model, fraction=fraction, pooling=pooling, split=split)
        return [np.asarray(draw) for draw in found]

    if metric in _BY_RANK:
        score, judged = _BY_RANK[metric], scores("test")
    elif dataset.task == "multiclass":
        score, judged = macro_f1, [p == p.max(axis=1, keepdims=True) for p in scores("test")]
    elif metric == "F1":
        score, judged = macro_f1, [p >= 0.5 for p in scores("test")]
    else:
        known = labels_of(dataset, "val")
        thresholds = [f1_thresholds(known, p) for p in scores("val")]
        score = macro_f1
        judged = [p >= t for p, t in zip(scores("test"), thresholds, strict=True)]
    judged = [draw[:, chosen] for draw in judged]
    point = np.mean([score(truth, draw, once)[0] for draw in judged])
    return point, np.mean([score(truth, draw, weights) for draw in judged], axis=0)


def compare_segmentation(
    run: Run, dataset: Dataset, models: Sequence[str], *, reference: str = "mae"
) -> pd.DataFrame:
    """Mean IoU and Dice over test images, with intervals over patients and paired differences.

    Each decoder is that of the last epoch; the paper keeps the one with the best validation Dice.

    Args:
        run: The run.
        dataset: A benchmark with masks.
        models: Encoders, each gets a decoder of its own.
        reference: The encoder that the others are compared with.

    Returns:
        One row a metric and model: dataset, task, metric, then the columns of
        `pacx.evaluation.statistics.paired_table`.
    """
    train = images_of(run, dataset, "train"), images_of(run, dataset, "train", "mask")
    images, truth = images_of(run, dataset, "test"), images_of(run, dataset, "test", "mask")
    scores = {
        model: scores_per_image(segment(run, dataset.name, model, train, images), truth)
        for model in dict.fromkeys([*models, reference])
    }
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)

    def table(metric: str) -> pd.DataFrame:
        def measure(model: str) -> tuple[float, np.ndarray]:
            values = scores[model][metric]
            return values.mean(), weights @ values / weights.sum(axis=1)

        return paired_table(
            models, reference, measure, dataset=dataset.name, task="segmentation", metric=metric
        )

    return pd.concat([table("IoU"), table("Dice")], ignore_index=True)


def labels_left_out(dataset: Dataset) -> list[str]:
    """Labels whose known test cases all have one value: there is nothing to tell apart.

    Averages of AUROC leave them out, and those of AUPRC the ones without a positive, whose F1
    counts as 0 in its average.
    """
    truth = dict(zip(dataset.labels, labels_of(dataset, "test").T, strict=True))
    return [label for label, t in truth.items() if len(np.unique(t[~np.isnan(t)])) < 2]


def _mirrored(run: Run, images: np.ndarray) -> np.ndarray:
    """The images (N, H, W) left to right, on disk as they are: a training split may be large."""

    def fill(out: np.ndarray) -> None:
        out[:] = images[:, :, ::-1]

    key = f"mirrored {identity_of(images)}"
    return cached_array(run.cache, key, images.shape, images.dtype, fill)
