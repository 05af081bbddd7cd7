"""Stage 2: what the frozen teachers know is distilled into the CXR encoder."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pacx.data.augment import DISTILLATION, augment
from pacx.data.cache import cached_array
from pacx.data.datasets.symile_mimic import Pairs, load_pairs
from pacx.data.images import normalise
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, encode, load_encoder, merge_lora, save_encoder
from pacx.models.lab_autoencoder import LabAutoencoder
from pacx.run import Run
from pacx.training.ecg import load_ecg, new_teacher
from pacx.training.fit import Stage, fit
from pacx.training.labs import load_labs


@dataclass(frozen=True)
class Variant:
    """One way to distil. The defaults are the method; every other value is a question.

    Attributes:
        modalities: Which teachers take part.
        contrastive: Whether the contrastive loss takes part.
        regression: Whether the regression loss takes part.
        norms: Which LayerNorms are trained, `all` or `final`; the profile's when None.
        shuffled: Control: every X-ray gets the ECG and labs of somebody else.
        trained_teachers: False is a control: teachers with random weights.
    """

    modalities: tuple[str, ...] = ("ecg", "labs")
    contrastive: bool = True
    regression: bool = True
    norms: str | None = None
    shuffled: bool = False
    trained_teachers: bool = True


#: Artefact name -> variant: the method, the paper's component analysis, and our controls.
VARIANTS = {
    "pacx": Variant(),
    "pacx-ecg": Variant(modalities=("ecg",)),
    "pacx-labs": Variant(modalities=("labs",)),
    "pacx-contrastive": Variant(regression=False),
    "pacx-regression": Variant(contrastive=False),
    "pacx-finalnorm": Variant(norms="final"),
    "pacx-shuffled": Variant(shuffled=True),
    "pacx-untrained": Variant(trained_teachers=False),
}


class TeacherEmbeddings(NamedTuple):
    """What the frozen teachers say of each admission: `ecg` (N, D_ecg), `labs` (N, D_labs)."""

    ecg: np.ndarray
    labs: np.ndarray


class Distillation(Stage):
    """Paper, section 'Cross-modal distillation': LoRA on the CXR encoder, the rest frozen."""

    def __init__(self, student: nn.Module, heads: DistillationHeads, loss: DistillationLoss,
                 settings, seed: int):  # fmt: skip
        super().__init__(settings, seed)
        self.student, self.heads, self.loss = student, heads, loss

    def training_step(self, batch, _):
        """One step on X-rays (B, H, W) and each modality's embeddings (B, D_teacher)."""
        images, _ = augment(batch[0], DISTILLATION, self.draws)
        cls, _ = encode(self.student, normalise(images))
        teachers = dict(zip(self.heads.modalities, batch[1:], strict=True))
        terms = self.loss(self.heads(cls, teachers), teachers)
        self.note(**terms)
        return terms["total"]


def distill(run: Run, name: str = "pacx") -> Path:
    """Distil one variant, or load it when this run has it already.

    Args:
        run: A run that holds the artefacts `mae`, `labs` and `ecg`.
        name: Key of `VARIANTS`.

    Returns:
        Folder with `model.safetensors` and `config.json` (a plain CXR encoder, adapters merged)
        and `history.csv`.

    Raises:
        PacxError: An artefact of stage 1 is missing.
    """
    variant, settings, seed = VARIANTS[name], run.profile.distill, run.profile.seed
    stage_one = [run.artefact(part) / "made.json" for part in ("mae", "labs", "ecg")]

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        pairs = load_pairs(run.data_root, "train", run.profile.vit.image_size, run.cache)
        embeddings = teacher_embeddings(run, pairs, trained=variant.trained_teachers)
        targets = [getattr(embeddings, modality) for modality in variant.modalities]
        if settings.standardise_targets:
            targets = [_standardise(target) for target in targets]
        if variant.shuffled:
            # One cycle through all patients: nobody keeps their own.
            order = np.random.default_rng(seed).permutation(len(pairs.table))
            giver = np.empty_like(order)
            giver[order] = np.roll(order, 1)
            targets = [target[giver] for target in targets]
        student = add_lora(
            load_encoder(run.artefact("mae")),
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            norms=variant.norms or settings.norms,
        )
        widths = {m: t.shape[1] for m, t in zip(variant.modalities, targets, strict=True)}
        heads = DistillationHeads(run.profile.vit.width, widths, settings.shared_dim)
        loss = DistillationLoss(
            contrastive_weight=settings.contrastive_weight * variant.contrastive,
            regression_weight=settings.regression_weight * variant.regression,
            temperature=settings.temperature,
            label_smoothing=settings.label_smoothing,
            modalities=variant.modalities,
        )
        stage = Distillation(student, heads, loss, settings, seed)
        history = fit(stage, [pairs.cxr, *targets], name, clip=settings.gradient_clip)
        save_encoder(merge_lora(student), folder)
        history.to_csv(folder / "history.csv", index=False)

    keys = [stamp.read_text() for stamp in stage_one]
    return run.build(name, make, settings, asdict(variant), seed, *keys)


def teacher_embeddings(run: Run, pairs: Pairs, *, trained: bool = True) -> TeacherEmbeddings:
    """Embed every pair once with the frozen teachers, on their own terms.

    Args:
        run: The run whose teachers are used.
        pairs: One split.
        trained: False takes teachers with random weights (a control).
    """
    torch.manual_seed(run.profile.seed + 1)
    ecg = load_ecg(run) if trained else new_teacher(run).eval()
    labs = load_labs(run) if trained else LabAutoencoder().eval()
    weights = [p for model in (ecg, labs) for p in model.state_dict().values()]
    digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights)).hexdigest()
    who = hashlib.sha256("".join(pairs.table["study"]).encode()).hexdigest()

    def embed(model, call, *arrays: np.ndarray) -> np.ndarray:
        def batch(start: int) -> np.ndarray:
            with torch.inference_mode():
                return call(
                    *[torch.from_numpy(np.array(a[start : start + 256])) for a in arrays]
                ).numpy()

        def fill(out: np.ndarray) -> None:
            for start in range(0, len(out), 256):
                out[start : start + 256] = batch(start)

        shape = (len(pairs.table), batch(0).shape[1])
        return cached_array(
            run.cache, f"{type(model).__name__} {digest} {who}", shape, np.float32, fill
        )

    return TeacherEmbeddings(
        embed(ecg, ecg.features, pairs.ecg),
        embed(labs, labs.embed, pairs.percentiles, pairs.observed),
    )


def _standardise(embeddings: np.ndarray) -> np.ndarray:
    """Centre and scale each dimension: raw embeddings point nearly the same way for everybody."""
    mean, std = embeddings.mean(0), embeddings.std(0)
    return ((embeddings - mean) / np.maximum(std, 1e-6)).astype(np.float32)
