"""Other targets for stage 2 than the teachers' embeddings: they ask what it is that helps."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pacx.data.datasets.symile_mimic import Pairs
from pacx.run import Run

Targets = dict[str, np.ndarray]


def whiten(values: np.ndarray) -> np.ndarray:
    """(N, K) principal components of (N, D) values, each of variance 1; all but the smallest."""
    u, sizes, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    return (u[:, sizes > 1e-3 * sizes[0]] * np.sqrt(len(values))).astype(np.float32)


def state_part(values: np.ndarray, states: np.ndarray) -> np.ndarray:
    """What a linear model of the true states (N, S) explains of values (N, D)."""
    known = np.column_stack([np.ones(len(states)), states])
    return (known @ np.linalg.lstsq(known, values, rcond=None)[0]).astype(np.float32)


def _projected_ecg(pairs: Pairs) -> np.ndarray:
    """(N, 256) random projections of the ECGs themselves, without any network."""
    signals = np.asarray(pairs.ecg, np.float32).reshape(len(pairs.ecg), -1)
    weights = np.random.default_rng(0).standard_normal((signals.shape[1], 256), np.float32)
    return signals @ weights / np.float32(np.sqrt(signals.shape[1]))


#: Name -> targets by modality, from the teachers' embeddings by modality, the pairs and their true
#: states (N, S), which only phantoms have.
TARGETS: dict[str, Callable[[Targets, Pairs, np.ndarray | None], Targets]] = {
    "states": lambda teachers, pairs, states: {"states": states},
    "state part": lambda teachers, pairs, states: {
        m: state_part(values, states) for m, values in teachers.items()
    },
    "state removed": lambda teachers, pairs, states: {
        m: values - state_part(values, states) for m, values in teachers.items()
    },
    "whitened": lambda teachers, pairs, states: {m: whiten(v) for m, v in teachers.items()},
    "raw labs": lambda teachers, pairs, states: {
        "labs": np.concatenate([pairs.percentiles, pairs.observed], 1).astype(np.float32)
    },
    "missingness": lambda teachers, pairs, states: {"labs": pairs.observed.astype(np.float32)},
    "projected ECG": lambda teachers, pairs, states: {"ecg": _projected_ecg(pairs)},
}


def teacher_name(teacher: str, share: float) -> str:
    """Artefact of a teacher that was trained for a share of the profile's epochs."""
    return teacher if share in (0, 1) else f"{teacher}-{share:g}"


def truth_of(run: Run, split: str, pairs: Pairs) -> pd.DataFrame:
    """The phantoms' truth, a row a pair in the pairs' order."""
    path = run.data_root / "symile-mimic" / "data_npy" / split / "truth.csv"
    truth = pd.read_csv(path).drop_duplicates("hadm_id").set_index("hadm_id")
    return truth.loc[pairs.table["study"].astype(int)]


def states_in(table: pd.DataFrame) -> pd.DataFrame:
    """(N, S) the true states in a table of phantoms."""
    states = table.filter(like="state_")
    return states.rename(columns=lambda name: name.removeprefix("state_"))
