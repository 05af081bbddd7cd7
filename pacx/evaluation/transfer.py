"""From frozen encoders to tidy tables of probe and segmentation results with paired intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch

from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.splits import SAME_PATIENTS_AS_SYMILE, drop_patients, refuse_leaks
from pacx.data.table import Dataset
from pacx.evaluation.baselines import features_of, readings_of, supervised_head
from pacx.evaluation.features import extract_features, images_of
from pacx.evaluation.statistics import (
    bootstrap_weights,
    f1_thresholds,
    macro_auroc,
    macro_average_precision,
    macro_f1,
    paired_table,
)
from pacx.files import cached_array
from pacx.run import Run
from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import (
    Probes,
    draw_subsets,
    fit_probes,
    labels_of,
)
from pacx.training.segmentation import scores_per_image, segment

Metric = Literal["AUROC", "AUPRC", "F1", "F1 (tuned)"]
ProbeName = Literal["converged", "paper"]
Split = Literal["val", "test", "shifted"]
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
    split: Split = "test",
    probe: ProbeName = "converged",
) -> np.ndarray:
    """Probabilities of the linear probes on one frozen encoder, or on a baseline.

    Args:
        run: The run.
        dataset: A benchmark.
        model: See `pacx.evaluation.features.encoder_of`, or one of
            `pacx.evaluation.baselines.READINGS`.
        fraction: Share of the training labels; below 1 several draws are made.
        pooling: `cls`, as in the paper, or `mean` of the patch tokens; of a baseline, a reading.
        split: Whose images; `val` is for choosing thresholds.
        probe: `converged`, the book's yardstick, or `paper`, the paper's few epochs of AdamW.

    Returns:
        (K, M, C): draw, image, label.
    """
    probes = train_probes(run, dataset, model, fraction=fraction, pooling=pooling, probe=probe)
    return probes.probabilities(features_of(run, dataset, model, split, pooling))


def train_probes(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    fraction: float = 1.0,
    pooling: str = "cls",
    probe: ProbeName = "converged",
) -> Probes:
    """The linear probes behind `probe_scores`, cached; see there for the arguments.

    With all labels the strength of the penalty is chosen on the validation split. With fewer, it is
    chosen by cross-validation among them.
    """
    multiclass, profile = dataset.task == "multiclass", run.profile
    if model == "supervised":
        weight, bias = supervised_head(run)
        return Probes(weight, bias, multiclass, torch.zeros(1, weight.shape[2]))
    train, val = (
        (features_of(run, dataset, model, split, pooling), labels_of(dataset, split))
        for split in ("train", "val")
    )
    draws = 1 if fraction == 1 else profile.label_efficiency.draws
    settings: tuple = ()
    views = [train[0]]
    if probe == "paper":
        settings = (profile.paper_probe, profile.seed)
        if profile.paper_probe.flip:
            mirrored = _mirrored(run, images_of(run, dataset, "train"))
            views.append(getattr(extract_features(run, model, mirrored), pooling))

    def fill(out: np.ndarray) -> None:
        subsets = None
        if fraction < 1:
            subsets = draw_subsets(train[1], fraction, draws, profile.seed)
        chosen = {"multiclass": multiclass, "subsets": subsets}
        if probe == "paper":
            stacked = np.stack(views), train[1]
            probes = fit_paper_probes(stacked, val, settings[0], seed=profile.seed, **chosen)
        else:
            probes = fit_probes(train, val if fraction == 1 else None, **chosen)
        out[:, :-2], out[:, -2:-1], out[:, -1] = probes.weight, probes.bias, probes.loss

    data = *views, train[1], *val
    key = "probes", probe, dataset.task, *data, settings, profile.seed, fraction, draws
    shape = (draws, train[0].shape[1] + 2, len(dataset.labels))
    kept = cached_array(run.cache, key, shape, np.float32, fill)
    layers = torch.from_numpy(np.array(kept))
    return Probes(layers[:, :-2], layers[:, -2:-1], multiclass, layers[:, -1])


def best_reading(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    fraction: float = 1.0,
) -> str:
    """How a model's features are read best, by the mean validation loss of the converged probes.

    The first of `pacx.evaluation.baselines.readings_of(model)` with the lowest loss over `tasks`.
    """
    chosen = [dataset.labels.index(t) for t in tasks or dataset.labels]

    def loss(reading: str) -> float:
        probes = train_probes(run, dataset, model, fraction=fraction, pooling=reading)
        return probes.loss[:, chosen].mean().item()

    readings = readings_of(model)
    return readings[0] if len(readings) == 1 else min(readings, key=loss)


def compare_probes(
    run: Run,
    dataset: Dataset,
    models: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    metric: Metric = "AUROC",
    fraction: float = 1.0,
    pooling: str = "cls",
    probe: ProbeName = "converged",
    split: Split = "test",
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
        pooling: `cls` or `mean`; `best` takes each model's `best_reading`.
        probe: `converged` or `paper`, see `probe_scores`.
        split: Whose images are scored.
        reference: The encoder that the others are compared with.

    Returns:
        One row a model: dataset, task, probe, pooling, fraction, metric, then the columns of
        `pacx.evaluation.statistics.paired_table`.
    """
    readings = dict.fromkeys([*models, reference], pooling)
    if pooling == "best":
        readings = {
            model: best_reading(run, dataset, model, tasks=tasks, fraction=fraction)
            for model in readings
        }

    def measure(model: str) -> tuple[float, np.ndarray]:
        return macro_score(
            run, dataset, model, tasks=tasks, metric=metric, fraction=fraction,
            pooling=readings[model], probe=probe, split=split,
        )  # fmt: skip

    task = "macro" if tasks is None or len(tasks) > 1 else tasks[0]
    table = paired_table(
        models, reference, measure, dataset=dataset.name, task=task, probe=probe, pooling=pooling,
        fraction=fraction, metric=metric,
    )  # fmt: skip
    return table.assign(pooling=table["model"].map(readings)) if pooling == "best" else table


def macro_score(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    metric: Metric = "AUROC",
    fraction: float = 1.0,
    pooling: str = "cls",
    probe: ProbeName = "converged",
    split: Split = "test",
) -> tuple[float, np.ndarray]:
    """One encoder's score, and its score on each bootstrap resample, equal for all encoders.

    See `compare_probes` for the arguments.

    Returns:
        The score, and (R,) scores of the resamples.
    """
    chosen = [dataset.labels.index(t) for t in tasks or dataset.labels]
    truth = labels_of(dataset, split)[:, chosen]
    patients = np.unique(dataset.split(split)["patient"], return_inverse=True)[1]
    resamples, seed = run.profile.bootstrap, run.profile.seed

    def scores(split: Split) -> list[np.ndarray]:
        found = probe_scores(
            run, dataset, model, fraction=fraction, pooling=pooling, split=split, probe=probe
        )
        return [np.asarray(draw) for draw in found]

    if metric in _BY_RANK:
        score, judged = _BY_RANK[metric], scores(split)
    elif dataset.task == "multiclass":
        score, judged = macro_f1, [p == p.max(axis=1, keepdims=True) for p in scores(split)]
    elif metric == "F1":
        score, judged = macro_f1, [p >= 0.5 for p in scores(split)]
    else:
        known = labels_of(dataset, "val")
        thresholds = [f1_thresholds(known, p) for p in scores("val")]
        score = macro_f1
        judged = [p >= t for p, t in zip(scores(split), thresholds, strict=True)]
    judged = np.stack([draw[:, chosen] for draw in judged])

    def fill(out: np.ndarray) -> None:
        once = np.ones((1, len(truth)), np.float32)
        weights = bootstrap_weights(patients, resamples, seed)
        for part, cases in ((out[:1], once), (out[1:], weights)):
            part[:] = np.mean([score(truth, draw, cases) for draw in judged], axis=0)

    # Many tables ask for the same score, in several chapters.
    key = "score", metric, dataset.task, truth, judged, np.array(patients, str), resamples, seed
    out = cached_array(run.cache, key, (1 + resamples,), np.float64, fill)
    return float(out[0]), np.array(out[1:])


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

    return cached_array(run.cache, ("mirrored", images), images.shape, images.dtype, fill)
