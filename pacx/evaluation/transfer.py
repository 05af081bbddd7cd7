"""From frozen encoders to one tidy table of probe results with paired intervals."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from pacx.data.cache import cached_array
from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.splits import refuse_leaks
from pacx.data.table import Dataset
from pacx.evaluation.features import extract_features, images_of
from pacx.evaluation.probe import draw_subsets, fit_probes, labels_of
from pacx.evaluation.statistics import bootstrap_weights, interval, macro_auroc
from pacx.run import Run


def open_benchmark(run: Run, name: str) -> Dataset:
    """Load a benchmark, and refuse it when a patient would leak.

    Raises:
        PacxError: See `pacx.data.splits.refuse_leaks`.
    """
    dataset = load_dataset(name, run.data_root)
    refuse_leaks(read_patients(run.data_root, "train"), dataset)
    return dataset


def probe_scores(
    run: Run, dataset: Dataset, model: str, *, fraction: float = 1.0, pooling: str = "cls"
) -> np.ndarray:
    """Test probabilities of the linear probes on one frozen encoder, cached.

    Args:
        run: The run.
        dataset: A benchmark.
        model: See `pacx.evaluation.features.encoder_of`.
        fraction: Share of the training labels; below 1 several draws are made.
        pooling: `cls`, as in the paper, or `mean` of the patch tokens.

    Returns:
        (K, M, C): draw, test image, label.
    """
    features = {
        split: getattr(extract_features(run, model, images_of(run, dataset, split)), pooling)
        for split in ("train", "val", "test")
    }
    labels = {split: labels_of(dataset, split) for split in ("train", "val")}
    seed, settings = run.profile.seed, run.profile.probe
    draws = 1 if fraction == 1 else run.profile.label_efficiency.draws

    def fill(out: np.ndarray) -> None:
        subsets = None if fraction == 1 else draw_subsets(labels["train"], fraction, draws, seed)
        out[:] = fit_probes(
            (features["train"], labels["train"]),
            (features["val"], labels["val"]),
            features["test"],
            settings,
            multiclass=dataset.task == "multiclass",
            subsets=subsets,
            seed=seed,
        )

    stamp = "" if model == "random" else (run.artefact(model) / "made.json").read_text()
    key = f"probe {dataset.name} {model} {stamp} {settings} {seed} {fraction} {draws} {pooling}"
    shape = (draws, len(features["test"]), len(dataset.labels))
    return cached_array(run.cache, key, shape, np.float32, fill)


def compare_probes(
    run: Run,
    dataset: Dataset,
    models: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    fraction: float = 1.0,
    pooling: str = "cls",
    reference: str = "mae",
) -> pd.DataFrame:
    """Macro AUROC of several encoders on the same test patients, with paired differences.

    With several draws of the training labels, a case's value is the mean over draws; intervals
    resample patients.

    Args:
        run: The run.
        dataset: A benchmark.
        models: Encoders.
        tasks: Labels to average over; all of them when None.
        fraction: Share of the training labels.
        pooling: `cls` or `mean`.
        reference: The encoder that the others are compared with.

    Returns:
        One row a model: dataset, task, model, pooling, fraction, metric, value, low, high,
        reference, difference_value, difference_low, difference_high.
    """
    chosen = [dataset.labels.index(t) for t in tasks or dataset.labels]
    truth = labels_of(dataset, "test")[:, chosen]
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)

    @cache
    def resampled(model: str) -> tuple[float, np.ndarray]:
        scores = probe_scores(run, dataset, model, fraction=fraction, pooling=pooling)
        once = np.ones((1, len(truth)))
        draws = [np.asarray(s)[:, chosen] for s in scores]
        point = np.mean([macro_auroc(truth, s, once)[0] for s in draws])
        return point, np.mean([macro_auroc(truth, s, weights) for s in draws], axis=0)

    rows = []
    for model in models:
        (point, spread), (base, base_spread) = resampled(model), resampled(reference)
        value = interval(point, spread)
        difference = interval(point - base, spread - base_spread)
        rows.append(
            {
                "dataset": dataset.name,
                "task": "macro" if tasks is None or len(tasks) > 1 else tasks[0],
                "model": model,
                "pooling": pooling,
                "fraction": fraction,
                "metric": "AUROC",
                **value._asdict(),
                "reference": reference,
                **{f"difference_{k}": v for k, v in difference._asdict().items()},
            }
        )
    return pd.DataFrame(rows)
