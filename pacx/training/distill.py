"""Stage 2: what the frozen teachers know is distilled into the CXR encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from pacx.data.augment import DISTILLATION, PRETRAINING, augment
from pacx.data.datasets import load_pairs, require_data, teachers_of
from pacx.data.datasets.symile_mimic import Pairs
from pacx.data.images import normalise
from pacx.errors import PacxError
from pacx.files import cached_array
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, encode, load_encoder, merge_lora, save_encoder
from pacx.models.lab_autoencoder import LabAutoencoder
from pacx.models.mae import MaskedAutoencoder
from pacx.processes import infer
from pacx.profile import DistillSettings
from pacx.run import Run
from pacx.training.ecg import load_ecg, new_teacher
from pacx.training.fit import Stage, fit
from pacx.training.labs import load_labs
from pacx.training.mae import load_mae, pretraining_images
from pacx.training.targets import TARGETS, states_in, teacher_name, truth_of


@dataclass(frozen=True)
class Variant:
    """One way to distil. The defaults are the method; every other value is a question.

    Attributes:
        modalities: Which teachers take part, where the run's data allow it.
        changes: Settings that differ from the profile's `distill`.
        learning_rate_factor: Times the profile's learning rate.
        shuffled: Control: every X-ray gets the ECG and labs of another patient.
        teacher_training: Share of the teachers' training; 0 is a control, random weights.
        targets: Key of `pacx.training.targets.TARGETS`; None: the teachers' embeddings.
        start: Artefact of the MAE that is distilled into.
        mae_weight: Weight of the MAE's own loss, kept beside the others.
        replay: Take that loss on the X-rays of stage 1 instead of the paired ones.
    """

    modalities: tuple[str, ...] = ("ecg", "labs")
    changes: Mapping[str, object] = field(default_factory=dict)
    learning_rate_factor: float = 1.0
    shuffled: bool = False
    teacher_training: float = 1.0
    targets: str | None = None
    start: str = "mae"
    mae_weight: float = 0.0
    replay: bool = False


_RAW = {"standardise_targets": False}

#: Artefact name -> variant: the method, the paper's component analysis, our controls, and settings
#: that may forget less. A smaller rank keeps the adapters' scale alpha / rank. The last ones ask
#: what of the teachers it is that helps.
VARIANTS = {
    "pacx": Variant(),
    "pacx-ecg": Variant(modalities=("ecg",)),
    "pacx-labs": Variant(modalities=("labs",)),
    "pacx-contrastive": Variant(changes={"regression_weight": 0.0}),
    "pacx-regression": Variant(changes={"contrastive_weight": 0.0}),
    "pacx-raw": Variant(changes=_RAW),
    "pacx-other-ratio": Variant(start="mae-other-ratio"),
    "pacx-shuffled": Variant(shuffled=True),
    "pacx-untrained": Variant(teacher_training=0.0),
    "pacx-untrained-raw": Variant(teacher_training=0.0, changes=_RAW),
    "pacx-finalnorm": Variant(changes={"norms": "final"}),
    "pacx-rank2": Variant(changes={"lora_rank": 2, "lora_alpha": 4}),
    "pacx-lowrate": Variant(learning_rate_factor=0.25),
    "pacx-maeterm": Variant(mae_weight=1.0),
    "pacx-replay": Variant(mae_weight=1.0, replay=True),
    "pacx-teachers-17": Variant(teacher_training=0.17),
    "pacx-teachers-50": Variant(teacher_training=0.5),
    "pacx-states": Variant(targets="states"),
    "pacx-state-part": Variant(targets="state part"),
    "pacx-untrained-state-part": Variant(teacher_training=0.0, targets="state part"),
    "pacx-state-removed": Variant(targets="state removed"),
    "pacx-whitened": Variant(targets="whitened"),
    "pacx-raw-labs": Variant(targets="raw labs"),
    "pacx-missingness": Variant(targets="missingness"),
    "pacx-projected-ecg": Variant(targets="projected ECG"),
}


class MaeTerm(nn.Module):
    """The MAE's loss on the student, reconstructed by the MAE's own decoder, which stays frozen.

    Args:
        mae: Its encoder is the student's.
        mask_ratio: Share of patches removed.
        replay: (N, H, W) uint8 X-rays to draw from; None takes the batch's own.
    """

    def __init__(self, mae: MaskedAutoencoder, mask_ratio: float, replay: np.ndarray | None):
        super().__init__()
        self.mae, self.mask_ratio, self.replay = mae, mask_ratio, replay

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, a scalar, for a batch of paired X-rays (B, H, W)."""
        if self.replay is not None:
            rows = torch.randint(len(self.replay), (len(images),), generator=generator)
            images = torch.from_numpy(np.array(self.replay[rows.numpy()])).to(images.device)
        images, _ = augment(images, PRETRAINING, generator)
        return self.mae(normalise(images), self.mask_ratio).loss


class Distillation(Stage):
    """Paper, section 'Cross-modal distillation': LoRA on the CXR encoder, the rest frozen.

    The heads are thrown away afterwards. `mae_term` is our addition to the loss, None in the paper.
    """

    def __init__(self, student: nn.Module, heads: DistillationHeads, loss: DistillationLoss,
                 settings: DistillSettings, seed: int, mae_term: MaeTerm | None = None,
                 mae_weight: float = 0.0):  # fmt: skip
        super().__init__(settings, seed)
        self.student, self.heads, self.loss = student, heads, loss
        self.mae_term, self.mae_weight = mae_term, mae_weight

    def forward(self, images, *embeddings, generator):
        """Loss of X-rays (B, H, W) and each modality's embeddings (B, D_teacher)."""
        augmented, _ = augment(images, DISTILLATION, generator)
        cls, _ = encode(self.student, normalise(augmented))
        teachers = dict(zip(self.heads.teacher_widths, embeddings, strict=True))
        # Logits reach 100, which half precision would round by up to a quarter.
        with torch.autocast(cls.device.type, enabled=False):
            terms = self.loss(self.heads(cls.float(), teachers), teachers)
        if self.mae_term is not None:
            terms["mae"] = self.mae_term(images, generator)
            terms["total"] = terms["total"] + self.mae_weight * terms["mae"]
        return terms["total"], terms


def distill(run: Run, name: str = "pacx") -> Path:
    """Distil one variant, or load it when this run has it already.

    The run holds `mae` (or the variant's start) and its teachers.

    Returns:
        Folder with `model.safetensors` and `config.json` (a plain CXR encoder, adapters merged)
        and `history.csv`.

    Raises:
        NoDataError: The pairs have nothing for its teachers.
        PacxError: An artefact of stage 1 is missing, or only phantoms have the variant's targets.
    """
    variant, seed = VARIANTS[name], run.profile.seed
    settings, modalities = settings_of(run, variant), modalities_of(run, variant)
    if variant.targets is not None and "state" in variant.targets and not run.is_phantom:
        raise PacxError(f"{name} is distilled towards true states, which only phantoms have.")
    if not modalities:
        require_data(run, variant.modalities[0])
    parts = [variant.start, *(teacher_name(t, variant.teacher_training) for t in teachers_of(run))]
    stage_one = [(run.artefact(part) / "made.json").read_text() for part in parts]

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        pairs = load_pairs(run, "train")
        targets = targets_of(run, variant, pairs)
        student = add_lora(
            load_encoder(run.artefact(variant.start)),
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            norms=settings.norms,
        )
        widths = {m: t.shape[1] for m, t in targets.items()}
        heads = DistillationHeads(run.profile.vit.width, widths, settings.shared_dim)
        loss = DistillationLoss(
            contrastive_weight=settings.contrastive_weight,
            regression_weight=settings.regression_weight,
            temperature=settings.temperature,
            label_smoothing=settings.label_smoothing,
            modalities=tuple(targets),
        )
        term = _mae_term(run, variant, student) if variant.mae_weight else None
        stage = Distillation(student, heads, loss, settings, seed, term, variant.mae_weight)
        fit(
            stage,
            [pairs.cxr, *targets.values()],
            name,
            folder=folder,
            clip=settings.gradient_clip,
            precision=run.profile.precision,
        )
        save_encoder(merge_lora(student), folder)

    depends = settings, variant, modalities, run.profile.precision, seed, *stage_one
    return run.build(name, make, *depends)


def targets_of(run: Run, variant: Variant, pairs: Pairs) -> dict[str, np.ndarray]:
    """What the X-rays of the training pairs learn from in a variant.

    Returns:
        Teacher -> (N, D_teacher), in the order of `modalities_of`; of some targets other names.
    """
    embeddings = teacher_embeddings(run, pairs, training=variant.teacher_training)
    targets = {modality: embeddings[modality] for modality in modalities_of(run, variant)}
    if variant.targets is not None:
        states = None
        if run.is_phantom:
            states = states_in(truth_of(run, "train", pairs)).to_numpy(np.float32)
        targets = TARGETS[variant.targets](targets, pairs, states)
    if settings_of(run, variant).standardise_targets:
        targets = {modality: standardise(target) for modality, target in targets.items()}
    if variant.shuffled:
        # One cycle through all pairs: no X-ray keeps its own.
        order = np.random.default_rng(run.profile.seed).permutation(len(pairs.table))
        giver = np.empty_like(order)
        giver[order] = np.roll(order, 1)
        targets = {modality: target[giver] for modality, target in targets.items()}
    return targets


def standardise(embeddings: np.ndarray) -> np.ndarray:
    """Centre and scale each dimension: raw embeddings point nearly the same way for all."""
    mean, std = embeddings.mean(0), embeddings.std(0)
    return ((embeddings - mean) / np.maximum(std, 1e-6)).astype(np.float32)


def modalities_of(run: Run, variant: Variant) -> tuple[str, ...]:
    """Teachers that take part in a variant with this run's data."""
    return tuple(m for m in variant.modalities if m in teachers_of(run))


def settings_of(run: Run, variant: Variant) -> DistillSettings:
    """The profile's settings of stage 2 with the variant's changes, checked like the profile."""
    settings = run.profile.distill
    rate = settings.learning_rate * variant.learning_rate_factor
    changes = {"learning_rate": rate, **variant.changes}
    return DistillSettings.model_validate(settings.model_dump() | changes)


def teacher_embeddings(run: Run, pairs: Pairs, *, training: float = 1.0) -> dict[str, np.ndarray]:
    """Teacher -> (N, D_teacher) of every pair, from the run's frozen teachers, on their own terms.

    `training` is the share of their training; 0 takes teachers with random weights (a control).
    """
    torch.manual_seed(run.profile.seed + 1)
    models: dict[str, nn.Module] = {}
    for teacher in teachers_of(run):
        if teacher == "ecg":
            models["ecg"] = load_ecg(run, training) if training else new_teacher(run).eval()
        else:
            untrained = LabAutoencoder(pairs.percentiles.shape[1]).eval()
            models["labs"] = load_labs(run, training) if training else untrained
    weights = [p.numpy() for model in models.values() for p in model.state_dict().values()]

    def embed(model, call, *arrays: np.ndarray) -> np.ndarray:
        def fill(out: np.ndarray) -> None:
            infer(model, call, *arrays, out=out)

        width = infer(model, call, *(array[:1] for array in arrays)).shape[1]
        key = type(model).__name__, *weights, *arrays
        return cached_array(run.cache, key, (len(pairs.table), width), np.float32, fill)

    read = {
        "ecg": lambda model: embed(model, model.features, pairs.ecg),
        "labs": lambda model: embed(model, model.embed, pairs.percentiles, pairs.observed),
    }
    return {teacher: read[teacher](model) for teacher, model in models.items()}


def _mae_term(run: Run, variant: Variant, student: PeftModel) -> MaeTerm:
    mae = load_mae(run, variant.start).train().requires_grad_(False)
    mae.encoder = student.get_base_model()
    replay = pretraining_images(run, "train") if variant.replay else None
    return MaeTerm(mae, run.profile.mae.mask_ratio, replay)
