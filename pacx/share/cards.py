"""An exported encoder with all that goes with it: probes, training range, model and data card.

The cards' words are in `model_card.md` and `data_card.md`; every number in them is computed here or
read from the run's results.
"""

import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from pacx.data.datasets import teachers_of
from pacx.evaluation.features import extract_features
from pacx.evaluation.paper import pipe_table
from pacx.evaluation.subgroups import SMALLEST_GROUP, subgroups
from pacx.evaluation.transfer import open_benchmark
from pacx.figures.tables import POOLING_NAMES
from pacx.files import new_folder
from pacx.models.encoder import encoder_config
from pacx.models.imports import import_encoder
from pacx.run import Run
from pacx.share.calibration import CalibratedProbe, train_calibrated_probe
from pacx.share.export import ONNX, OPSET, export_encoder, export_onnx
from pacx.share.predict import PROBES
from pacx.share.training_range import FALSE_ALARMS, TrainingRange, fit_range
from pacx.training.encoders import encoder_of
from pacx.training.mae import pretraining_images

_TEACHERS = {"ecg": "ECGs", "labs": "blood tests"}


def export_run(
    run: Run,
    folder: str | Path,
    *,
    model: str = "pacx",
    probes: Sequence[str] | None = None,
    onnx: bool = True,
    range_images: int = 2000,
) -> Path:
    """Write a run's encoder as a folder for timm, the Hugging Face hub, ONNX Runtime and `predict`.

    Args:
        run: A run that has trained the model.
        folder: New: `config.json`, `model.safetensors`, `onnx/`, `range.safetensors`, `probes/`,
            `README.md` (the model card), `DATA_CARD.md` (phantoms), `LICENSE`.
        model: Name of the artefact.
        probes: Benchmarks whose probes go along; all of the profile's that have labels for images
            when None (phantoms: and `phantom-truth`).
        onnx: Also write ONNX graphs; see `pacx.share.export.export_onnx`.
        range_images: See `training_range`.

    Returns:
        The folder.

    Raises:
        PacxError: The folder exists, the artefact or a data set is missing, or a package is.

    Example:
        >>> export_run(run, "encoder", probes=["tb"])
    """
    encoder = encoder_of(run, model)
    names = run.profile.benchmarks if probes is None else probes
    if probes is None and run.is_phantom:
        names = [*names, "phantom-truth"]
    datasets = [open_benchmark(run, name) for name in names]
    datasets = [dataset for dataset in datasets if dataset.task != "segmentation"]

    with new_folder(Path(folder)) as partial:
        export_encoder(encoder, partial)
        if onnx:
            export_onnx(encoder, partial)
        training_range(run, model, range_images).save(partial)
        trained = [train_calibrated_probe(run, dataset, model) for dataset in datasets]
        for probe in trained:
            probe.save(partial / PROBES / f"{probe.dataset}.safetensors")
        groups = [subgroups(run, dataset, model) for dataset in datasets]
        model_card(run, model, trained, groups, onnx).save(partial / "README.md")
        if run.is_phantom:
            data_card(run).save(partial / "DATA_CARD.md")
            _write_licence(partial)
    return Path(folder)


def export_import(
    source: str, folder: str | Path, *, onnx: bool = True
) -> tuple[Path, pd.DataFrame]:
    """The same for weights that others have trained: no probes, no range, and a card that says so.

    Returns:
        The folder, and what became of every tensor.

    Raises:
        PacxError: The folder exists, or the weights are not those of a whole encoder.
    """
    encoder, table = import_encoder(source)
    counts = table["what"].value_counts().rename_axis("what").reset_index(name="tensors")
    card = _card(
        "other", model=Path(source).name, imported=pipe_table(counts), onnx=onnx,
        shape=encoder_config(encoder),
    )  # fmt: skip
    with new_folder(Path(folder)) as partial:
        export_encoder(encoder, partial)
        if onnx:
            export_onnx(encoder, partial)
        table.to_csv(partial / "imported.csv", index=False)
        card.save(partial / "README.md")
    return Path(folder), table


def training_range(run: Run, model: str, most: int = 2000) -> TrainingRange:
    """Where an encoder's pretraining X-rays lie, learned from at most so many, evenly spread.

    See `pacx.share.training_range.fit_range`.
    """
    images = pretraining_images(run, "train")
    chosen = np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)
    return fit_range(np.hstack(extract_features(run, model, images[chosen])))


def model_card(
    run: Run,
    model: str,
    probes: Sequence[CalibratedProbe],
    groups: Sequence[pd.DataFrame],
    onnx: bool,
) -> ModelCard:
    """The model card, with the hub's front matter.

    Quoted are the run's tables `transfer` and `claims`, where they exist, and `subgroups` a probe.
    """
    return _card(
        "apache-2.0" if run.is_phantom else "other",
        model=model,
        made=json.loads((run.artefact(model) / "made.json").read_text(encoding="utf-8")),
        shape=encoder_config(encoder_of(run, model)),
        distilled=not model.startswith("mae"),
        phantom=run.is_phantom,
        pretraining=run.profile.pretraining,
        pairs=run.profile.pairs,
        teachers=" and ".join(_TEACHERS[teacher] for teacher in teachers_of(run)),
        onnx=onnx,
        results=_results(run, model),
        claims=_claims(run) if model == "pacx" else "",
        probes=pipe_table(pd.DataFrame(map(_probe_row, probes))) if probes else "",
        groups=_groups(groups),
        smallest_group=SMALLEST_GROUP,
        false_alarms=f"{FALSE_ALARMS:.0%}",
    )


def data_card(run: Run) -> DatasetCard:
    """The data card of a run's phantom hospital."""
    patients = pd.DataFrame.from_dict(run.profile.phantom.patients, orient="index")
    patients = patients.reindex(columns=["train", "val", "test", "shifted"]).fillna(0).astype(int)
    return DatasetCard.from_template(
        DatasetCardData(license="apache-2.0"),
        template_path=str(Path(__file__).with_name("data_card.md")),
        phantom=run.profile.phantom,
        patients=pipe_table(patients.rename_axis("data set").reset_index()),
        profile=run.profile.name,
        version=metadata.version("pacx"),
    )


def _card(licence: str, **facts: object) -> ModelCard:
    about = ModelCardData(
        license=licence,
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["timm", "chest-x-ray", "masked-autoencoder", "pacx"],
    )
    template = Path(__file__).with_name("model_card.md")
    onnx = ONNX["fp32"] if facts.pop("onnx") else ""
    return ModelCard.from_template(
        about, template_path=str(template), opset=OPSET, onnx=onnx, **facts
    )


def _results(run: Run, model: str) -> str:
    """What chapter 06 measured of a model; empty where it did not."""
    transfer = run.find_results("transfer")
    if transfer is None or (table := transfer.query("model == @model")).empty:
        return ""
    words = {"probe": {"paper": "the paper's"}, "pooling": POOLING_NAMES}
    columns = table.columns.intersection(["dataset", "task", "metric", "probe", "pooling"])
    shown = table[columns].fillna("").replace({c: words[c] for c in words if c in columns})
    return pipe_table(shown.assign(**{"score [95 %]": _intervals(table)}))


def _claims(run: Run) -> str:
    """The primary claims of chapter 09; empty where it has not run."""
    claims = run.find_results("claims")
    if claims is None:
        return ""
    claims = claims.query("primary").rename(columns={"estimate": "value"})
    judged = claims[["claim"]].assign(
        **{"difference [95 %]": _intervals(claims)},
        holds=claims["holds"].map({True: "yes", False: "no"}),
    )
    return pipe_table(judged)


def _probe_row(probe: CalibratedProbe) -> dict:
    scores = {name: _interval(*estimate) for name, estimate in probe.measured.items()}
    return {
        "probe": probe.dataset, "classes": len(probe.classes),
        "temperature": f"{probe.temperature:.2f}", **scores,
    }  # fmt: skip


def _groups(groups: Sequence[pd.DataFrame]) -> str:
    """Scores by group; empty where all groups are too small to be told."""
    table = pd.concat(groups) if groups else pd.DataFrame()
    if table.empty:
        return ""
    return pipe_table(table[["dataset", "group", "patients"]].assign(AUROC=_intervals(table)))


def _intervals(table: pd.DataFrame) -> list[str]:
    return list(map(_interval, table["value"], table["low"], table["high"]))


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _write_licence(folder: Path) -> None:
    for file in metadata.files("pacx") or ():
        if file.name == "LICENSE":
            shutil.copy(file.locate(), folder / "LICENSE")
