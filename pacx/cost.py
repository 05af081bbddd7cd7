"""What a profile's trainings cost: operations counted, hours of graphics cards projected."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.ecg_founder import ECG_FOUNDER, Net1D
from pacx.models.encoder import add_lora, build_encoder, encode
from pacx.models.lab_autoencoder import LabAutoencoder, masked_mse
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import Profile


class Card(NamedTuple):
    """A graphics card: dense 16-bit TFLOP/s and memory (GB), as its maker states them."""

    peak_tflops: float
    memory_gb: int


#: From NVIDIA's data sheets; those of L4 and H100 state sparse products, which is twice as much.
CARDS = {
    "T4": Card(65, 16),
    "L4": Card(121, 24),
    "A100": Card(312, 80),
    "H100 SXM": Card(989, 80),
}

#: Frontal X-rays for training, admissions for distillation, labelled X-rays: of the real data sets.
REAL_ROWS = {"chexpert": 191_027, "symile-mimic": 10_000, "nih-14": 112_120}


def count_costs(profile: Profile, rows: Mapping[str, int]) -> pd.DataFrame:
    """Count the floating-point operations of every training, by running one row of each on paper.

    Matrix products and convolutions are counted, a multiplication and an addition as two
    operations; nothing is computed and no weights are held (torch's meta device).

    Args:
        profile: Whose shapes, epochs and batches.
        rows: Rows of a data set, see `REAL_ROWS`.

    Returns:
        One row a part: stage, what, rows, epochs, steps, GFLOP a row, total EFLOP (10^18).
    """
    mae, distill = profile.mae, profile.distill
    pairs = rows["symile-mimic"]
    with torch.device("meta"):
        parts = [
            ("1", "X-rays: masked autoencoder", rows["chexpert"], mae, _mae_row(profile)),
            ("1", "Blood tests: lab autoencoder", pairs, profile.labs, _labs_row()),
            ("2", "ECG teacher: embeddings, once", pairs, None, _teacher_row()),
            ("2", "Distillation: X-ray tower and heads", pairs, distill, _distill_row(profile)),
            ("3", "Features of NIH-14, once", rows["nih-14"], None, _encode_row(profile)),
        ]  # fmt: skip
        table = [
            {
                "stage": stage,
                "what": what,
                "rows": count,
                "epochs": settings.epochs if settings else 1,
                "steps": settings.epochs * (count // settings.batch_size) if settings else 0,
                "GFLOP a row": _count(row) / 1e9,
            }
            for stage, what, count, settings, row in parts
        ]
    frame = pd.DataFrame(table)
    return frame.assign(EFLOP=frame["rows"] * frame["epochs"] * frame["GFLOP a row"] / 1e9)


def project_hours(eflop: float, peak_tflops: float, share: float) -> float:
    """Hours that so many operations (10^18) take at a share of a card's peak (TFLOP/s)."""
    return eflop * 1e6 / (peak_tflops * share) / 3600


def _count(row: Callable[[], Tensor]) -> int:
    """Operations of a forward pass and, where something is trained, its backward pass."""
    with FlopCounterMode(display=False) as counter:
        result = row()
        if result.requires_grad:
            result.backward()
    return counter.get_total_flops()


def _mae_row(profile: Profile) -> Callable[[], Tensor]:
    shape = profile.mae
    model = MaskedAutoencoder(
        _encoder(profile), shape.decoder_width, shape.decoder_depth, shape.decoder_heads
    )
    return lambda: model(_image(profile), shape.mask_ratio).loss


def _labs_row() -> Callable[[], Tensor]:
    with torch.device("cpu"):  # it looks at its input, which a meta tensor lacks
        model, labs = LabAutoencoder(), torch.ones(1, 50)
    return lambda: masked_mse(model(labs, labs)[0], labs, labs)


def _teacher_row() -> Callable[[], Tensor]:
    teacher = Net1D(**ECG_FOUNDER).eval().requires_grad_(False)
    return lambda: teacher.features(torch.ones(1, 12, 5000))


def _distill_row(profile: Profile) -> Callable[[], Tensor]:
    settings, width = profile.distill, profile.vit.width
    student = add_lora(_encoder(profile), rank=settings.lora_rank, norms=settings.norms)
    widths = {"ecg": 1024, "labs": 256}
    heads, loss = DistillationHeads(width, widths, settings.shared_dim), DistillationLoss()
    teachers = {name: torch.ones(1, size) for name, size in widths.items()}

    def row() -> Tensor:
        cls, _ = encode(student, _image(profile))
        return loss(heads(cls, teachers), teachers)["total"]

    return row


def _encode_row(profile: Profile) -> Callable[[], Tensor]:
    encoder = _encoder(profile).eval().requires_grad_(False)
    return lambda: encode(encoder, _image(profile))[0]


def _encoder(profile: Profile):
    return build_encoder(**profile.vit.model_dump())


def _image(profile: Profile) -> Tensor:
    return torch.ones(1, 3, profile.vit.image_size, profile.vit.image_size)
