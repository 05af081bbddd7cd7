"""Profiles: what to run, how big, and on which data.

A profile is a YAML file whose every key is checked; a key that nobody knows is an error, so a
typing mistake cannot quietly run the default. With `extends: demo` it names only the top-level keys
in which it differs from another profile.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from pacx.errors import PacxError

Share = Field(ge=0.0, le=1.0)
#: Of a training's forward and backward pass, in Lightning's words; weights stay 32 bit.
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
#: What every random number generator accepts.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Base of all settings: unknown keys fail, values cannot change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhantomSettings(Settings):
    """The phantom hospital: whose patients, how many in each data set and split."""

    seed: Seed
    image_size: PositiveInt = Field(description="pixels a side of the stored X-rays")
    ecg_hz: PositiveInt = Field(description="sampling rate of the stored ECGs, Hz")
    coupling: float = Field(ge=0, description="how strongly X-rays show the states; 0 = not at all")
    patients: dict[str, dict[str, PositiveInt]]


class VitSettings(Settings):
    """The CXR encoder's shape; the paper's is ViT-B/16 at 224 px."""

    image_size: PositiveInt
    patch_size: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class OptimiserSettings(Settings):
    """AdamW with linear warm-up and a cosine to zero, as in every stage of the paper."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0)
    warmup_share: float = Field(ge=0, lt=1, description="share of all steps spent warming up")


class MaeSettings(OptimiserSettings):
    """Stage 1, X-rays."""

    decoder_width: PositiveInt
    decoder_depth: PositiveInt
    decoder_heads: PositiveInt
    mask_ratio: float = Field(gt=0, lt=1)
    compared_mask_ratio: float = Field(gt=0, lt=1, description="trained beside it in chapter 02")
    norm_pix_loss: bool
    weights: Path | None = Field(
        None, description="an encoder to go on from, as `pacx export` reads it; None: from nothing"
    )
    accumulate: PositiveInt = Field(
        1, description="parts that a batch is cut into, to save memory; the steps stay the same"
    )


class LabSettings(OptimiserSettings):
    """Stage 1, blood tests."""

    drop: float = Share


class EcgSettings(OptimiserSettings):
    """The ECG teacher: a Net1D that learns diagnoses, or the published ECGFounder."""

    weights: Path | None = Field(description="12_lead_ECGFounder.pth; None trains a teacher")
    base_filters: PositiveInt
    filter_list: list[PositiveInt]
    blocks: list[PositiveInt]
    groups_width: PositiveInt


class DistillSettings(OptimiserSettings):
    """Stage 2."""

    lora_rank: PositiveInt
    lora_alpha: PositiveInt
    lora_dropout: float = Share
    norms: Literal["all", "final"] = Field(description="which LayerNorms are trained")
    standardise_targets: bool = Field(description="False: raw teacher embeddings, as in the paper")
    contrastive_weight: float = Field(ge=0)
    regression_weight: float = Field(ge=0)
    temperature: PositiveFloat
    label_smoothing: float = Share
    shared_dim: PositiveInt
    gradient_clip: PositiveFloat

    @model_validator(mode="before")
    @classmethod
    def _refuse_accumulation(cls, values):
        if isinstance(values, dict) and "accumulate" in values:
            raise ValueError(
                "accumulate is not possible here: InfoNCE's negatives are the other rows of the "
                "batch, and a part of it has fewer. Train with more processes instead"
            )
        return values


class ProbeSettings(Settings):
    """Stage 3: linear probes on frozen features."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0)
    flip: bool = Field(False, description="train on mirrored images, too, as the paper does")


class SegmentationSettings(OptimiserSettings):
    """Stage 3: a small decoder on frozen patch tokens."""


class LabelEfficiencySettings(Settings):
    """Stage 3: the same probes with fewer labels."""

    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    draws: PositiveInt = Field(description="independent draws of every fraction below 1")


class EvidenceSettings(Settings):
    """What `pacx evidence` repeats: chapters on fresh cohorts, and two dose-responses."""

    cohorts: list[Seed] = Field(
        min_length=1, description="seeds of the phantom hospitals, fresh patients each"
    )
    seeds: list[Seed] = Field(min_length=1, description="seeds of the trainings on each of them")
    variants_once: list[str] = Field(description="of `variants`; with the first seed only")
    chapters: list[str] = Field(description="their numbers, in order")
    couplings: list[NonNegativeFloat] = Field(description="beside the profile's own coupling")
    teacher_shares: list[PositiveFloat] = Field(
        description="of the teachers' epochs, beside 0 and 1"
    )


class Profile(Settings):
    """Everything that decides what a run computes."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="also of its folder in runs/"
    )
    description: str
    seed: Seed = Field(description="of weights, batches, masks and probes; patients have their own")
    precision: Precision = Field("32-true", description="of the trainings of stages 1 and 2")
    data_root: Path | None = Field(description="folder of the real data; None: phantom hospital")
    phantom: PhantomSettings
    benchmarks: list[str] = Field(
        min_length=1, description="data sets of chapter 06, in this order"
    )
    variants: list[str] = Field(
        description="distilled beside `pacx` in chapter 09; pacx.training.distill has them"
    )
    benchmark_split: Literal["patient", "paper"] = Field(
        description="paper: by image where the paper does so, which leaks patients"
    )
    leaks: Literal["refuse", "remove", "waive"] = Field(
        description="distilled patients in a benchmark: an error, left out, or only printed"
    )
    vit: VitSettings
    mae: MaeSettings
    labs: LabSettings
    ecg: EcgSettings
    distill: DistillSettings
    probe: ProbeSettings
    segmentation: SegmentationSettings
    label_efficiency: LabelEfficiencySettings
    bootstrap: PositiveInt = Field(description="resamples of every interval")
    evidence: EvidenceSettings | None = Field(None, description="None: one cohort, one seed")


def available_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("pacx") / "profiles"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_profile(
    name: str | Path, data_root: Path | None = None, precision: str | None = None
) -> Profile:
    """Read a profile by its name, or from a YAML file of the reader's own.

    Args:
        name: One of `available_profiles()`, or a path ending in `.yaml`.
        data_root: Replaces the profile's `data_root` when given.
        precision: Replaces the profile's `precision` when given.

    Raises:
        PacxError: The profile does not exist, is not YAML, extends itself, or holds a bad key or
            value.
    """
    source = _find(name)
    values, sources = _read(source), [source]
    while "extends" in values:
        base = _find(values.pop("extends"))
        if base in sources:
            raise PacxError(f"Profile {source} extends itself, see its `extends`.")
        sources.append(base)
        values = {k: v for k, v in _read(base).items() if k != "evidence"} | values
    given = {"data_root": data_root, "precision": precision}
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {_in_words(e)}" for e in error.errors()
        )
        raise PacxError(f"Profile {source.name}: {problems}") from error


def _find(name: str | Path) -> Path:
    if str(name).endswith((".yaml", ".yml")):
        source = Path(name)
    else:
        source = Path(str(resources.files("pacx"))) / "profiles" / f"{name}.yaml"
    if not source.is_file():
        raise PacxError(
            f"There is no profile '{name}'. Choose one of {', '.join(available_profiles())}, "
            "or give the path of a .yaml file."
        )
    return source


def _read(source: Path) -> dict:
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date of 99.99.
        raise PacxError(f"Profile {source} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise PacxError(f"Profile {source} must be a mapping of settings, see pacx/profiles/.")
    return values


def _in_words(error: dict) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key, remove it or correct its spelling"
    return f"{error['msg']} (found {error['input']!r})" if error["type"] != "missing" else "missing"
