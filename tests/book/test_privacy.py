"""Credentialed data stays home: canaries are planted in a site, and every one must be found."""

import base64
import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from tiny_hospital import hospital

from pacx.book.privacy import inspect_site, show_or_withhold, suppress_small
from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.errors import PacxError
from pacx.profile import load_profile
from pacx.run import open_run


@pytest.fixture
def run(tmp_path):
    """A run on the tiny hospital as if it were real."""
    return open_run(load_profile("smoke", data_root=hospital()), tmp_path / "runs")


@pytest.fixture(scope="module")
def public():
    return png(1)


def png(seed):
    buffer, grey = io.BytesIO(), np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def notebook(picture, tags):
    output = new_output("display_data", {"image/png": base64.b64encode(picture).decode()})
    cells = [new_markdown_cell("# Chapter"), new_code_cell("show()", outputs=[output])]
    cells[1].metadata["tags"] = tags
    return nbformat.writes(new_notebook(cells=cells))


@pytest.fixture
def site(tmp_path, public):
    """A site that may be published: prose, a public picture, an aggregate."""
    html, book = tmp_path / "html", tmp_path / "book"
    files = {
        book / "book" / "data.md": "subject 10000032 is everybody's example",
        book / "notebooks" / "01_cohort.ipynb": notebook(public, ["public"]),
        html / "index.html": "<th>AUROC</th> <th>Patients</th> <p>0.812, 10000032, 0.{patient}</p>",
        html / "notebooks" / "01_cohort.html": '<img src="../_images/a.png">',
        html / "_sources" / "notebooks" / "01_cohort.ipynb": notebook(public, ["public"]),
        html / "_images" / "a.png": public,
        html / "_images" / "curve.svg": "<svg><path d='M 0 0'/></svg>",
        html / "_downloads" / "transfer.csv": "dataset,value\ntb,0.8\n",
        html / "searchindex.js": "Search.setIndex({})",
        tmp_path / "book.log": "build succeeded",
    }
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):  # the digits of a fraction are nobody's number
            patient = read_patients(hospital(), "train")["patient"].iloc[0]
            content = content.replace("{patient}", patient).encode()
        file.write_bytes(content)
    return html, book, tmp_path / "book.log"


def test_a_clean_site_passes(run, site):
    inspect_site(run, *site)


LOST = "an identifier"
DATA_URI = f'<img src="data:image/png;base64,{base64.b64encode(png(2)).decode()}">'
#: What is planted: file, content with the hospital's own `patient`, `study`, `image` and `root`,
#: and what the error calls it.
CANARIES = {
    "a row on a page": ("index.html", "<td>{patient}</td><td>{study}</td><td>1.2</td>", LOST),
    "an admission": ("index.html", "<td>{study}</td>", LOST),
    "a patient": ("notebooks/01_cohort.html", "patient {patient}", LOST),
    "a file name": ("notebooks/01_cohort.html", "see {image}", LOST),
    "two in one word": ("index.html", "{patient}-{study}", LOST),
    "one with a word": ("index.html", "subject_{patient}", LOST),
    "one with a letter": ("index.html", "p{patient}", LOST),
    "one in a file name": ("index.html", "{patient}_s1.png", LOST),
    "one as a float": ("index.html", "{patient}.0", LOST),
    "a study of a path": ("index.html", "{cxr_path}", LOST),
    "an ECG's path": ("index.html", "{ecg_path}", LOST),
    "capitals": ("index.html", "{IMAGE}", LOST),
    "the search index": ("searchindex.js", "['{patient}', 3]", LOST),
    "a download": ("_downloads/rows.csv", "a,b\n{study},1\n", LOST),
    "the log": ("../book.log", "WARNING: {study}", LOST),
    "the path of the data": ("index.html", "read {root}/tb", "the path"),
    "a column of a download": ("_downloads/x.csv", "subject_id,age\n", "a column"),
    "a column of a page": ("index.html", "<th>hadm id</th>", "a column"),
    "a quoted column": ("_downloads/x.csv", '\ufeff"Subject_ID","age"\r\n', "a column"),
    "a column in bold": ("index.html", "<TH><strong>Patient ID</strong></TH>", "a column"),
    "a picture": ("_images/b.png", png(2), "a picture"),
    "a JPEG": ("_images/b.jpg", png(2), "a picture"),
    "a picture in a page": ("index.html", DATA_URI, "a picture"),
    "an icon in a page": ("index.html", DATA_URI.replace("png", "x-icon"), "a picture"),
    "a picture with parameters": ("index.html", DATA_URI.replace(";", ";a=b;", 1), "a picture"),
    "a picture in a drawing": ("_images/b.svg", "<svg><image href='x'/></svg>", "a picture"),
    "a picture in a notebook": ("_sources/x.ipynb", notebook(png(2), []), "a picture"),
    "a picture that calls itself public": (
        "_sources/x.ipynb", notebook(png(2), ["public"]), "a picture",
    ),
    "an array": ("_downloads/x.npy", b"\x93NUMPY", "a picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANARIES)
def test_every_canary_is_found_and_not_repeated(run, site, name):
    file, content, kind = CANARIES[name]
    table = read_patients(hospital(), "train")
    facts = {
        "patient": table["patient"].iloc[0],
        "study": table["study"].iloc[0],
        "image": (image := load_dataset("vindr-cxr", hospital()).table["image"].iloc[0]),
        "IMAGE": image.upper(),
        # What is found is the study: without the patient's number.
        "cxr_path": table["cxr_path"].iloc[0].replace(table["patient"].iloc[0], ""),
        "ecg_path": table["ecg_path"].iloc[0].replace(table["patient"].iloc[0], ""),
        "root": str(hospital().resolve()),
    }
    if isinstance(content, str):
        for word, value in facts.items():
            content = content.replace(f"{{{word}}}", value)
        content = content.encode()
    target = site[0] / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    with pytest.raises(PacxError, match=kind) as caught:
        inspect_site(run, *site)
    assert target.name in str(caught.value)
    assert not any(value in str(caught.value) for value in facts.values())


def test_phantoms_may_be_published(tmp_path, site):
    (site[0] / "_images" / "b.png").write_bytes(png(2))
    inspect_site(open_run("smoke", tmp_path / "runs"), *site)


@pytest.mark.parametrize(
    ("datasets", "shown"), [(["tb"], True), (["tb", "chexpert"], False), (["symile-mimic"], False)]
)
def test_a_figure_of_patients_is_shown_or_kept(run, datasets, shown):
    figure, _ = plt.subplots()
    show_or_withhold(run, figure, "patients", *datasets)
    assert plt.fignum_exists(figure.number) == shown
    assert [file.name for file in run.private.glob("*")] == ([] if shown else ["patients.png"])
    plt.close(figure)


def test_small_counts_are_left_out(run, tmp_path):
    table = pd.DataFrame({"label": list("abc"), "positive": [0, 9, 10], "share": [0.0, 0.1, 0.2]})
    told = suppress_small(run, table, "positive", derived=["share"])
    assert told["positive"].isna().tolist() == [False, True, False]
    assert told["share"].isna().tolist() == [False, True, False]
    assert told["label"].tolist() == list("abc")
    table["known"] = [100, 100, 19]
    told = suppress_small(run, table, "positive", "known", of="known", derived=["share"])
    assert told["positive"].isna().tolist() == [False, True, True]
    assert told["known"].tolist() == [100, 100, 19]
    assert told["share"].isna().tolist() == [False, True, True]
    phantoms = open_run("smoke", tmp_path / "phantoms")
    assert suppress_small(phantoms, table, "positive").equals(table)
