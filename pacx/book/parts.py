"""What the prose of the book includes: tables of the run and of the evidence."""

import json
import re
from pathlib import Path

import pandas as pd
import yaml

from pacx.book.claims import parts_about_claims
from pacx.book.execution import key_of, signature_of, sources_of
from pacx.book.privacy import is_declared
from pacx.evaluation import paper
from pacx.figures.tables import beside_the_paper
from pacx.run import Run

#: Result tables that stand beside a published one: results/<name>.parquet.
_COMPARED = ("transfer", "label_efficiency", "alignment", "components")

_HIDDEN = "RMSE of hidden tests, percentile points"

#: Points of data and evaluation: result table, row of this book's choice, row of the other choice,
#: and the columns whose values are named.
_OTHER_CHOICES = {
    "labs that are missing: filled with the mean": (
        "lab_traps", "input == 'right'", "input == 'means not zeroed'", _HIDDEN,
    ),
    "`labs_missingness` read the other way round": (
        "lab_traps", "input == 'right'", "input == 'observed inverted'", _HIDDEN,
    ),
    "leads aVL and aVF swapped": (
        "ecg_teacher", "model == 'leads by name'", "model == 'aVL and aVF swapped'", "mean AUROC",
    ),
}  # fmt: skip


def write_parts(run: Run, project: Path, folder: Path) -> None:
    """Write the Markdown that the prose includes, and the tables to download, into a folder."""
    evidence, benchmarks = (project / "book" / part for part in ("evidence", "benchmarks"))
    settings = f"{paper.caption('settings')}\n\n{paper.pipe_table(paper.published('settings'))}"
    parts = {name: _compared(run, name) for name in _COMPARED}
    parts |= parts_about_claims(run, evidence, folder)
    parts |= {
        "settings": settings,
        "status": _status(run, project),
        "made_by": _made_by(run, project),
        "other_choices": _other_choices(run),
        "speed": _speed(benchmarks),
        "rehearsal": _rehearsal(benchmarks),
        "scale": _scale(benchmarks),
        "downloads": _downloads(run, project, folder),
    }
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")


def _compared(run: Run, name: str) -> str:
    """A published table, and below each of its rows this run's."""
    kind = "phantom patients" if run.is_phantom else "real data"
    about = f"*This run*: profile `{run.profile.name}`, {kind}; in brackets 95 % intervals."
    ours = run.find_results(name)
    if ours is None:
        return f"{paper.caption(name)} This run holds no table `{name}`."
    table = beside_the_paper(ours, name)
    if "fraction" in table:
        table["fraction"] = table["fraction"].map("{:.0%}".format)
    return f"{paper.caption(name)} {about}\n\n{paper.pipe_table(table)}"


def _status(run: Run, project: Path) -> str:
    rows = []
    for source in sources_of(project):
        about = signature_of(run.notebooks / f"{source.stem}.ipynb")
        current = about["key"] == key_of(source, run, project)
        rows.append(
            {
                "chapter": f"[](../notebooks/{source.stem})",
                "seconds": f"{about['seconds']:.0f}",
                "profile": about["profile"],
                "commit": about["commit"],
                "made, UTC": about["made"][:16].replace("T", " "),
                "state": "executed without error" if current else "made by earlier code",
            }
        )
    versions = {k: v for k, v in about.items() if k not in ("key", "seconds", "made", "commit")}
    table = pd.DataFrame({"what": versions.keys(), "value": versions.values()})
    return f"{paper.pipe_table(pd.DataFrame(rows))}\n\n{paper.pipe_table(table)}"


def _made_by(run: Run, project: Path) -> str:
    """The line at the foot of every page."""
    chapters = [signature_of(run.notebooks / f"{s.stem}.ipynb") for s in sources_of(project)]
    last = max(chapters, key=lambda chapter: chapter["made"])
    return f"profile {last['profile']}, {last['made'][:10]}, commit {last['commit']}"


def _other_choices(run: Run) -> str:
    """What this run's chapters measured of the other way to treat data."""
    rows = []
    for point, (name, ours, other, what) in _OTHER_CHOICES.items():
        if (table := run.find_results(name)) is not None:
            values = (table.query(choice)["value"].mean() for choice in (ours, other))
            rows.append((point, what, *(f"{value:#.3g}" for value in values)))
    if (leaks := run.find_results("split_leaks")) is not None:
        column = "test images of trained patients"
        leaks = leaks.set_index(["dataset", "split"])[column]
        worst = leaks[:, "paper"].idxmax()
        shares = (f"{leaks[worst, split]:.0%}" for split in ("patient", "paper"))
        rows.append((f"rows split, not patients ({worst})", column, *shares))
    columns = ["point", "what was measured", "this book", "other choice"]
    return paper.pipe_table(pd.DataFrame(rows, columns=columns))


def _speed(folder: Path) -> str:
    """The committed benchmarks: every ratio beside its target, then machines and commands."""
    reports = [json.loads(f.read_text(encoding="utf-8")) for f in sorted(folder.glob("*.json"))]
    reports = [report for report in reports if "ratios" in report]  # not all are about speed
    if not reports:
        return "Not measured yet: run `make bench`."
    ratios = pd.DataFrame([ratio for report in reports for ratio in report["ratios"]])
    most = ratios.get("at_most", pd.Series(False, ratios.index)).eq(True)
    good = (ratios["value"] >= ratios["target"]) ^ (most & (ratios["value"] != ratios["target"]))
    sign = most.map({True: "at most ", False: "at least "})
    has_target = ratios["target"].notna()
    table = pd.DataFrame(
        {
            "what": ratios["what"],
            "measured": ratios["value"].map("{:.3g}".format),
            "target": (sign + ratios["target"].map("{:g}".format)).where(has_target, ""),
            "reached": good.map({True: "yes", False: "no"}).where(has_target, ""),
        }
    )
    machines = pd.DataFrame([{"command": f"`{r['command']}`"} | r["machine"] for r in reports])
    machines = machines.rename(columns={"gpu": "GPU"})
    return (
        f"{paper.pipe_table(table)}\n\n## Machines and commands\n\n"
        f"{paper.pipe_table(machines.astype(str))}"
    )


def _scale(folder: Path) -> str:
    """The committed sizes, and the largest one ten times."""
    file = folder / "scale.json"
    if not file.is_file():
        return "Not measured yet: run `make bench`."
    report = json.loads(file.read_text(encoding="utf-8"))
    sizes, parts = report["sizes"], ("table", "decode", "open again", "epoch")
    peaks = pd.DataFrame([{p: size[p]["anonymous_mib"] for p in parts} for size in sizes])
    peaks.insert(0, "libraries alone", [size["start"]["anonymous_mib"] for size in sizes])
    peaks["pages of files"] = [max(size[p]["files_mib"] for p in parts) for size in sizes]
    peaks = peaks.round().astype(int).add_suffix(", MiB")
    peaks.insert(0, "images", [f"{size['images']:,}" for size in sizes])
    few, many = sizes[-2:]
    kept = [max(size[p]["anonymous_mib"] for p in parts) for size in (few, many)]
    images = many["images"]
    added = (kept[1] - kept[0]) / (images - few["images"]) * 9 * images  # MiB
    decode, again = many["decode"]["cpu_seconds"] / 3600, many["open again"]["seconds"] / 60
    cache = many["cache_bytes"] / 1e9
    rows = (
        (f"cache at {report['pixels']} pixels, GB", cache, 10 * cache),
        ("hashing and decoding, once, hours of one core", decode, 10 * decode),
        ("opening the cache again, minutes", again, 10 * again),
        ("anonymous memory, GiB", kept[1] / 1024, (kept[1] + added) / 1024),
    )
    times = pd.DataFrame(
        [(what, f"{now:.2f}", f"{then:.1f}") for what, now, then in rows],
        columns=["what", f"{images:,} images", f"{10 * images:,}, computed"],
    )
    return f"{paper.pipe_table(peaks)}\n\n{paper.pipe_table(times)}"


def _rehearsal(folder: Path) -> str:
    """The committed rehearsal: every part's seconds and peak memory."""
    file = folder / "rehearsal.json"
    if not file.is_file():
        return "Not rehearsed yet: run `make bench`."
    report = json.loads(file.read_text(encoding="utf-8"))
    machine, trainings = report["machine"], pd.DataFrame(report["parts"])
    words = {"pacx": "distillation", "ecg": "ECG teacher", "labs": "lab autoencoder"}
    trainings["part"] = trainings["part"].replace(words | {"mae": "masked autoencoder"})
    trainings["seconds"] = trainings["seconds"].map("{:.1f}".format)
    for column in ("steps", "rows_a_step"):
        trainings[column] = trainings[column].map("{:.0f}".format, na_action="ignore").fillna("")
    where = "a CPU" if machine["gpu"] == "none" else machine["gpu"]
    return (
        f"Measured on {where} ({machine['processor']}, {machine['cores']} cores, torch "
        f"{machine['torch']}), precision {report['precision']}: `{report['command']}`\n\n"
        f"{paper.pipe_table(trainings.rename(columns={'peak_mib': 'peak memory, MiB'}))}"
    )


def _downloads(run: Run, project: Path, folder: Path) -> str:
    """Copy the profile and the result tables beside the page that links to them, by chapter."""
    profile = run.profile.model_dump(mode="json", exclude={"data_root"}) | {"data_root": None}
    for training in (profile["mae"], profile["ecg"]):
        training["weights"] = training["weights"] and Path(training["weights"]).name
    text = yaml.safe_dump(profile, sort_keys=False)  # without this machine's folders
    (folder / "profile.yaml").write_text(text, encoding="utf-8")
    lines = ["- {download}`profile.yaml <_generated/profile.yaml>`"]
    for source in sources_of(project):
        links = []
        saved = re.findall(r'save_results\(\s*"(\w+)"', source.read_text(encoding="utf-8"))
        for name in dict.fromkeys(saved):
            table = run.find_results(name)
            if table is not None and (run.is_phantom or is_declared(table)):
                table.to_csv(folder / f"{name}.csv", index=False)
                links.append(f"{{download}}`{name}.csv <_generated/{name}.csv>`")
        lines.append(f"- [](../notebooks/{source.stem}): {', '.join(links) or 'none'}")
    return "\n".join(lines)
