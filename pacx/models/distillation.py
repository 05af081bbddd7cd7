"""Stage 2 of the paper: heads and loss that pull the CXR encoder towards ECG and labs."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Dropout, linear layer, LayerNorm."""

    def __init__(self, in_width: int, out_width: int, dropout: float = 0.2):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(in_width, out_width), nn.LayerNorm(out_width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Project (N, in_width) to (N, out_width)."""
        return self.mlp(x)


class Projections(NamedTuple):
    """What the heads give; the dictionaries are keyed by modality.

    Attributes:
        cxr: (N, S) in the shared space.
        shared: The teachers' embeddings in the shared space, (N, S) each.
        predicted: The teachers' embeddings as predicted from the X-ray, (N, D_teacher) each.
    """

    cxr: Tensor
    shared: dict[str, Tensor]
    predicted: dict[str, Tensor]


class DistillationHeads(nn.Module):
    """All heads of stage 2; they are thrown away afterwards.

    Args:
        cxr_width: Width of the CXR encoder's CLS token.
        teacher_widths: Modality ("ecg", "labs") to the width of its teacher's embedding.
        shared_width: Width S of the shared space (the paper: 256).
        dropout: Before every linear layer.
    """

    def __init__(
        self,
        cxr_width: int,
        teacher_widths: Mapping[str, int],
        shared_width: int = 256,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.teacher_widths = dict(teacher_widths)
        self.cxr_to_shared = ProjectionHead(cxr_width, shared_width, dropout)
        for name, width in teacher_widths.items():
            self.add_module(f"{name}_to_shared", ProjectionHead(width, shared_width, dropout))
            self.add_module(f"cxr_to_{name}", ProjectionHead(cxr_width, width, dropout))

    def forward(self, cxr: Tensor, teachers: Mapping[str, Tensor]) -> Projections:
        """Project CLS tokens (N, D) and teacher embeddings {modality: (N, D_teacher)}."""
        return Projections(
            self.cxr_to_shared(cxr),
            {m: self.get_submodule(f"{m}_to_shared")(teachers[m]) for m in self.teacher_widths},
            {m: self.get_submodule(f"cxr_to_{m}")(cxr) for m in self.teacher_widths},
        )


class DistillationLoss(nn.Module):
    """contrastive_weight * InfoNCE + regression_weight * (1 - cosine).

    InfoNCE is symmetric between the X-ray and each modality, with one learnable temperature;
    negatives come from every process. The regression target is the *unprojected* embedding of the
    teacher, matched in direction only. Both are means over `modalities`: leave one out and its
    terms are absent.

    Args:
        contrastive_weight: lambda_C (the paper: 0.5).
        regression_weight: lambda_R (1.0).
        temperature: Where the learnable temperature starts (0.07).
        label_smoothing: Of the InfoNCE targets (0.02).
        modalities: Those that take part, at least one.

    Example:
        >>> terms = DistillationLoss()(heads(cls, teachers), teachers)
    """

    def __init__(
        self,
        contrastive_weight: float = 0.5,
        regression_weight: float = 1.0,
        temperature: float = 0.07,
        label_smoothing: float = 0.02,
        modalities: tuple[str, ...] = ("ecg", "labs"),
    ):
        super().__init__()
        self.contrastive_weight = contrastive_weight
        self.regression_weight = regression_weight
        self.label_smoothing = label_smoothing
        self.modalities = tuple(modalities)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(
        self, projections: Projections, teachers: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the loss of one batch; every process must bring the same number of rows.

        Args:
            projections: From `DistillationHeads`.
            teachers: {modality: (N, D_teacher)}, the frozen teachers' embeddings.

        Returns:
            Scalars: `contrastive_<modality>`, `regression_<modality>`, their means `contrastive`
            and `regression`, `total` and `logit_scale` (after clamping to [1, 100]; the public
            code reports it before).
        """
        scale = self.logit_scale.exp().clamp(1, 100)
        terms: dict[str, Tensor] = {}
        for m in self.modalities:
            shared, predicted = projections.shared[m], projections.predicted[m]
            terms[f"contrastive_{m}"] = self._contrast(projections.cxr, shared, scale)
            cosine = F.cosine_similarity(predicted, teachers[m].detach(), dim=1)
            terms[f"regression_{m}"] = 1 - cosine.mean()
        for kind in ("contrastive", "regression"):
            terms[kind] = torch.stack([terms[f"{kind}_{m}"] for m in self.modalities]).mean()
        terms["total"] = (
            self.contrastive_weight * terms["contrastive"]
            + self.regression_weight * terms["regression"]
        )
        terms["logit_scale"] = scale.detach()
        return terms

    def _contrast(self, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """Symmetric InfoNCE of paired rows (N, S): rows of this process against all rows."""
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        all_a, all_b, first = a, b, 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # Gradients flow through this gather; DDP's mean then equals the one-process gradient.
            all_a = torch.cat(dist_nn.all_gather(a))
            all_b = torch.cat(dist_nn.all_gather(b))
            first = dist.get_rank() * len(a)
        target = torch.arange(first, first + len(a), device=a.device)
        return (
            sum(
                F.cross_entropy(scale * rows @ keys.T, target, label_smoothing=self.label_smoothing)
                for rows, keys in ((a, all_b), (b, all_a))
            )
            / 2
        )
