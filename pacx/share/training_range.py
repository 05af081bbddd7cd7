"""How far from the training X-rays an image lies, and from where on that is worth a warning."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.covariance import LedoitWolf

from pacx.errors import PacxError
from pacx.files import new_file
from pacx.models.checkpoints import read_finite, read_header

RANGE = "range.safetensors"
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
        return np.sqrt(np.maximum(((away @ self.precision) * away).sum(1), 0))

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


def load_range(folder: Path, width: int | None = None) -> TrainingRange | None:
    """The range in an exported folder; None where there is none. `width` is D where it is known.

    Raises:
        PacxError: The file is damaged, or is for another encoder.
    """
    path = folder / RANGE
    if not path.is_file():
        return None
    try:
        shapes = {name: tuple(tensor.shape) for name, tensor in read_header(path)[0].items()}
        both = 2 * width if width else shapes["mean"][0]
        if shapes != {"mean": (both,), "precision": (both, both), "limit": (1,)}:
            raise ValueError(f"{shapes} does not fit {both // 2} channels")
        arrays = {name: tensor.numpy() for name, tensor in read_finite(path).items()}
        if arrays["limit"] <= 0:
            raise ValueError(f"its limit is {arrays['limit'][0]}")
        return TrainingRange(arrays["mean"], arrays["precision"], float(arrays["limit"][0]))
    except (LookupError, ValueError) as error:
        raise PacxError(f"{path} is damaged ({error}). Export the encoder again.") from error
