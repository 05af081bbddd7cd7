"""Profiles: what to run, how big, and on which data.

A profile is a YAML file whose every key is checked; an unknown key is an error, so a
typing mistake cannot quietly run the default. With `extends: demo` it names only the top-level keys
in which it differs from another profile.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from pacx.errors import PacxError

_FOLDER = Path(__file__).with_name("profiles")
Share = Field(ge=0.0, le=1.0)
#: Of a training's forward and backward pass; weights stay 32 bit.
Precision = Literal["fp32", "bf16", "fp16"]
#: What every random number generator accepts.
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
# Strict, or `epochs: true` would be one epoch.
Count = Annotated[int, Field(gt=0, strict=True)]
#: Data sets with labels, which `pacx.data.datasets` reads.
Benchmark = Literal[
    "tb", "chexchonet", "chestx6", "vindr-cxr", "nih-14", "medmod", "covid-qu-ex", "qata-cov19",
    "cxl-seg", "actualmed", "phantom-truth",
]  # fmt: skip
#: Of a data set, which is also its folder's below `data_root`.
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]*$")]
#: What the phantom hospital writes.
PhantomData = Literal["chexpert", "symile-mimic", "ecg-archive", Benchmark]
#: What is paired with an X-ray.
Modality = Literal["ecg", "labs"]
#: What `pacx.training.distill` makes besides `pacx`.
VariantName = Literal[
    "pacx-ecg", "pacx-labs", "pacx-contrastive", "pacx-regression", "pacx-raw", "pacx-other-ratio",
    "pacx-shuffled", "pacx-untrained", "pacx-untrained-raw", "pacx-finalnorm", "pacx-rank2",
    "pacx-lowrate", "pacx-maeterm", "pacx-replay", "pacx-teachers-17", "pacx-teachers-50",
    "pacx-states", "pacx-state-part", "pacx-untrained-state-part", "pacx-state-removed",
    "pacx-whitened", "pacx-raw-labs", "pacx-missingness", "pacx-projected-ecg",
]  # fmt: skip


class Settings(BaseModel):
    """Base of all settings: unknown keys fail, values cannot change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhantomSettings(Settings):
    """The phantom hospital: whose patients, how many in each data set and split."""

    seed: Seed
    image_size: Count = Field(description="pixels a side of the stored X-rays")
    ecg_hz: Count = Field(description="sampling rate of the stored ECGs, Hz")
    coupling: float = Field(ge=0, description="how strongly X-rays show the states; 0 = not at all")
    lag_days: float = Field(0.0, ge=0, description="mean days from an X-ray to its ECG and labs")
    drift: float = Field(0.0, ge=0, description="how fast acute states change, per day")
    patients: dict[PhantomData, dict[Literal["train", "val", "test", "shifted"], Count]]


class VitSettings(Settings):
    """The CXR encoder's shape; the paper's is ViT-B/16 at 224 px."""

    image_size: Count
    patch_size: Count
    width: Count
    depth: Count
    heads: Count

    @model_validator(mode="after")
    def _divide(self):
        _check_divides(self, "patch_size", "image_size")
        _check_divides(self, "heads", "width")
        return self


class OptimiserSettings(Settings):
    """AdamW with linear warm-up and a cosine to zero, as in every stage of the paper."""

    epochs: Count
    batch_size: Count
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0)
    warmup_share: float = Field(ge=0, lt=1, description="share of all steps spent warming up")


class MaeSettings(OptimiserSettings):
    """Stage 1, X-rays."""

    decoder_width: Count
    decoder_depth: Count
    decoder_heads: Count
    mask_ratio: float = Field(gt=0, lt=1)
    other_mask_ratio: float = Field(gt=0, lt=1, description="trained beside it in chapter 02")
    norm_pix_loss: bool
    weights: Path | None = Field(
        None, description="an encoder to go on from, as `pacx export` reads it; None: from nothing"
    )
    accumulate: Count = Field(
        1, description="parts that a batch is cut into, to save memory; the steps stay the same"
    )

    @model_validator(mode="after")
    def _divide(self):
        _check_divides(self, "decoder_heads", "decoder_width")
        if self.decoder_width % 4:
            raise ValueError(f"decoder_width {self.decoder_width} is not a multiple of 4")
        return self


class LabSettings(OptimiserSettings):
    """Stage 1, blood tests."""

    drop: float = Share


class EcgSettings(OptimiserSettings):
    """The ECG teacher: a Net1D that learns diagnoses, or the published ECGFounder."""

    weights: Path | None = Field(description="12_lead_ECGFounder.pth; None trains a teacher")
    base_filters: Count
    filter_list: list[Count]
    blocks: list[Count]
    groups_width: Count


class DistillSettings(OptimiserSettings):
    """Stage 2."""

    lora_rank: Count
    lora_alpha: Count
    lora_dropout: float = Share
    norms: Literal["all", "final"] = Field(description="which LayerNorms are trained")
    standardise_targets: bool = Field(description="False: raw teacher embeddings, as in the paper")
    contrastive_weight: float = Field(ge=0)
    regression_weight: float = Field(ge=0)
    temperature: PositiveFloat
    label_smoothing: float = Share
    shared_dim: Count
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
    """Stage 3: the paper's linear probe. The book's own has nothing to set: it converges."""

    epochs: Count
    batch_size: Count
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0)
    flip: bool = Field(False, description="train on mirrored images, too, as the paper does")


class LabelEfficiencySettings(Settings):
    """Stage 3: the same probes with fewer labels."""

    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    draws: Count = Field(description="independent draws of every fraction below 1")


class EvidenceSettings(Settings):
    """What `pacx evidence` repeats: chapters on fresh cohorts."""

    cohorts: list[Seed] = Field(
        min_length=2, description="seeds of phantom hospitals and of the trainings on each of them"
    )
    chapters: list[str] = Field(description="their numbers, in order")


class Profile(Settings):
    """Everything that decides what a run computes."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="also of its folder in runs/"
    )
    description: str
    seed: Seed = Field(
        description="of weights, augmentation, masks and probes; patients have their own"
    )
    precision: Precision = Field("fp32", description="of the trainings of stages 1 and 2")
    data_root: Path | None = Field(description="folder of the real data; None: phantom hospital")
    phantom: PhantomSettings
    pretraining: DatasetName = Field("chexpert", description="X-rays of stage 1")
    pairs: DatasetName = Field("symile-mimic", description="pairs of stage 2")
    teachers: list[Modality] = Field(
        ["ecg", "labs"], min_length=1, description="of stage 2, where the pairs have what they read"
    )
    benchmarks: list[DatasetName] = Field(
        min_length=1, description="data sets of chapter 06, in this order"
    )
    variants: list[VariantName] = Field(
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
    paper_probe: ProbeSettings
    supervised: OptimiserSettings = Field(
        description="the encoder trained end to end on the phantoms' labels, as a ceiling"
    )
    segmentation: OptimiserSettings = Field(description="a small decoder on frozen patch tokens")
    label_efficiency: LabelEfficiencySettings
    bootstrap: Count = Field(description="resamples of every interval")
    evidence: EvidenceSettings | None = Field(None, description="None: one cohort, one seed")

    @field_validator("pretraining", "pairs", "benchmarks")
    @classmethod
    def _can_be_read(cls, names, info):
        images, paired = {*get_args(Benchmark), "chexpert"}, {"symile-mimic"}
        fit, other = (paired, images) if info.field_name == "pairs" else (images, paired)
        own = [name for name in ([names] if isinstance(names, str) else names) if name not in fit]
        if own and (own[0] in other or info.data.get("data_root") is None):
            raise ValueError(
                f"'{own[0]}' cannot be read here, choose one of {', '.join(sorted(fit))}, or a "
                "data set of your own and its data_root"
            )
        return names

    @field_validator("mae")
    @classmethod
    def _keep_a_patch(cls, mae, info):
        if vit := info.data.get("vit"):
            patches = (vit.image_size // vit.patch_size) ** 2
            for name in ("mask_ratio", "other_mask_ratio"):
                if int(patches * (1 - getattr(mae, name))) == 0:
                    raise ValueError(f"{name} {getattr(mae, name)} keeps none of {patches} patches")
        return mae

    @field_validator("variants")
    @classmethod
    def _name_each_once(cls, variants):
        if twice := [name for name in variants if variants.count(name) > 1]:
            raise ValueError(f"{twice[0]} is there twice")
        return variants

    @field_validator("evidence")
    @classmethod
    def _need_phantoms(cls, evidence, info):
        if evidence is not None and info.data.get("data_root") is not None:
            raise ValueError("real patients have no fresh cohorts, remove it or data_root")
        return evidence


def available_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_profile(
    name: str | Path, data_root: Path | None = None, precision: str | None = None
) -> Profile:
    """Read a profile by its name, or from a YAML file of the reader's own.

    Args:
        name: One of `available_profiles()`, or a path ending in `.yaml`. A path in a file's
            `extends` is relative to that file's folder.
        data_root: Replaces the profile's `data_root` when given.
        precision: Replaces the profile's `precision` when given.

    Raises:
        PacxError: The profile does not exist, is not YAML, extends itself, or holds a bad key or
            value.
    """
    source = _find(name)
    values, sources = read_yaml(source), [source]
    while "extends" in values:
        base = _find(values.pop("extends"), sources[-1].parent)
        if base in sources:
            raise PacxError(f"Profile {source} extends itself, see its `extends`.")
        sources.append(base)
        values = {k: v for k, v in read_yaml(base).items() if k != "evidence"} | values
    given = {"data_root": data_root, "precision": precision}
    values |= {key: value for key, value in given.items() if value is not None}
    return validated(Profile, values, f"Profile {source.name}")


def validated(model: type[BaseModel], values: dict, where: str) -> BaseModel:
    """Settings from what `read_yaml` gives; `PacxError` names every key that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = (
            ": ".join([".".join(map(str, e["loc"]))] * bool(e["loc"]) + [_in_words(e)])
            for e in error.errors()
        )
        raise PacxError(f"{where}: {'; '.join(problems)}") from error


def read_yaml(source: Path) -> dict:
    """Read a mapping of settings; `PacxError` where it is none, or a key stands there twice."""
    try:
        values = _Loader(source.read_text(encoding="utf-8-sig")).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date of 99.99.
        raise PacxError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise PacxError(f"{source} must be a mapping of settings, one `key: value` a line.")
    return values


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands there twice, of which YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice[0]} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _check_divides(settings: Settings, divisor: str, whole: str) -> None:
    small, large = getattr(settings, divisor), getattr(settings, whole)
    if large % small:
        raise ValueError(f"{divisor} {small} does not divide {whole} {large}")


def _find(name: str | Path, folder: Path = Path()) -> Path:
    """The profile of that name, or the YAML file, which may lie relative to `folder`."""
    is_file = str(name).endswith((".yaml", ".yml"))
    source = folder / name if is_file else _FOLDER / f"{name}.yaml"
    if not source.is_file():
        raise PacxError(
            f"There is no profile '{name}'. Choose one of {', '.join(available_profiles())}, "
            "or give the path of a .yaml file."
        )
    return source.resolve()


def _in_words(error: dict) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key, remove it or correct its spelling"
    if error["type"] == "value_error":  # of several keys, and says what it found
        return error["msg"].removeprefix("Value error, ")
    return f"{error['msg']} (found {error['input']!r})" if error["type"] != "missing" else "missing"
