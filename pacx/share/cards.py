"""An exported encoder with all that goes with it: probes, training range, model and data card.

Every number in the cards is computed here or read from the run's results.
"""

import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from pacx.data.datasets import load_dataset
from pacx.data.images import load_images
from pacx.evaluation.features import extract_features
from pacx.evaluation.paper import pipe_table
from pacx.evaluation.subgroups import SMALLEST_GROUP, subgroups
from pacx.evaluation.transfer import open_benchmark
from pacx.files import new_folder
from pacx.models.encoder import encoder_config
from pacx.models.imports import import_encoder
from pacx.run import Run
from pacx.share.calibration import CalibratedProbe, train_calibrated_probe
from pacx.share.export import ONNX, OPSET, export_encoder, export_onnx
from pacx.share.predict import FALSE_ALARMS, PROBES, TrainingRange, fit_range
from pacx.training.encoders import encoder_of

_NOT_FOR = """\
Research and teaching. **Not for clinical use:** it is no medical device, and nothing has been
validated for diagnosis, triage or monitoring. It takes one frontal chest X-ray of an adult, not
laterals, not other body parts, and replaces neither an ECG nor a blood test."""
_PROBE = (
    "Logistic regression on standardised features, strength chosen on validation labels, CLS token."
)
_CODES = {"probe": {"paper": "the paper's"}, "pooling": {"cls": "CLS token", "mean": "patches"}}


def export_run(
    run: Run,
    folder: str | Path,
    *,
    model: str = "pacx",
    probes: Sequence[str] | None = None,
    onnx: bool = True,
    int8: bool = False,
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
        int8: Also one with weights of 8 bit.
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
            export_onnx(encoder, partial, int8=int8)
        training_range(run, model, range_images).save(partial)
        trained = [train_calibrated_probe(run, dataset, model) for dataset in datasets]
        for probe in trained:
            probe.save(partial / PROBES / f"{probe.dataset}.safetensors")
        groups = [subgroups(run, dataset, model) for dataset in datasets]
        card = model_card(run, model, trained, pd.concat(groups) if groups else None, onnx)
        (partial / "README.md").write_text(card, encoding="utf-8")
        if run.is_phantom:
            (partial / "DATA_CARD.md").write_text(data_card(run), encoding="utf-8")
            _write_licence(partial)
    return Path(folder)


def export_import(
    source: str, folder: str | Path, *, onnx: bool = True, int8: bool = False
) -> tuple[Path, pd.DataFrame]:
    """The same for weights that others have trained: no probes, no range, and a card that says so.

    Args:
        source: See `pacx.models.imports.import_encoder`.
        folder: New.
        onnx: Also write ONNX graphs.
        int8: Also one with weights of 8 bit.

    Returns:
        The folder, and what became of every tensor.

    Raises:
        PacxError: The folder exists, or the weights are not those of a whole encoder.
    """
    encoder, table = import_encoder(source)
    counts = table["what"].value_counts().rename_axis("what").reset_index(name="tensors")
    card = [
        _front_matter("other"),
        f"# {Path(source).name}\n\nA vision transformer that others have trained, in the form that "
        "pacx uses. Its licence and its training data are those of its source.",
        f"## What was imported\n\n{pipe_table(counts)}\n\n`imported.csv` lists every tensor.",
        _usage(encoder_config(encoder), onnx),
        f"## Intended use\n\n{_NOT_FOR}",
    ]
    with new_folder(Path(folder)) as partial:
        export_encoder(encoder, partial)
        if onnx:
            export_onnx(encoder, partial, int8=int8)
        table.to_csv(partial / "imported.csv", index=False)
        (partial / "README.md").write_text("\n\n".join(card) + "\n", encoding="utf-8")
    return Path(folder), table


def training_range(run: Run, model: str, most: int = 2000) -> TrainingRange:
    """Where an encoder's pretraining X-rays lie; see `pacx.share.predict.fit_range`.

    Args:
        run: The run.
        model: See `pacx.evaluation.features.encoder_of`.
        most: Images to learn it from, evenly spread over the training split.
    """
    dataset = load_dataset("chexpert", run.data_root)
    names = dataset.split("train")["image"]
    chosen = np.linspace(0, len(names) - 1, min(len(names), most)).astype(int)
    images = load_images(
        dataset.root, list(names.iloc[chosen]), run.profile.vit.image_size, run.cache
    )
    return fit_range(np.hstack(extract_features(run, model, images)))


def model_card(
    run: Run,
    model: str,
    probes: Sequence[CalibratedProbe],
    groups: pd.DataFrame | None,
    onnx: bool,
) -> str:
    """The model card, with the hub's front matter.

    Args:
        run: The run; its tables `transfer` and `claims` are quoted where they exist.
        model: Name of the artefact.
        probes: Those that go along.
        groups: From `subgroups`; None without probes.
        onnx: Whether ONNX graphs go along.
    """
    facts = json.loads((run.artefact(model) / "made.json").read_text(encoding="utf-8"))
    shape = encoder_config(encoder_of(run, model))
    trained_on = (
        "the phantom hospital of this book: made-up patients, see `DATA_CARD.md`"
        if run.is_phantom
        else "the reader's copies of CheXpert (X-rays) and Symile-MIMIC (pairs)"
    )
    distilled = (
        ""
        if model.startswith("mae")
        else ", then distilled from teachers of ECGs and blood tests with adapters that are merged"
    )
    parts = [
        _front_matter("apache-2.0" if run.is_phantom else "other"),
        f"# Chest X-ray encoder `{model}`, profile {facts['profile']}",
        f"A vision transformer ({shape['depth']} blocks, width {shape['width']}, patches of "
        f"{shape['patch_size']} at {shape['image_size']} px), pretrained as a masked autoencoder"
        f"{distilled}. One X-ray in, one embedding out.\n\n"
        f"Trained on {trained_on}. Made {facts['made'][:10]} by pacx, commit {facts['commit']}, "
        f"seed {facts['seed']}, cohort {facts['cohort']}.",
        f"## Intended use\n\n{_NOT_FOR}",
        _usage(shape, onnx),
        f"## Results\n\nTest patients, 95 % intervals over patients.\n\n{_results(run, model)}",
    ]
    if probes:
        parts.append(
            f"## Probes and their calibration\n\n{_PROBE} One temperature a probe, from the same "
            "labels; ECE is the mean over labels, in bins of equally many images.\n\n"
            + pipe_table(pd.DataFrame([_probe_row(probe) for probe in probes]))
        )
    if groups is not None and len(groups):
        table = groups[["dataset", "group", "patients"]].assign(AUROC=_intervals(groups))
        parts.append(
            "## By group\n\nMacro AUROC of these probes. Groups that a data set does not tell, or "
            f"of fewer than {SMALLEST_GROUP} patients, are left out. Groups differ in how ill they "
            f"are: a difference is a question, not yet a bias.\n\n{pipe_table(table)}"
        )
    parts.append(f"## Limits\n\n{_limits(run)}")
    return "\n\n".join(parts) + "\n"


def data_card(run: Run) -> str:
    """The data card of a run's phantom hospital."""
    settings = run.profile.phantom
    patients = pd.DataFrame(
        [
            {
                "data set": name,
                **{split: splits.get(split, 0) for split in ("train", "val", "test", "shifted")},
            }
            for name, splits in settings.patients.items()
        ]
    )
    return f"""# The phantom hospital, cohort {settings.seed}

**Every patient is made up.** No recording of a person went into these data, and nothing measured on
them says anything about people.

## What it is

Hidden states (age, body mass, hypertension, dilation, fluid, anaemia and others) are drawn from a
small causal graph. X-rays ({settings.image_size} px), twelve-lead ECGs ({settings.ecg_hz} Hz) and
blood tests are drawn from the states, and written in the layouts of the real data sets, so that the
same loaders work on both. How strongly X-rays show the states: {settings.coupling:g} (0 = not at
all). In pairs, ECG and blood tests come after the X-ray, by {settings.lag_days:g} days on average,
and in between the acute states move on: of each, exp(-{settings.drift:g} x days) is kept.

Two shortcuts are built in: sicker patients are X-rayed lying down (AP view) more often, and carry
more devices. The split `shifted` of `phantom-truth` has another exposure, more devices and more AP
views.

## Patients in each data set

{pipe_table(patients)}

Some data sets are split further by their loaders, by patient.

## Made by

`pacx phantom --profile {run.profile.name} --out FOLDER`, pacx {metadata.version("pacx")}; the same
seed gives the same files. The equations are those of chapter 01. Licence: Apache-2.0.

## Intended use, and limits

Teaching, tests and controls with known truth. The anatomy is drawn from simple shapes that are then
deformed, texture and noise imitate the spectrum of real X-rays and nothing else of them, labels
come from the states and not from radiologists (except where a data set's own labelling is
imitated), and the links between heart, blood and X-ray are ours. Models trained on it have seen no
person.
"""


def _front_matter(licence: str) -> str:
    return (
        f"---\nlicense: {licence}\nlibrary_name: timm\npipeline_tag: image-feature-extraction\n"
        "tags: [timm, chest-x-ray, masked-autoencoder, pacx]\n---"
    )


def _usage(shape: dict, onnx: bool) -> str:
    size, width = shape["image_size"], shape["width"]
    patches = (size // shape["patch_size"]) ** 2
    with_onnx = (
        f'\nonnxruntime.InferenceSession("FOLDER/{ONNX["fp32"]}")  # opset {OPSET}, free batch size'
        if onnx
        else ""
    )
    return f"""## How to use it

Input: one frontal chest X-ray, grey, white = dense (MONOCHROME1 DICOM inverted), squashed to
{size} x {size} px, on three equal channels, with ImageNet's mean and standard deviation
(`config.json` says the same to programs). Output: CLS token ({width}) and {patches} patch tokens.

```python
timm.create_model("local-dir:FOLDER", pretrained=True)         # or hf-hub:NAME, once uploaded
transformers.AutoModel.from_pretrained("FOLDER"){with_onnx}
```

```sh
pacx predict xray.dcm folder/ --encoder FOLDER --out predictions
```"""


def _results(run: Run, model: str) -> str:
    if not (run.results / "transfer.parquet").is_file():
        return "Chapter 06 has not run, so there are none."
    table = run.load_results("transfer").query("model == @model")
    if table.empty:
        return f"Chapter 06 did not measure `{model}`."
    columns = [c for c in ("dataset", "task", "metric", "probe", "pooling") if c in table]
    told = table[columns].fillna("").replace({c: _CODES[c] for c in columns if c in _CODES})
    text = pipe_table(told.assign(**{"score [95 %]": _intervals(table)}))
    if model == "pacx" and (run.results / "claims.parquet").is_file():
        claims = run.load_results("claims")
        primary = claims[claims["primary"]] if "primary" in claims else claims  # of earlier runs
        judged = primary[["claim"]].assign(
            **{"difference [95 %]": _intervals(primary.rename(columns={"estimate": "value"}))},
            holds=primary["holds"].map({True: "yes", False: "no"}),
        )
        text += f"\n\nThe primary claims of chapter 09, in this run:\n\n{pipe_table(judged)}"
    return text


def _probe_row(probe: CalibratedProbe) -> dict:
    measured = {
        name: f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for name, (value, low, high) in probe.measured.items()
    }
    return {
        "probe": probe.dataset, "classes": len(probe.classes),
        "temperature": f"{probe.temperature:.2f}", **measured,
    }  # fmt: skip


def _intervals(table: pd.DataFrame) -> list[str]:
    columns = zip(table["value"], table["low"], table["high"], strict=True)
    return [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in columns]


def _limits(run: Run) -> str:
    seen = (
        "It has seen drawings only. What it says about a real X-ray means nothing, however small "
        "the distance to its training range."
        if run.is_phantom
        else "It has seen one or two hospitals. The data use agreements decide whether, and with "
        "whom, weights trained on these data may be shared: ask before uploading."
    )
    return f"""- {seen}
- Probes inherit the bias of their labels and hospitals; calibration holds for the prevalence that
  they were calibrated on, and must be checked anew elsewhere.
- `range.safetensors` warns about at most {FALSE_ALARMS:.0%} of images like the training's. It does
  not notice a mirrored image, since pretraining mirrors, and silence is no proof of a good image.
- Distillation may have cost what the teachers do not know, such as devices and positioning."""


def _write_licence(folder: Path) -> None:
    for file in metadata.files("pacx") or ():
        if file.name == "LICENSE":
            shutil.copy(file.locate(), folder / "LICENSE")
