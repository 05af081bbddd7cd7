"""The paper's linear probe: a few epochs of AdamW on raw features."""

import numpy as np
import torch
from scipy.stats import rankdata

from pacx.profile import ProbeSettings
from pacx.training.probe import Probes, checked, log_losses, place_for, to_probabilities


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
    x, y = checked(train, torch.float32)
    val_x, val_y = checked(val, torch.float32)
    x = x[None] if x.ndim == 2 else x
    if subsets is None:
        subsets = np.arange(len(y))[None]
    # The same order and views for all heads: none sees the others.
    orders, views = (torch.Generator().manual_seed(s) for s in (seed, seed + 1))
    rows = torch.from_numpy(subsets)
    heads, size = rows.shape
    with place_for(x.shape[2] * y.shape[1] * subsets.size) as place:
        x, y, val_x, val_y = (tensor.to(place) for tensor in (x, y, val_x, val_y))
        shapes = (heads, x.shape[2], y.shape[1]), (heads, 1, y.shape[1])
        weight, bias = (torch.zeros(s, device=place, requires_grad=True) for s in shapes)
        optimiser = torch.optim.AdamW(
            [weight, bias], lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        best = torch.full((heads,), -1.0, dtype=torch.float64)
        best_weight, best_bias = weight.detach().clone(), bias.detach().clone()
        for _ in range(settings.epochs):
            order = torch.randperm(size, generator=orders)
            for batch in rows[:, order].split(settings.batch_size, dim=1):
                view = torch.randint(len(x), batch.shape[1:], generator=views)
                loss = log_losses(x[view, batch] @ weight + bias, y[batch], multiclass)
                optimiser.zero_grad()
                # The sum of each head's mean: heads do not change each other's steps.
                loss.nanmean(dim=(1, 2) if loss.ndim == 3 else 1).sum().backward()
                optimiser.step()
            with torch.no_grad():
                scores = to_probabilities(val_x @ weight + bias, multiclass).cpu().numpy()
                reached = torch.from_numpy(_aurocs(val[1], scores))
                # Without both classes in validation there is no AUROC; then the last epoch is kept.
                better = ~(reached <= best)
                best = torch.where(better, reached, best)
                best_weight[better], best_bias[better] = weight[better], bias[better]
    loss = log_losses(val_x @ best_weight + best_bias, val_y, multiclass).cpu()
    loss = loss.nanmean(1).nan_to_num()
    loss = loss[:, None].expand(-1, y.shape[1]) if multiclass else loss
    return Probes(best_weight.cpu(), best_bias.cpu(), multiclass, loss)


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
