"""The command line. Heavy imports wait inside the commands, so that `--help` answers at once."""

import logging
import math
import re
import signal
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pacx.errors import PacxError, printable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="PaCX-MAE, the executable book: run its chapters, build its pages, make its patients.",
)

data = typer.Typer(no_args_is_help=True, help="Look at data sets, real ones or phantoms.")
app.add_typer(data, name="data")

Profile = Annotated[
    str, typer.Option(help="Name of a profile (`pacx doctor` lists them), or a .yaml file.")
]
Runs = Annotated[
    Path,
    typer.Option(file_okay=False, help="Folder of the runs; a profile's run is a folder in it."),
]
Project = Annotated[
    Path, typer.Option(exists=True, file_okay=False, help="Checkout of the book's repository.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Folder of the real data sets; replaces the profile's own `data_root`.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(help="Of the trainings: fp32, bf16 or fp16; replaces the profile's own."),
]


def main() -> None:
    """Run a command. Bad input, or no access: a line on stderr and exit code 1, no traceback.

    Ctrl-C: the same with exit code 130.
    """
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # typer's, of Ctrl-C
            _leave("interrupted", 130)
        raise
    except PacxError as error:
        _leave(str(error))
    except OSError as error:  # a full disk, a folder that may not be read or written
        _leave(f"{error}. Check the path, its permissions and the free space.")


def _interrupt(*_: object) -> NoReturn:
    """End what this process has started, such as kernels, then this process."""
    import psutil

    logging.disable()  # of who lose their kernels
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    raise KeyboardInterrupt


def _leave(message: str, code: int = 1) -> NoReturn:
    lines = map(printable, message.split("\n"))
    print("pacx: " + "\n".join(lines), file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("pacx"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    profile: Profile = "demo",
    only: Annotated[
        str | None, typer.Option(help="One chapter, by number or name: 05 or 05_distillation.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Execute chapters that have not changed, too.")
    ] = False,
    data_root: DataRoot = None,
    precision: Precision = None,
    runs: Runs = Path("runs"),
    project: Project = Path(),
) -> None:
    """Execute the chapters. What is up to date is skipped; a stopped run goes on from there."""
    from pacx.book.execution import execute, sources_of

    sources_of(project, only)  # before anything is written
    execute(_open(profile, runs, data_root, precision), only=only, force=force, project=project)


@app.command()
def train(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="mae, mae-other-ratio, labs, ecg, pacx or a variant of it, mae-continued. "
            "Default: all that the chapters need.",
        ),
    ] = None,
    profile: Profile = "demo",
    precision: Precision = None,
    data_root: DataRoot = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train encoders without the chapters, which find them later. Also under torchrun and srun."""
    from pacx.book.chapter import open_chapter
    from pacx.data.datasets import lacking
    from pacx.processes import join_processes, rank, wait
    from pacx.training.pipeline import encoders_of, train_encoders

    join_processes()
    run = _open(profile, runs, data_root, precision)
    if rank() == 0:
        open_chapter(run.folder / "profile.yaml", runs)  # writes the phantom hospital
    wait()
    encoders = encoders_of(run)
    for stage, lack in lacking(run).items():
        if rank() == 0:
            print(f"{stage}: left out for want of {lack}")
    if unknown := sorted(set(names or ()) - set(encoders)):
        raise PacxError(f"Not in this profile: {', '.join(unknown)}. Choose {', '.join(encoders)}.")
    train_encoders(run, *(names or encoders))


@app.command()
def book(
    profile: Profile = "demo",
    data_root: DataRoot = None,
    runs: Runs = Path("runs"),
    project: Project = Path(),
) -> None:
    """Build the HTML from executed chapters, and print where it is."""
    from pacx.book.build import build
    from pacx.profile import load_profile
    from pacx.run import find_run

    run = find_run(load_profile(profile, data_root), runs)
    print(f"The book is at {build(run, project=project).resolve()}")


@app.command()
def evidence(
    profile: Profile = "evidence",
    runs: Runs = Path("runs"),
    out: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for the tables; replaced when all are done."),
    ] = Path("book/evidence"),
    project: Project = Path(),
    part: Annotated[
        str,
        typer.Option(metavar="I/N", help="Only the I-th of N parts, as a job array runs them."),
    ] = "1/1",
) -> None:
    """Repeat the chapters on fresh cohorts. Hours; stopped, it goes on."""
    from pacx.book.replications import gather_evidence

    of_part = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part)
    if of_part is None or int(of_part[1]) > int(of_part[2]):
        raise PacxError(f"--part {part} is no part. Write I/N, such as 2/9.")
    numbers = int(of_part[1]), int(of_part[2])
    folder = gather_evidence(_open(profile, runs), out, project, numbers)
    what = "evidence is" if numbers == (1, 1) else "repetitions are"
    print(f"The {what} at {folder.resolve()}")


@app.command()
def accept(profile: Profile = "demo", runs: Runs = Path("runs")) -> None:
    """Ask whether a profile's phantoms can tell a network from a linear model; else exit with 1."""
    from pacx.book.chapter import open_chapter
    from pacx.evaluation.ladder import acceptance
    from pacx.training.pipeline import train_side_by_side

    run = _open(profile, runs)
    if not run.is_phantom:
        raise PacxError(f"Profile {profile} has real data; only phantoms are accepted or not.")
    open_chapter(run.folder / "profile.yaml", runs)  # writes the phantom hospital
    train_side_by_side(run, "mae", "supervised")
    table = run.save_results("acceptance", acceptance(run))
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if not table["holds"].all():
        raise typer.Exit(1)


@app.command()
def phantom(
    out: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder to write into; data sets in it are kept."),
    ],
    profile: Profile = "demo",
) -> None:
    """Write the phantom hospital: every data set, in the layout of the real one."""
    from pacx.phantom.hospital import write_hospital
    from pacx.profile import load_profile

    write_hospital(out, **load_profile(profile).phantom.model_dump())
    print(f"The phantom hospital is at {out.resolve()}")


@data.command()
def check(
    dataset: Annotated[str, typer.Argument(help="Name of the data set, such as nih-14.")],
    root: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of all data sets, or the data set's own.")
    ],
    montage: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="PNG to write; default: DATASET-montage.png, here, or in runs/private/ where the "
            "data set is not open.",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Images to decode, evenly spread; all are looked for.")
    ] = 5000,
) -> None:
    """Say what is there and what would spoil a result. Exit code 1 when something would."""
    from pacx.files import owners_folder
    from pacx.pairing.check import check_dataset

    report = check_dataset(dataset, root, most)
    print(report)
    if report.tiles:
        is_open = report.terms == "open"
        home = Path() if montage or is_open else owners_folder(Path("runs", "private"))
        picture = montage or home / f"{dataset}-montage.png"
        report.save_montage(picture)
        print(f"\nThe montage is at {picture.resolve()}")
    if report.problems:
        raise typer.Exit(1)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, such as runs/demo. Or what others have trained: a file of public "
            "MAE weights, a Lightning checkpoint, or a timm model name.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="New folder.")],
    model: Annotated[str, typer.Option(help="Artefact of the run.")] = "pacx",
    probe: Annotated[
        list[str] | None,
        typer.Option(help="Benchmark whose probe goes along; repeatable. Default: all."),
    ] = None,
) -> None:
    """Make a folder that timm, the Hugging Face hub, ONNX Runtime and `pacx predict` take."""
    from pacx.share.cards import export_import, export_run
    from pacx.share.export import onnx_missing

    missing = onnx_missing()
    if (Path(source) / "profile.yaml").is_file():
        run = _run_in(Path(source).resolve())
        export_run(run, to, model=model, probes=probe or None, onnx=not missing)
    else:
        _, table = export_import(source, to, onnx=not missing)
        print(table.to_string(index=False))
    print(f"The encoder is at {to.resolve()}")
    if missing:
        print(f"Without ONNX graphs. To have them: pip install {' '.join(missing)}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or DICOM files, or folders.")],
    encoder: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder that `pacx export` made.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="New folder for tables and overlays; of the same command, it goes on."),
    ] = Path("predictions"),
    probe: Annotated[
        list[str] | None, typer.Option(help="Probe in the encoder's folder; repeatable.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Draw the attention.")] = False,
) -> None:
    """Embed X-rays, and say what the probes see in them. Not for patients. Stopped, it goes on."""
    from pacx.share.calibration import load_probe
    from pacx.share.predict import PROBES, predict

    table = predict(images, encoder, out, probes=probe or (), overlay=overlays)
    warned = table[table["warning"] != ""]
    for row in warned.head(20).itertuples():
        print(f"{row.image}: {row.warning}", file=sys.stderr)
    print(f"{len(table)} images, {len(warned)} with a warning. All is at {out.resolve()}")
    if "distance" not in table:
        print("This encoder brings no training range: whether these are X-rays was not checked.")
    for name in probe or ():
        measured = load_probe(encoder / PROBES / f"{name}.safetensors").measured
        value, low, high = measured.get("Brier, calibrated", [math.nan] * 3)
        print(f"{name}: Brier score {value:.3f} [{low:.3f}, {high:.3f}] on its own test patients.")


@app.command()
def probe(
    encoder: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder that `pacx export` made.")
    ],
    data: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of labelled X-rays.")
    ],
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="CSV file to write.")] = None,
) -> None:
    """Score an exported encoder on labelled X-rays: linear probes, 95 % intervals over patients."""
    from pacx.files import new_file
    from pacx.share.probe import probe

    table = probe(encoder, data)
    print("Not checked: whether the encoder was trained on any of these patients; see its card.\n")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if out is not None:
        with new_file(out) as partial:
            table.to_csv(partial, index=False)


@app.command()
def doctor(runs: Runs = Path("runs")) -> None:
    """Say what this machine has, and what is missing. Exit code 1 when something needed is."""
    from pacx.share.doctor import facts, unmet_requirements

    for name, value in facts(runs).items():
        print(f"{name + ':':<20}{value}")
    if problems := unmet_requirements():
        raise PacxError(f"Missing: {', '.join(problems)}. Run: make book")


@app.command()
def pair(
    mimic_iv: Annotated[Path, typer.Option(help="Folder of MIMIC-IV, with hosp/.")],
    mimic_cxr: Annotated[Path, typer.Option(help="Folder of MIMIC-CXR-JPG, with files/.")],
    mimic_ecg: Annotated[Path, typer.Option(help="Folder of MIMIC-IV-ECG, with files/.")],
    out: Annotated[Path, typer.Option(help="New folder; symile-mimic in your data root.")],
    memory: Annotated[str, typer.Option(help="Memory to use; beyond it, disk.")] = "4GB",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the splits and candidates.")
    ] = 42,
) -> None:
    """Make Symile-MIMIC, X-ray with ECG and labs, from the raw MIMIC tables."""
    from pacx.pairing.files import pair

    pair(mimic_iv, mimic_cxr, mimic_ecg, out, memory, seed)
    print(f"Symile-MIMIC is at {out.resolve()}")


def _run_in(folder: Path):
    """The run in a folder, which it must be named after: nothing else says where its parts lie."""
    from pacx.profile import load_profile
    from pacx.run import Run

    profile = load_profile(folder / "profile.yaml")
    if profile.name != folder.name:
        raise PacxError(
            f"{folder} holds the run of profile {profile.name}. Rename one to match the other: the "
            f"folder to {profile.name}, or `name` in its profile.yaml to {folder.name}."
        )
    return Run(profile, folder.parent)


def _open(profile: str, runs: Path, data_root: Path | None = None, precision: str | None = None):
    from pacx.profile import load_profile
    from pacx.run import open_run

    return open_run(load_profile(profile, data_root, precision), runs)
