"""Linear probes on frozen features, solved to convergence: the book's yardstick."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import logit

from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.processes import device

#: Inverse strengths of the L2 penalty that are tried, scikit-learn's `C`.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
_LARGE = 100_000_000  # features x labels x rows
# Largest gradient at the end: to compare strengths, to keep, and what steps without a loss reach.
_COARSE, _FINE, _FINEST = 1e-2, 1e-6, 1e-8


class Probes(NamedTuple):
    """K linear layers on the same features as they come, whatever happened to them inside.

    Attributes:
        weight: (K, D, C) float32.
        bias: (K, 1, C) float32.
        multiclass: Whether exactly one of the C labels is 1.
        loss: (K, C) float32 log loss on validation labels, by which encoders, poolings and numbers
            of components may be chosen.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    multiclass: bool
    loss: torch.Tensor

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (K, M, C) of features (M, D)."""
        x = torch.from_numpy(np.array(features, np.float64))
        # Features may be far from 0 beside their spread: 32 bit would cancel.
        logits = x @ self.weight.double() + self.bias.double()
        return to_probabilities(logits, self.multiclass).float().numpy()


def fit_probes(
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    multiclass: bool = False,
    subsets: np.ndarray | None = None,
) -> Probes:
    """Logistic regression on standardised features, solved to convergence.

    As scikit-learn's `StandardScaler` and `LogisticRegression` (multinomial for exclusive classes),
    with the strength of the L2 penalty chosen for each label by its log loss on `val`, or by
    five-fold cross-validation where `val` is None. Of equally good strengths the strongest is kept.
    Unknown labels (NaN) carry no loss. A feature that is constant has no weight. A label with one
    class only is answered by its share, (positives + 1/2) / (cases + 1), whatever the features.

    Args:
        train: Features (N, D) and labels (N, C): 1, 0 or NaN.
        val: Features (M, D) and labels (M, C) of the validation split. Leave it out where training
            labels are few: the choice would know more labels than the probe.
        multiclass: Whether exactly one of the C labels is 1.
        subsets: (K, n) training rows of each of K heads; all rows, one head, when None.

    Returns:
        The K probes.

    Raises:
        PacxError: A feature is NaN or infinite.

    Example:
        >>> probability = fit_probes((x, y)).probabilities(x_test)[0]
    """
    x, y = checked(train)
    held_out = None if val is None else checked(val)
    rows = np.arange(len(y))[None] if subsets is None else subsets
    with place_for(x.shape[1] * y.shape[1] * rows.shape[1]) as place:
        x, y = x.to(place), y.to(place)
        held_out = held_out and tuple(tensor.to(place) for tensor in held_out)
        heads = [_fit(x[own], y[own], held_out, multiclass) for own in torch.from_numpy(rows)]
    layers = (torch.stack(tensors).float() for tensors in zip(*heads, strict=True))
    weight, bias, loss = (tensor.cpu() for tensor in layers)
    return Probes(weight, bias, multiclass, loss)


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


def checked(
    pair: tuple[np.ndarray, np.ndarray], dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels as tensors.

    Raises:
        PacxError: A feature is NaN or infinite.
    """
    x, y = (torch.from_numpy(np.array(a)).to(dtype) for a in pair)
    if not x.isfinite().all():
        row, column = (~x.isfinite()).nonzero()[0, -2:].tolist()
        raise PacxError(
            f"Features for a probe: row {row}, column {column} is NaN or infinite. The encoder's "
            "weights or its images are damaged; train or load it anew."
        )
    return x, y


def log_losses(logits: torch.Tensor, labels: torch.Tensor, multiclass: bool) -> torch.Tensor:
    """Log loss (..., C) of each label, NaN where it is unknown; (...) of exclusive classes."""
    if multiclass:
        return -(labels * logits.log_softmax(-1)).sum(-1)
    labels = labels.expand_as(logits)
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return torch.where(known, losses, torch.nan)


def to_probabilities(logits: torch.Tensor, multiclass: bool) -> torch.Tensor:
    """Sigmoid of each label's logit, or softmax over exclusive classes."""
    return logits.softmax(-1) if multiclass else logits.sigmoid()


@contextmanager
def place_for(size: int) -> Iterator[torch.device]:
    """One thread of the CPU for small problems, where several, or a GPU, would mostly wait."""
    threads, small = torch.get_num_threads(), size < _LARGE
    torch.set_num_threads(1 if small else threads)
    try:
        yield torch.device("cpu") if small else device()
    finally:
        torch.set_num_threads(threads)


def _fit(x, y, held_out, multiclass):
    """Weight (D, C), bias (1, C) and validation loss (C,) of one probe; x (N, D), y (N, C)."""
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 1e-9 * mean.abs(), spread, torch.inf)  # a constant's is rounding
    x = (x - mean) / spread
    # In the axes of the principal components the penalty is the same and the problem is easy.
    variance, axes = torch.linalg.eigh(x.T @ x)
    axes = axes[:, variance > 1e-10 * variance[-1].clamp(min=1e-10)]
    z = x @ axes
    strengths = z.new_tensor(STRENGTHS)[:, None].expand(-1, y.shape[1])
    if held_out is None:
        inside = _folds(y, multiclass)
        solved = _solve(z, y, inside, strengths, multiclass, _COARSE)
        losses = log_losses(_logits(z, solved), y[:, None, None], multiclass)
        outside = ~inside.all(2, keepdim=True) if multiclass else ~inside  # (N, F, C)
        outside = outside[..., 0] if multiclass else outside
        losses = torch.where(outside.unsqueeze(2), losses, torch.nan).flatten(0, 1)
    else:
        everything = torch.ones_like(y, dtype=torch.bool)[:, None]
        solved = _solve(z, y, everything, strengths, multiclass, _COARSE)
        val_z = (held_out[0] - mean) / spread @ axes
        losses = log_losses(_logits(val_z, solved), held_out[1][:, None, None], multiclass)[:, 0]
    losses = losses.nanmean(0).nan_to_num()  # (G, C), or (G,) of exclusive classes
    losses = losses[:, None].expand(-1, y.shape[1]) if multiclass else losses
    best = losses.argmin(0)
    chosen = strengths.gather(0, best[None])
    everything = torch.ones_like(y, dtype=torch.bool)[:, None]
    solved = _solve(z, y, everything, chosen, multiclass, _FINE)[:, 0, 0]
    weight = (axes @ solved[:-1] / spread[:, None]).float().double()  # so that the bias fits it
    return weight, solved[-1:] - mean @ weight, losses.gather(0, best[None])[0]


def _solve(z, y, inside, strengths, multiclass, tolerance):
    """Solve the regressions of every fold, strength and label at once.

    Args:
        z: (N, R) features in the axes of their principal components.
        y: (N, C) labels, NaN = unknown.
        inside: (N, F, C) bool, True = the case trains this fold's probe of this label.
        strengths: (G, C) inverse strengths of the penalty.
        multiclass: Whether exactly one of the C labels is 1.
        tolerance: Largest entry of the gradient at the end.

    Returns:
        (R + 1, F, G, C): weights, and the bias last.
    """
    used = inside & ~y.isnan()[:, None]
    if multiclass:
        used = used.all(2, keepdim=True).expand_as(used)
    target = y.nan_to_num()[:, None]
    positives, cases = (target * used).sum(0), used.sum(0)  # (F, C)
    share = (positives + 0.5) / (cases + 1)
    # A label of one class has no solution, its weights stay 0; nor has a class without patients.
    solvable = positives > 0 if multiclass else (positives > 0) & (positives < cases)
    used = used & (solvable.any(1, keepdim=True) if multiclass else solvable)
    start = torch.from_numpy(logit(share.cpu().numpy()))[:, None]  # (F, 1, C)
    # What each weight's curvature would be if all probabilities were the share: a change of units
    # that lets L-BFGS see a round valley.
    slope = (share * (1 - share))[:, None]
    curvature = (z**2).sum(0)[:, None, None, None] * slope + 1 / strengths
    curvature = torch.cat([curvature, (len(z) * slope + 0 * strengths)[None]])
    units = curvature.rsqrt() * solvable[:, None]
    begin = torch.zeros_like(curvature)
    begin[-1] = start
    moves = torch.zeros_like(curvature)
    optimiser = torch.optim.LBFGS(
        [moves], max_iter=1000, tolerance_grad=tolerance, tolerance_change=1e-12,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip
    ones = torch.cat([z, z.new_ones(len(z), 1)], 1)
    weights, wanted = used[:, :, None], target[:, :, None]
    absent = torch.where(solvable, 0.0, -torch.inf)[:, None] if multiclass else 0.0

    def closure():
        # By hand, since two matrix products are all there is.
        values = begin + units * moves
        logits = _logits(z, values) + absent
        if multiclass:
            losses = -(wanted * logits.log_softmax(-1).nan_to_num(neginf=0.0))
            error = logits.softmax(-1) - wanted
        else:
            losses = F.softplus(logits) - wanted * logits
            error = logits.sigmoid() - wanted
        penalised = values[:-1] / strengths
        moves.grad = (ones.T @ (error * weights).flatten(1)).view_as(moves)
        moves.grad[:-1] += penalised
        moves.grad *= units
        return (losses * weights).sum() + 0.5 * (values[:-1] * penalised).sum()

    with torch.no_grad():
        optimiser.step(closure)
        if tolerance == _FINE:
            # A sum of losses is too coarse to tell smaller steps apart, the gradient is not.
            closure()
            kept, before = moves.clone(), moves.grad.abs().max()
            optimiser.param_groups[0].update(
                line_search_fn=None, max_iter=200, tolerance_grad=_FINEST, tolerance_change=0.0
            )
            optimiser.step(closure)
            if not moves.grad.abs().max() <= before:
                moves.copy_(kept)
    return begin + units * moves


def _logits(z, solved):
    """(N, F, G, C) from features (N, R) and weights with the bias last (R + 1, F, G, C)."""
    return (z @ solved[:-1].flatten(1)).view(len(z), *solved.shape[1:]) + solved[-1]


def _folds(y, multiclass):
    """(N, F, C) bool: whether a case trains the fold; each class is dealt out in turn."""
    dealt = torch.stack([(torch.cumsum(y == value, 0) - 1) % FOLDS for value in (0, 1)])
    fold = torch.where(y == 1, dealt[1], dealt[0])
    if multiclass:  # a case trains all classes or none
        own = y.nan_to_num().argmax(1, keepdim=True)
        fold = torch.gather(dealt[1], 1, own).expand_as(y)
    return fold[:, None] != torch.arange(FOLDS, device=y.device)[:, None]


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
