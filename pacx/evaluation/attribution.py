"""What moves a probe's decision: maps over the patches, and tests of whether to believe them.

The *logit change* of an image is what the probe sees in it beyond a baseline image: the difference
of the two logits. Maps are turned so that positive patches speak for it, whatever its sign.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients
from scipy.stats import pearsonr, rankdata
from torch import Tensor, nn

from pacx.evaluation.attention import rollout_of
from pacx.evaluation.statistics import mean_over_cases, paired_table
from pacx.models.encoder import build_encoder, encode, encoder_config
from pacx.processes import infer

BATCH = 64  # images at once
RANDOM_ORDER = "random order"


class ProbedEncoder(nn.Module):
    """A frozen encoder with a linear probe on its CLS token: images to one logit each.

    Args:
        encoder: From `pacx.models.encoder`; its parameters stop asking for gradients.
        weight: (D,) of the probe, on CLS tokens as they come; one column of
            `pacx.training.probe.Probes.weight`.
        bias: Of the probe.
    """

    def __init__(self, encoder: nn.Module, weight: np.ndarray, bias: float):
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        self.register_buffer("bias", torch.as_tensor(bias, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,) of images (N, 3, H, W)."""
        return encode(self.encoder, images)[0] @ self.weight + self.bias


def explain(probe: ProbedEncoder, images: Tensor, baseline: Tensor) -> dict[str, np.ndarray]:
    """Three maps of the same images: rollout, integrated gradients, occlusion.

    Args:
        probe: What decides.
        images: (N, 3, H, W), normalised as in training.
        baseline: (1, 3, H, W), what stands for "nothing special", such as the mean X-ray.

    Returns:
        Name -> (N, H', W') on the patch grid. Rollout knows no decision and is positive; of the
        others, positive patches speak for the logit change and negative ones against it.
    """
    turned = np.sign(logit_change(probe, images, baseline))[:, None, None]
    return {
        "rollout": infer(probe, partial(rollout_of, probe.encoder), images, size=BATCH),
        "integrated gradients": turned * integrated_gradients(probe, images, baseline),
        "occlusion": turned * occlusion(probe, images, baseline),
    }


def logit_change(probe: ProbedEncoder, images: Tensor, baseline: Tensor) -> np.ndarray:
    """Logits (N,) of images (N, 3, H, W) minus that of the baseline (1, 3, H, W)."""
    return infer(probe, probe, images, size=BATCH) - infer(probe, probe, baseline)


def integrated_gradients(
    probe: ProbedEncoder, images: Tensor, baseline: Tensor, steps: int = 16
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017) over the patch embedding, a sum per patch.

    The patch embedding is linear in the pixels, so this equals the sum over a patch's pixels of
    integrated gradients in image space.

    Args:
        probe: What decides.
        images: (N, 3, H, W).
        baseline: (1, 3, H, W).
        steps: Points of the Gauss-Legendre rule between baseline and image.

    Returns:
        (N, H', W'); a map sums to the image's logit change.
    """
    method = LayerIntegratedGradients(probe, probe.encoder.patch_embed)

    def maps(batch: Tensor) -> Tensor:
        values = method.attribute(batch, baseline.to(batch.device), n_steps=steps)
        return values.detach().sum(dim=2).unflatten(1, _grid(probe))

    return infer(probe, maps, images, size=max(1, BATCH // steps))


def occlusion(probe: ProbedEncoder, images: Tensor, baseline: Tensor) -> np.ndarray:
    """How much the logit falls when one patch shows the baseline instead: (N, H', W').

    Arguments as of `explain`.
    """
    rows, columns = _grid(probe)
    number = torch.arange(rows * columns).reshape(1, 1, rows, columns)
    size = images.shape[-1] // columns
    method, mask = FeatureAblation(probe), _to_pixels(number, size)

    def maps(batch: Tensor) -> Tensor:
        values = method.attribute(
            batch,
            baseline.to(batch.device),
            feature_mask=mask.to(batch.device),
            perturbations_per_eval=BATCH // len(batch),
        )
        return values[:, 0, ::size, ::size]  # equal within a patch

    return infer(probe, maps, images, size=BATCH)


def randomised(probe: ProbedEncoder, seed: int) -> Iterator[tuple[str, ProbedEncoder]]:
    """The probe on ever more random weights: the cascade of Adebayo et al. (2018).

    Yields:
        What became random last, and a copy of the probe: the last block with the final LayerNorm,
        then block by block down to the first, then the patch embedding with the CLS token.
    """
    torch.manual_seed(seed)
    fresh = build_encoder(**encoder_config(probe.encoder))
    encoder = copy.deepcopy(probe.encoder)
    encoder.norm.load_state_dict(fresh.norm.state_dict())
    for i in reversed(range(len(encoder.blocks))):
        encoder.blocks[i].load_state_dict(fresh.blocks[i].state_dict())
        yield f"block {i + 1}", _on(encoder, probe)
    yield "patch embedding", _on(fresh, probe)


def randomisation_table(
    probe: ProbedEncoder,
    images: Tensor,
    baseline: Tensor,
    maps: dict[str, np.ndarray],
    weights: np.ndarray,
    seed: int,
    **facts: object,
) -> pd.DataFrame:
    """Do the maps depend on the weights? Rank correlation with those of a randomised encoder.

    The maps' strength is compared, without sign: what a figure shows.

    Args:
        probe: What decides.
        images: (N, 3, H, W).
        baseline: (1, 3, H, W).
        maps: From `explain`, of the same probe and images.
        weights: (R, N) of the bootstrap.
        seed: Of the random weights.
        **facts: Columns that are equal in all rows.

    Returns:
        One row a method and stage: the facts, metric, method, what (became random last), and the
        mean over cases with its interval: value, low, high.
    """
    rows = []
    for stage, changed in randomised(probe, seed):
        for method, values in explain(changed, images, baseline).items():
            alike = rank_correlation(np.abs(values), np.abs(maps[method]))
            names = {"metric": "rank correlation", "method": method, "what": stage}
            rows.append({**facts, **names, **mean_over_cases(alike, weights)._asdict()})
    return pd.DataFrame(rows)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation (N,) of two sets of maps (N, H', W'), case by case."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    return pearsonr(*ranks, axis=1).statistic


def removal_curves(
    probe: ProbedEncoder,
    images: Tensor,
    baseline: Tensor,
    maps: np.ndarray,
    shares: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence left as patches are removed, or put back, in the order of a map.

    Deletion starts from the image and lets the patches with the highest values show the baseline;
    insertion starts from the baseline and lets the same patches show the image (Petsiuk et al.
    2018).

    Args:
        probe: What decides.
        images: (N, 3, H, W).
        baseline: (1, 3, H, W).
        maps: (N, H', W'), the highest value goes first.
        shares: K shares of the patches, increasing from 0 to 1.

    Returns:
        Deletion and insertion, each (N, K) in logits, turned so that the whole image is positive.
    """
    rank = torch.from_numpy(rankdata(-maps.reshape(len(maps), -1), "ordinal", axis=1))
    rank = rank.reshape(maps.shape)[:, None]  # from 1
    size = images.shape[-1] // maps.shape[-1]
    whole = logit_change(probe, images, baseline)
    none = np.zeros_like(whole)
    deletion, insertion = [whole], [none]
    for share in shares[1:-1]:
        chosen = _to_pixels(rank <= round(share * maps[0].size), size)
        deletion.append(logit_change(probe, torch.where(chosen, baseline, images), baseline))
        insertion.append(logit_change(probe, torch.where(chosen, images, baseline), baseline))
    deletion, insertion = [*deletion, none], [*insertion, whole]
    turned = np.sign(whole)[:, None]
    return tuple(turned * np.stack(curves, axis=1) for curves in (deletion, insertion))


def faithfulness_table(
    probe: ProbedEncoder,
    images: Tensor,
    baseline: Tensor,
    maps: dict[str, np.ndarray],
    weights: np.ndarray,
    seed: int,
    steps: int = 7,
    **facts: object,
) -> pd.DataFrame:
    """Areas under deletion and insertion by several maps and by a random order.

    All values are shares of the logit change of the whole images, means over cases. A map that
    finds what decides has a small area under deletion and a large one under insertion.

    Args:
        probe: What decides.
        images: (N, 3, H, W).
        baseline: (1, 3, H, W).
        maps: Method -> (N, H', W').
        weights: (R, N) of the bootstrap.
        seed: Of the random order.
        steps: Into how many groups the patches are cut.
        **facts: Columns that are equal in all rows.

    Returns:
        One row a metric (`deletion`, `insertion`) and method, with the difference from the random
        order as in `pacx.evaluation.statistics.paired_table`.
    """
    shares = np.linspace(0, 1, steps + 1)
    shape = next(iter(maps.values())).shape
    orders = {**maps, RANDOM_ORDER: np.random.default_rng(seed).random(shape)}
    pairs = {m: removal_curves(probe, images, baseline, o, shares) for m, o in orders.items()}
    whole = np.abs(logit_change(probe, images, baseline))
    of_whole = whole.mean(), weights @ whole

    def share_of(values: np.ndarray) -> tuple[float, np.ndarray]:
        return values.mean() / of_whole[0], weights @ values / of_whole[1]

    areas = []
    for k, metric in enumerate(("deletion", "insertion")):
        curve = {method: pair[k] for method, pair in pairs.items()}
        measured = {m: share_of(np.trapezoid(c, shares, axis=1)) for m, c in curve.items()}
        table = paired_table(list(orders), RANDOM_ORDER, measured.__getitem__, metric=metric)
        areas.append(table.rename(columns={"model": "method"}).assign(**facts))
    return pd.concat(areas, ignore_index=True)


def _on(encoder: nn.Module, probe: ProbedEncoder) -> ProbedEncoder:
    return ProbedEncoder(copy.deepcopy(encoder), probe.weight, probe.bias)


def _grid(probe: ProbedEncoder) -> tuple[int, int]:
    return probe.encoder.patch_embed.grid_size


def _to_pixels(patches: Tensor, size: int) -> Tensor:
    """Repeat every patch's value (..., H', W') over its pixels (..., H, W)."""
    return patches.repeat_interleave(size, dim=-1).repeat_interleave(size, dim=-2)
