"""Pairing raw MIMIC tables: seconds and peak memory of ours and of Symile's own script.

The tables are MIMIC-shaped: `hosp/`, `cxr/` and `ecg/` in every folder of `--tables`. With
`--reference`, a checkout of rajesh-lab/symile, its script runs unchanged on the same tables, and
both results are compared. Every run is a process of its own; its seconds leave out the imports,
its memory does not. With `--lab-rows`, ours alone runs on a lab table grown to that many rows.
"""

import argparse
import gzip
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

SCRIPT = Path("experiments/data_processing/symile_mimic/process_mimic_data.py")
IDS = ["hadm_id", "cxr_dicom_id", "ecg_study_id"]


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, nargs="+")
    parser.add_argument("--reference", type=Path, help="checkout of rajesh-lab/symile")
    parser.add_argument("--lab-rows", type=int, help="grow labevents to so many rows; ours alone")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_here(options.child[0], Path(options.child[1]), options)
        return
    results = [measure(tables.resolve(), options) for tables in options.tables]
    text = json.dumps({"cores": os.cpu_count(), "runs": results}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


def measure(tables: Path, options: argparse.Namespace) -> dict:
    """Both ways on one folder of tables."""
    result = {"tables": tables.name}
    with tempfile.TemporaryDirectory(dir=tables.parent) as name:
        folder = Path(name)
        if options.lab_rows:
            in_child("grow", tables, folder / "grown", options)
            tables = folder / "grown"
        result["load_before"] = round(os.getloadavg()[0], 2)
        result["admissions"] = len(pd.read_csv(tables / "hosp" / "admissions.csv.gz"))
        result["lab_rows"] = options.lab_rows or count_rows(tables / "hosp" / "labevents.csv.gz")
        result["ours"] = in_child("ours", tables, folder / "ours.csv", options)
        if options.reference and not options.lab_rows:
            result["reference"] = in_child("reference", tables, folder / "reference.csv", options)
            result["times_faster"] = round(
                result["reference"]["seconds"] / result["ours"]["seconds"], 1
            )
            result["same_result"] = same(folder / "ours.csv", folder / "reference.csv")
        return result


def in_child(way: str, tables: Path, out: Path, options: argparse.Namespace) -> dict:
    """Run one way in a process of its own. This one stays small: a child inherits its peak."""
    command = [sys.executable, __file__, "--tables", str(tables), "--memory", options.memory]
    if options.reference:
        command += ["--reference", str(options.reference.resolve())]
    if options.lab_rows:
        command += ["--lab-rows", str(options.lab_rows)]
    command += ["--child", way, str(out)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_here(way: str, out: Path, options: argparse.Namespace) -> None:
    """The child: write the pairs (or the grown tables) to `out`, print seconds and peak memory."""
    tables, seconds = options.tables[0], 0.0
    if way == "grow":
        grow_labs(tables, options.lab_rows, out)
    elif way == "ours":
        from pacx.pairing.admissions import pair_admissions

        start = time.perf_counter()
        pairs = pair_admissions(tables, tables / "cxr", tables / "ecg", options.memory, out.parent)
        seconds = time.perf_counter() - start
        pairs.to_csv(out, index=False)
    else:
        import numpy  # noqa: F401 - so that the script's imports cost it nothing
        import wfdb  # noqa: F401

        script = options.reference / SCRIPT
        saved = out.parent / "saved"
        sys.argv = [str(script), "--mimiciv_hosp_dir", str(tables / "hosp"),
                    "--cxr_data_dir", str(tables / "cxr"), "--ecg_data_dir", str(tables / "ecg"),
                    "--save_dir", str(saved)]  # fmt: skip
        sys.path.insert(0, str(script.parent))
        start = time.perf_counter()
        runpy.run_path(str(script), run_name="__main__")
        seconds = time.perf_counter() - start
        (saved / "symile_mimic_data.csv").rename(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": round(peak)}))


def same(ours: Path, reference: Path) -> bool:
    """Whether both found the same pairs with the same values, whatever the order."""
    tables = [
        pd.read_csv(path, float_precision="round_trip").sort_values("hadm_id", ignore_index=True)
        for path in (ours, reference)
    ]
    columns = IDS + [column for column in tables[0] if column.isdigit()]
    return tables[0][columns].astype(str).equals(tables[1][columns].astype(str))


def count_rows(path: Path) -> int:
    """Lines of a compressed table below its header."""
    with gzip.open(path, "rb") as file:
        return sum(1 for _ in file) - 1


def grow_labs(tables: Path, rows: int, grown: Path) -> None:
    """The same tables with every lab repeated, each time a year later, up to `rows` rows.

    No patient drops out of the query, so this is harder than MIMIC, where most rows do.
    """
    import duckdb

    (grown / "hosp").mkdir(parents=True)
    for name in ("cxr", "ecg"):
        (grown / name).symlink_to(tables / name)
    for path in (tables / "hosp").iterdir():
        if path.name != "labevents.csv.gz":
            (grown / "hosp" / path.name).symlink_to(path)
    part = grown / "part.csv.gz"
    with duckdb.connect() as database, (grown / "hosp" / "labevents.csv.gz").open("wb") as whole:
        database.execute(f"""
            CREATE TABLE labs AS SELECT * REPLACE (charttime::TIMESTAMP AS charttime)
            FROM read_csv('{tables}/hosp/labevents.csv.gz', all_varchar=true)
        """)
        (known,) = database.execute("SELECT count(*) FROM labs").fetchone()
        for year, done in enumerate(range(0, rows, known)):
            database.execute(f"""
                COPY (
                    SELECT * REPLACE (strftime(
                        charttime + to_years({year}), '%Y-%m-%d %H:%M:%S'
                    ) AS charttime)
                    FROM labs LIMIT {rows - done}
                ) TO '{part}' (HEADER {year == 0}, COMPRESSION gzip)
            """)
            whole.write(part.read_bytes())  # gzip files in a row are one gzip file
            part.unlink()


if __name__ == "__main__":
    main()
