"""Linear probes on frozen features: the book's yardstick, solved to convergence, and the paper's.

Both return `Probes`: linear layers on features as they come, whatever happened to them inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import logit
from scipy.stats import rankdata

from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.profile import ProbeSettings

#: Inverse strengths of the L2 penalty that are tried, scikit-learn's `C`.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
_LARGE = 100_000_000  # features x labels x rows
# Largest gradient at the end: to compare strengths, to keep, and what steps without a loss reach.
_COARSE, _FINE, _FINEST = 1e-2, 1e-6, 1e-8


class Probes(NamedTuple):
    """K linear layers on the same features.

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
        return _probabilities(logits, self.multiclass).float().numpy()


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
    """
    x, y = _checked(train)
    held_out = None if val is None else _checked(val)
    rows = np.arange(len(y))[None] if subsets is None else subsets
    with _few_threads(x.shape[1] * y.shape[1] * rows.shape[1]):
        parts = [_fit(x[one], y[one], held_out, multiclass) for one in torch.from_numpy(rows)]
    weight, bias, loss = (torch.stack(part).float() for part in zip(*parts, strict=True))
    return Probes(weight, bias, multiclass, loss)


def fit_paper_probes(
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    settings: ProbeSettings,
    *,
    multiclass: bool = False,
    subsets: np.ndarray | None = None,
    seed: int = 0,
) -> Probes:
    """The paper's probe: a few epochs of AdamW on raw features; the best validation epoch is kept.

    Paper, section 'Linear probe': AdamW, binary cross-entropy on each label (cross-entropy over
    classes), best epoch by validation AUROC. Unknown labels (NaN) carry no loss. After so few
    steps a probe is seldom at its optimum: how far off, chapter 06 shows.

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

    Raises:
        PacxError: A feature is NaN or infinite.
    """
    x, y = _checked(train, torch.float32)
    x = x[None] if x.ndim == 2 else x
    if subsets is None:
        subsets = np.arange(len(y))[None]
    with _few_threads(x.shape[2] * y.shape[1] * subsets.size):
        return _train(x, y, _checked(val, torch.float32), settings, multiclass, subsets, seed)


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


def _train(x, y, val, settings, multiclass, subsets, seed):
    """The paper's probes on features (V, N, D)."""
    val_x, val_y = val
    # The same order and views for all heads: none sees the others.
    orders, views = (torch.Generator().manual_seed(s) for s in (seed, seed + 1))
    rows = torch.from_numpy(subsets)
    heads, size = rows.shape
    weight = torch.zeros(heads, x.shape[2], y.shape[1], requires_grad=True)
    bias = torch.zeros(heads, 1, y.shape[1], requires_grad=True)
    optimiser = torch.optim.AdamW(
        [weight, bias], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    best = torch.full((heads,), -1.0, dtype=torch.float64)
    best_weight, best_bias = weight.detach().clone(), bias.detach().clone()
    for _ in range(settings.epochs):
        order = torch.randperm(size, generator=orders)
        for part in rows[:, order].split(settings.batch_size, dim=1):
            view = torch.randint(len(x), part.shape[1:], generator=views)
            loss = _losses(x[view, part] @ weight + bias, y[part], multiclass)
            optimiser.zero_grad()
            # The sum of each head's mean: heads do not change each other's steps.
            loss.nanmean(dim=(1, 2) if loss.ndim == 3 else 1).sum().backward()
            optimiser.step()
        with torch.no_grad():
            scores = _probabilities(val_x @ weight + bias, multiclass).numpy()
            reached = torch.from_numpy(_aurocs(val_y.numpy(), scores))
            # Without both classes in validation there is no AUROC; then the last epoch is kept.
            better = ~(reached <= best)
            best = torch.where(better, reached, best)
            best_weight[better], best_bias[better] = weight[better], bias[better]
    loss = _losses(val_x @ best_weight + best_bias, val_y, multiclass)
    loss = loss.nanmean(1).nan_to_num()
    loss = loss[:, None].expand(-1, y.shape[1]) if multiclass else loss
    return Probes(best_weight, best_bias, multiclass, loss)


def _fit(x, y, held_out, multiclass):
    """Weight (D, C), bias (1, C) and validation loss (C,) of one probe; x (N, D), y (N, C)."""
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 1e-9 * mean.abs(), spread, torch.inf)  # a constant's is rounding
    x = (x - mean) / spread
    # In the axes of the principal components the penalty is the same and the problem is easy.
    variance, axes = torch.linalg.eigh(x.T @ x)
    axes = axes[:, variance > 1e-10 * variance[-1].clamp(min=1e-10)]
    z = x @ axes
    strengths = torch.tensor(STRENGTHS, dtype=z.dtype)[:, None].expand(-1, y.shape[1])
    if held_out is None:
        inside = _folds(y, multiclass)
        found = _solve(z, y, inside, strengths, multiclass, _COARSE)
        losses = _losses(_logits(z, found), y[:, None, None], multiclass)
        outside = ~inside.all(2, keepdim=True) if multiclass else ~inside  # (N, F, C)
        outside = outside[..., 0] if multiclass else outside
        losses = torch.where(outside.unsqueeze(2), losses, torch.nan).flatten(0, 1)
    else:
        everything = torch.ones_like(y, dtype=torch.bool)[:, None]
        found = _solve(z, y, everything, strengths, multiclass, _COARSE)
        val_z = (held_out[0] - mean) / spread @ axes
        losses = _losses(_logits(val_z, found), held_out[1][:, None, None], multiclass)[:, 0]
    losses = losses.nanmean(0).nan_to_num()  # (G, C), or (G,) of exclusive classes
    losses = losses[:, None].expand(-1, y.shape[1]) if multiclass else losses
    best = losses.argmin(0)
    chosen = strengths.gather(0, best[None])
    everything = torch.ones_like(y, dtype=torch.bool)[:, None]
    found = _solve(z, y, everything, chosen, multiclass, _FINE)[:, 0, 0]
    weight = (axes @ found[:-1] / spread[:, None]).float().double()  # so that the bias fits it
    return weight, found[-1:] - mean @ weight, losses.gather(0, best[None])[0]


@contextmanager
def _few_threads(size: int) -> Iterator[None]:
    """One thread for small problems, where several would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if size < _LARGE else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    # A label of one class has no solution, its weights stay 0; nor has a class that nobody has.
    solvable = positives > 0 if multiclass else (positives > 0) & (positives < cases)
    used = used & (solvable.any(1, keepdim=True) if multiclass else solvable)
    start = torch.from_numpy(logit(share.numpy()))[:, None]  # (F, 1, C)
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
            found, before = moves.clone(), moves.grad.abs().max()
            optimiser.param_groups[0].update(
                line_search_fn=None, max_iter=200, tolerance_grad=_FINEST, tolerance_change=0.0
            )
            optimiser.step(closure)
            if not moves.grad.abs().max() <= before:
                moves.copy_(found)
    return begin + units * moves


def _logits(z, found):
    """(N, F, G, C) from features (N, R) and weights with the bias last (R + 1, F, G, C)."""
    return (z @ found[:-1].flatten(1)).view(len(z), *found.shape[1:]) + found[-1]


def _folds(y, multiclass):
    """(N, F, C) bool: whether a case trains the fold; each class is dealt out in turn."""
    dealt = torch.stack([(torch.cumsum(y == value, 0) - 1) % FOLDS for value in (0, 1)])
    fold = torch.where(y == 1, dealt[1], dealt[0])
    if multiclass:  # a case trains all classes or none
        own = y.nan_to_num().argmax(1, keepdim=True)
        fold = torch.gather(dealt[1], 1, own).expand_as(y)
    return fold[:, None] != torch.arange(FOLDS)[:, None]


def _checked(pair, dtype=torch.float64):
    x, y = (torch.from_numpy(np.array(a)).to(dtype) for a in pair)
    if not x.isfinite().all():
        row, column = (~x.isfinite()).nonzero()[0, -2:].tolist()
        raise PacxError(
            f"Features for a probe: row {row}, column {column} is NaN or infinite. The encoder's "
            "weights or its images are damaged; train or load it anew."
        )
    return x, y


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


def _losses(logits: torch.Tensor, labels: torch.Tensor, multiclass: bool) -> torch.Tensor:
    """Log loss (..., C) of each label, NaN where it is unknown; (...) of exclusive classes."""
    if multiclass:
        return -(labels * logits.log_softmax(-1)).sum(-1)
    labels = labels.expand_as(logits)
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return torch.where(known, losses, torch.nan)


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
