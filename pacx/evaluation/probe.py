"""Linear probes on cached features: many heads trained as one batched problem."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.profile import ProbeSettings


class Probes(NamedTuple):
    """K linear layers on the same features.

    Attributes:
        weight: (K, D, C) float32.
        bias: (K, 1, C) float32.
        multiclass: Whether exactly one of the C labels is 1.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    multiclass: bool

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (K, M, C) of features (M, D)."""
        x = torch.from_numpy(np.array(features, np.float32))
        return _probabilities(x @ self.weight + self.bias, self.multiclass).numpy()


def fit_probes(
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    settings: ProbeSettings,
    *,
    multiclass: bool = False,
    subsets: np.ndarray | None = None,
    seed: int = 0,
) -> Probes:
    """Train one linear layer per subset and label set; keep the epoch with the best validation.

    Paper, section 'Linear probe': AdamW, binary cross-entropy on each label (cross-entropy over
    classes), best epoch by validation AUROC. Unknown labels (NaN) carry no loss.

    Args:
        train: Features (N, D) and labels (N, C). Or features (V, N, D) of V views of every image,
            such as plain and mirrored: each step draws one of them for each case.
        val: Features (M, D) and labels (M, C) of the validation split.
        settings: Epochs, batch size, learning rate, weight decay.
        multiclass: Whether exactly one of the C labels is 1.
        subsets: (K, n) training rows of each of K heads; all rows, one head, when None.
        seed: Of the order of the batches, and of the views.

    Returns:
        The K probes.
    """
    x, y = (torch.from_numpy(np.array(a, np.float32)) for a in train)
    x = x[None] if x.ndim == 2 else x
    if subsets is None:
        subsets = np.arange(len(y))[None]
    # The same order and views for all heads: none sees the others.
    orders, views = (torch.Generator().manual_seed(s) for s in (seed, seed + 1))
    rows = torch.from_numpy(subsets)
    heads, size = rows.shape
    weight = torch.zeros(heads, x.shape[2], y.shape[1], requires_grad=True)
    bias = torch.zeros(heads, 1, y.shape[1], requires_grad=True)
    optimiser = torch.optim.AdamW(
        [weight, bias], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    val_x = torch.from_numpy(np.array(val[0], np.float32))
    best = torch.full((heads,), -1.0, dtype=torch.float64)
    best_weight, best_bias = weight.detach().clone(), bias.detach().clone()
    for _ in range(settings.epochs):
        order = torch.randperm(size, generator=orders)
        for part in rows[:, order].split(settings.batch_size, dim=1):
            view = torch.randint(len(x), part.shape[1:], generator=views)
            loss = _loss(x[view, part] @ weight + bias, y[part], multiclass)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            scores = _probabilities(val_x @ weight + bias, multiclass).numpy()
            reached = torch.from_numpy(_aurocs(val[1], scores))
            # Without both classes in validation there is no AUROC; then the last epoch is kept.
            better = ~(reached <= best)
            best = torch.where(better, reached, best)
            best_weight[better], best_bias[better] = weight[better], bias[better]
    return Probes(best_weight, best_bias, multiclass)


def draw_subsets(labels: np.ndarray, fraction: float, draws: int, seed: int) -> np.ndarray:
    """Draw training rows so that every class keeps at least one positive and one negative.

    Paper, section 'Label efficiency'; its public code also guarantees one positive only.

    Args:
        labels: (N, C), 1, 0 or NaN.
        fraction: Share of the rows.
        draws: K independent draws.
        seed: Of the draws.

    Returns:
        (K, n) row numbers, n = `round(fraction * N)`.

    Raises:
        PacxError: The share is too small to hold one positive of each class.
    """
    n = round(fraction * len(labels))
    return np.stack([_draw(labels, n, np.random.default_rng([seed, k])) for k in range(draws)])


def labels_of(dataset: Dataset, split: str) -> np.ndarray:
    """(N, C) float32 labels of a split; 1, 0 or NaN = unknown."""
    return dataset.split(split)[list(dataset.labels)].to_numpy(np.float32)


def _draw(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    chosen: list[int] = []
    for column in labels.T:
        for value in (1, 0):
            if not (column[chosen] == value).any():
                candidates = np.flatnonzero(column == value)
                if len(candidates):
                    chosen.append(int(rng.choice(candidates)))
    if len(chosen) > n:
        raise PacxError(
            f"{n} labelled images cannot hold a positive and a negative of each of "
            f"{labels.shape[1]} labels. Raise the fraction in label_efficiency.fractions."
        )
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return np.concatenate([chosen, rng.choice(rest, n - len(chosen), replace=False)]).astype(int)


def _loss(logits: torch.Tensor, labels: torch.Tensor, multiclass: bool) -> torch.Tensor:
    """Sum over heads of each head's mean, so that heads do not change each other's steps."""
    if multiclass:
        per_case = -(labels * F.log_softmax(logits, -1)).sum(-1)
        return per_case.mean(1).sum()
    known = ~labels.isnan()
    per_label = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), weight=known.float(), reduction="none"
    )
    return (per_label.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)).sum()


def _probabilities(logits: torch.Tensor, multiclass: bool) -> torch.Tensor:
    return logits.softmax(-1) if multiclass else logits.sigmoid()


def _aurocs(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Macro AUROC (K,) of K heads' scores (K, N, C) by ranks; NaN where no label has both classes.

    The same as `macro_auroc` head by head, which sorts once for each head and label.
    """
    # An unknown label counts for neither side, and ranks last.
    ranks = rankdata(np.where(np.isnan(truth), np.inf, scores), axis=1)
    positive = (truth == 1).astype(float)
    n_positive, n_negative = positive.sum(0), (truth == 0).sum(0)
    below = np.einsum("knc,nc->kc", ranks, positive) - n_positive * (n_positive + 1) / 2
    measured = (n_positive > 0) & (n_negative > 0)
    if not measured.any():
        return np.full(len(scores), np.nan)
    return (below[:, measured] / (n_positive * n_negative)[measured]).mean(axis=1)
