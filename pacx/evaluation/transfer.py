"""From frozen encoders to tidy tables of probe and segmentation results with paired intervals.

From above: tables of several encoders, the score of one, the probabilities behind it, the probes.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch

from pacx.data.datasets import hospital_of, load_dataset, paired_patients
from pacx.data.splits import drop_patients, refuse_leaks
from pacx.data.table import Dataset
from pacx.evaluation.baselines import features_of, readings_of, supervised_head
from pacx.evaluation.features import images_of
from pacx.evaluation.statistics import (
    BY_RANK,
    bootstrap_weights,
    f1_thresholds,
    macro_f1,
    mean_on_resamples,
    on_resamples,
    paired_table,
)
from pacx.files import cached_array
from pacx.run import Run
from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import Probes, draw_subsets, fit_probes, labels_of
from pacx.training.segmentation import scores_per_image, segment

Metric = Literal["AUROC", "AUPRC", "F1", "F1 (tuned)"]
ProbeName = Literal["converged", "paper"]
Split = Literal["val", "test", "shifted"]


class Training(TypedDict, total=False):
    """How probes are trained, see `compare_probes`."""

    fraction: float
    pooling: str
    probe: ProbeName


def open_benchmark(run: Run, name: str) -> Dataset:
    """Load a benchmark as the profile splits it, and let no patient leak.

    What happens to patients who were distilled is the profile's `leaks`: the benchmark is refused,
    or they are removed from it, or (waived) the leak is only printed.

    Raises:
        PacxError: See `pacx.data.splits.refuse_leaks`.
    """
    dataset = load_dataset(name, run.data_root, run.profile.benchmark_split)
    distilled = paired_patients(run, "train")
    if name == run.profile.pairs:  # one folder, one split: the distilled may train probes, too
        trained = dataset.table.loc[dataset.table["split"] == "train", "patient"]
        distilled = distilled[~distilled["patient"].isin(trained)]
    hospital = "" if distilled.empty else hospital_of(run.profile.pairs, run.data_root)
    if run.profile.leaks == "remove" and dataset.hospital == hospital:
        dataset = drop_patients(dataset, distilled["patient"])
    refuse_leaks(distilled, dataset, hospital, allow=run.profile.leaks == "waive")
    return dataset


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
        models: Encoders as in `pacx.training.encoders.encoder_of`, and names of
            `pacx.evaluation.baselines.READINGS`.
        tasks: Labels to average over; all of them when None.
        metric: `AUROC`; `AUPRC`; `F1` at a probability of 0.5, as in the paper; `F1 (tuned)` at the
            threshold that is best on the validation split. Of exclusive classes the likeliest one
            is the decision in both.
        fraction: Share of the training labels. Below 1 several draws are made.
        pooling: `cls`, as in the paper, or `mean` of the patch tokens; of a baseline, a reading;
            `best` takes each model's `best_reading`.
        probe: `converged`, the book's yardstick, or `paper`, the paper's few epochs of AdamW.
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
            run, dataset, model, tasks=tasks, metric=metric, split=split, fraction=fraction,
            pooling=readings[model], probe=probe,
        )  # fmt: skip

    task = "macro" if tasks is None or len(tasks) > 1 else tasks[0]
    table = paired_table(
        models, reference, measure, dataset=dataset.name, task=task, probe=probe, pooling=pooling,
        fraction=fraction, metric=metric,
    )  # fmt: skip
    return table.assign(pooling=table["model"].map(readings)) if pooling == "best" else table


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
    columns = _columns(dataset, tasks)

    def loss(reading: str) -> float:
        probes = train_probes(run, dataset, model, fraction=fraction, pooling=reading)
        return probes.loss[:, columns].mean().item()

    readings = readings_of(model)
    return readings[0] if len(readings) == 1 else min(readings, key=loss)


def macro_score(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    tasks: Sequence[str] | None = None,
    metric: Metric = "AUROC",
    split: Split = "test",
    **training: Unpack[Training],
) -> tuple[float, np.ndarray]:
    """One encoder's score, and its score on each bootstrap resample, equal for all encoders.

    See `compare_probes` for the arguments.

    Returns:
        The score, and (R,) scores of the resamples.
    """
    columns = _columns(dataset, tasks)
    truth = labels_of(dataset, split)[:, columns]
    patients = np.unique(dataset.split(split)["patient"], return_inverse=True)[1]
    resamples, seed = run.profile.bootstrap, run.profile.seed
    score = BY_RANK.get(metric, macro_f1)
    judged = probe_scores(run, dataset, model, split=split, **training)
    if metric not in BY_RANK:  # decisions
        if dataset.task == "multiclass":
            judged = judged == judged.max(axis=2, keepdims=True)
        elif metric == "F1":
            judged = judged >= 0.5
        else:
            chosen_on = labels_of(dataset, "val")
            draws = probe_scores(run, dataset, model, split="val", **training)
            judged = judged >= np.stack([f1_thresholds(chosen_on, draw) for draw in draws])[:, None]
    judged = judged[:, :, columns]

    def fill(out: np.ndarray) -> None:
        weights = bootstrap_weights(patients, resamples, seed)
        out[0], out[1:] = on_resamples(
            lambda drawn: np.mean([score(truth, draw, drawn) for draw in judged], axis=0), weights
        )

    # Many tables ask for the same score, in several chapters.
    key = "score", metric, dataset.task, truth, judged, np.array(patients, str), resamples, seed
    out = cached_array(run.cache, key, (1 + resamples,), np.float64, fill)
    return float(out[0]), np.array(out[1:])


def probe_scores(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    split: Split = "test",
    **training: Unpack[Training],
) -> np.ndarray:
    """Probabilities (K, M, C) of the linear probes: draw, image of the split, label.

    See `compare_probes` for the arguments.
    """
    probes = train_probes(run, dataset, model, **training)
    reading = training.get("pooling", "cls")
    return probes.probabilities(features_of(run, dataset, model, split, reading))


def train_probes(
    run: Run,
    dataset: Dataset,
    model: str,
    *,
    fraction: float = 1.0,
    pooling: str = "cls",
    probe: ProbeName = "converged",
) -> Probes:
    """The linear probes on one frozen encoder, or on a baseline, cached; see `compare_probes`.

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
            views.append(features_of(run, dataset, model, "train", pooling, mirrored=True))

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
    layers = torch.from_numpy(np.array(cached_array(run.cache, key, shape, np.float32, fill)))
    return Probes(layers[:, :-2], layers[:, -2:-1], multiclass, layers[:, -1])


def compare_segmentation(
    run: Run, dataset: Dataset, models: Sequence[str], *, reference: str = "mae"
) -> pd.DataFrame:
    """Mean IoU and Dice over test images, with paired differences from one encoder's.

    Intervals are over patients. Each encoder gets a decoder of its own.

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
        measured = {m: mean_on_resamples(score[metric], weights) for m, score in scores.items()}
        facts = {"dataset": dataset.name, "task": "segmentation", "metric": metric}
        return paired_table(models, reference, measured.__getitem__, **facts)

    return pd.concat([table("IoU"), table("Dice")], ignore_index=True)


def labels_left_out(dataset: Dataset) -> list[str]:
    """Labels whose known test cases all have one value: there is nothing to tell apart.

    Averages of AUROC leave them out, and those of AUPRC the ones without a positive, whose F1
    counts as 0 in its average.
    """
    truth = dict(zip(dataset.labels, labels_of(dataset, "test").T, strict=True))
    return [label for label, t in truth.items() if len(np.unique(t[~np.isnan(t)])) < 2]


def _columns(dataset: Dataset, tasks: Sequence[str] | None) -> list[int]:
    return [dataset.labels.index(task) for task in tasks or dataset.labels]
