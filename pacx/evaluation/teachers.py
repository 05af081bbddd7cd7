"""What a teacher's embedding says of a phantom's true state, after training and before."""

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets.symile_mimic import Pairs, load_pairs
from pacx.evaluation.statistics import bootstrap_weights, paired_table
from pacx.run import Run
from pacx.training.distill import teacher_embeddings


def compare_teachers(run: Run) -> pd.DataFrame:
    """R2 of a ridge regression from each teacher's embedding to each true state.

    Fitted on the training pairs, scored on the test pairs. The untrained teachers are those of
    the variant `pacx-untrained`.

    Args:
        run: A phantom run that holds the artefacts `ecg` and `labs`.

    Returns:
        One row a modality (`target`), `state` (`mean`: mean over all states) and `model` (`teacher`
        or `teacher-untrained`): metric (`R2`), then the columns of
        `pacx.evaluation.statistics.paired_table` with the untrained teacher as reference.
    """
    size = run.profile.vit.image_size
    pairs = {s: load_pairs(run.data_root, s, size, run.cache) for s in ("train", "test")}
    states = {split: true_states(run, split, part) for split, part in pairs.items()}
    weights = bootstrap_weights(
        pairs["test"].table["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed
    )
    once = np.ones((1, weights.shape[1]), np.float32)
    tables = []
    for target in ("ecg", "labs"):
        scores = {}
        for model, trained in {"teacher": True, "teacher-untrained": False}.items():
            known = {
                split: getattr(teacher_embeddings(run, part, trained=trained), target)
                for split, part in pairs.items()
            }
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9)))
            predicted = ridge.fit(known["train"], states["train"]).predict(known["test"])
            null = states["train"].mean().to_numpy()
            scores[model] = [
                explained(states["test"].to_numpy(), predicted, null, w) for w in (once, weights)
            ]
        for k, state in enumerate(states["test"]):
            facts = {"target": target, "state": state, "metric": "R2"}
            tables.append(_table({m: (p[0, k], r[:, k]) for m, (p, r) in scores.items()}, **facts))
        facts = {"target": target, "state": "mean", "metric": "R2"}
        tables.append(_table({m: (p.mean(), r.mean(1)) for m, (p, r) in scores.items()}, **facts))
    return pd.concat(tables, ignore_index=True)


def true_states(run: Run, split: str, pairs: Pairs) -> pd.DataFrame:
    """(N, states) true states of the patients of one split of Symile-MIMIC, phantoms only."""
    path = run.data_root / "symile-mimic" / "data_npy" / split / "truth.csv"
    truth = pd.read_csv(path).drop_duplicates("hadm_id").set_index("hadm_id")
    states = truth.loc[pairs.table["study"].astype(int)].filter(like="state_")
    return states.rename(columns=lambda name: name.removeprefix("state_"))


def explained(
    truth: np.ndarray, predicted: np.ndarray, null: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Share of each column's variance that a prediction explains, for each weighting of the cases.

    Args:
        truth: (N, S).
        predicted: (N, S).
        null: (S,) prediction of one who knows nothing: the training cases' mean.
        weights: (R, N).

    Returns:
        (R, S); 1 is perfect, 0 no better than `null`.
    """
    return 1 - (weights @ (truth - predicted) ** 2) / (weights @ (truth - null) ** 2)


def _table(scores: dict[str, tuple[float, np.ndarray]], **facts: str) -> pd.DataFrame:
    return paired_table(list(scores), "teacher-untrained", scores.__getitem__, **facts)
