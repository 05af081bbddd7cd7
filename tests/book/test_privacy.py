"""Credentialed data stays home: canaries are planted in a site, and every one must be found."""

import base64
import gzip
import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from tiny_hospital import hospital

from pacx.book.privacy import declare, inspect_site, is_declared, withhold
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


def notebook(picture):
    output = new_output("display_data", {"image/png": base64.b64encode(picture).decode()})
    return nbformat.writes(new_notebook(cells=[new_code_cell("show()", outputs=[output])]))


@pytest.fixture
def site(tmp_path, public):
    """A site that may be published: prose, a public picture, an aggregate."""
    html, book = tmp_path / "html", tmp_path / "book"
    files = {
        book / "book" / "data.md": "subject 10000032 is everybody's example",
        book / "notebooks" / "01_cohort.ipynb": notebook(public),
        html / "index.html": "<th>AUROC</th> <th>Patients</th> <p>0.812, 10000032, 0.{patient}</p>",
        html / "notebooks" / "01_cohort.html": '<img src="../_images/a.png">',
        html / "_sources" / "notebooks" / "01_cohort.ipynb": nbformat.writes(new_notebook()),
        html / "_images" / "a.png": public,
        book / "book" / "curve.svg": "<svg><path d='M 0 0'/></svg>",
        html / "_images" / "curve.svg": "<svg><path d='M 0 0'/></svg>",
        book / "book" / "_generated" / "transfer.csv": "dataset,value\ntb,0.8\n",
        html / "_downloads" / "transfer.csv": "dataset,value\ntb,0.8\n",
        html / "_static" / "theme.woff2": b"\0 a font of the theme",
        html / "searchindex.js": "Search.setIndex({})",
        tmp_path / "book.log": "build succeeded",
    }
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):  # the digits of a fraction are nobody's number
            patient = read_patients(hospital(), "train")["patient"].iloc[1]
            content = content.replace("{patient}", patient).encode()
        file.write_bytes(content)
    return html, book, tmp_path / "book.log"


def test_a_clean_site_passes(run, site):
    inspect_site(run, *site)


LOST, FILE = "an identifier", "not declared"
BASE64 = base64.b64encode(png(2)).decode()
#: What is planted: file, content with the hospital's own `patient`, `study`, `image`, `root` and
#: such, where `a` and `b` are halves of the patient's number; and what the error calls it.
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
    "one after a tab": ("index.html", "\\t{patient}", LOST),
    "groups of digits": ("index.html", "{grouped}", LOST),
    "groups with hard blanks": ("index.html", "{thin}", LOST),
    "an entity": ("index.html", "{a}&#x200b;{b}", LOST),
    "digits as entities": ("index.html", "{entities}", LOST),
    "a soft hyphen": ("index.html", "{a}\u00ad{b}", LOST),
    "wide digits": ("index.html", "{wide}", LOST),
    "two spans": ("index.html", "<span class='x'>{a}</span><span>{b}</span>", LOST),
    "a study of a path": ("index.html", "{cxr_path}", LOST),
    "an ECG's path": ("index.html", "{ecg_path}", LOST),
    "capitals": ("index.html", "{IMAGE}", LOST),
    "the search index": ("searchindex.js", "['{patient}', 3]", LOST),
    "the log": ("../book.log", "WARNING: {study}", LOST),
    "the path of the data": ("index.html", "read {root}/tb", "the path"),
    "a table": ("_downloads/rows.csv", "a,b\n1,1\n", FILE),
    "a packed table": ("_downloads/rows.csv.gz", gzip.compress(b"a\n1\n"), FILE),
    "a packed table beside pages": ("notebooks/rows.csv.gz", gzip.compress(b"a\n1\n"), FILE),
    "a table in Parquet": ("notebooks/rows.parquet", b"PAR1\0\0PAR1", FILE),
    "a picture": ("_images/b.png", png(2), FILE),
    "a picture elsewhere": ("notebooks/b.png", png(2), FILE),
    "a picture called text": ("notebooks/b.txt", png(2), FILE),
    "a packed table of the prose": ("_static/rows.csv.gz", gzip.compress(b"a\n1\n"), FILE),
    "a drawing": ("_images/b.svg", "<svg><path d='M 1 1'/></svg>", FILE),
    "a picture in a page": ("index.html", f"<img src='data:image/png;base64,{BASE64}'>", FILE),
    "one with parameters": ("index.html", f"data:image/png;a=b;base64,{BASE64}", FILE),
    "one in capitals": ("index.html", f"DATA:Image/PNG;BASE64,{BASE64}", FILE),
    "one in entities": ("index.html", f"data&colon;image&#47;png;base64,{BASE64}", FILE),
    "one in per cent": ("index.html", "data:image/svg+xml,%3Csvg%3E", FILE),
    "one in broken lines": ("index.html", f"da\nta:image/\tpng;base64,{BASE64}", FILE),
    "one of another kind": ("index.html", f"data:application/x-gzip;base64,{BASE64}", FILE),
    "one in a style": ("a.css", f"a {{background: url(data:image/webp;base64,{BASE64})}}", FILE),
    "one in a notebook": ("_sources/x.ipynb", f"![](data:image/png;base64,{BASE64})", FILE),
    "an array": ("_downloads/x.npy", b"\x93NUMPY", FILE),
}  # fmt: skip


@pytest.mark.parametrize("name", CANARIES)
def test_every_canary_is_found_and_not_repeated(run, site, name):
    file, content, kind = CANARIES[name]
    table = read_patients(hospital(), "train")
    patient = table["patient"].iloc[1]
    facts = {
        "patient": patient,
        "grouped": f"{int(patient):,}",
        "thin": f"{int(patient):,}".replace(",", "\u202f"),
        "entities": "".join(f"&#{ord(digit)};" for digit in patient),
        "wide": "".join(chr(ord(digit) + 0xFEE0) for digit in patient),
        "study": table["study"].iloc[1],
        "image": (image := load_dataset("vindr-cxr", hospital()).table["image"].iloc[0]),
        "IMAGE": image.upper(),
        # What is found is the study: without the patient's number.
        "cxr_path": table["cxr_path"].iloc[1].replace(patient, ""),
        "ecg_path": table["ecg_path"].iloc[1].replace(patient, ""),
        "root": str(hospital().resolve()),
    }
    if isinstance(content, str):
        for word, value in facts.items():
            content = content.replace(f"{{{word}}}", value)
        content = content.replace("{a}", patient[:4]).replace("{b}", patient[4:]).encode()
    target = site[0] / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if "prose" in name:  # else it is the theme's
        (site[1] / "book" / "_static").mkdir()
        (site[1] / "book" / "_static" / target.name).write_bytes(content)
    with pytest.raises(PacxError, match=kind) as caught:
        inspect_site(run, *site)
    assert target.name in str(caught.value)
    assert not any(value in str(caught.value) for value in facts.values())


def test_phantoms_may_be_published(tmp_path, site):
    (site[0] / "_images" / "b.png").write_bytes(png(2))
    inspect_site(open_run("smoke", tmp_path / "runs"), *site)


def test_neither_a_name_nor_a_link_gives_patients_away(run, site):
    html, book, _ = site
    patient = read_patients(hospital(), "train")["patient"].iloc[1]
    (html / f"p{patient}").mkdir()
    (html / f"p{patient}" / "a.html").touch()
    (html / f"p{patient}.html").touch()
    (book / "book" / "patients").symlink_to(hospital(), target_is_directory=True)
    with pytest.raises(PacxError, match="a link among the prose") as caught:
        inspect_site(run, *site)
    assert str(caught.value).count(LOST) == 2
    assert patient not in str(caught.value)


@pytest.mark.parametrize(("datasets", "kept"), [((), 1), (["tb"], 1), (["tb", "chexpert"], 0)])
def test_a_figure_is_kept_by_the_terms_of_its_data_sets(run, datasets, kept):
    figure, _ = plt.subplots()
    shown = InteractiveShell().display_formatter.format(declare(run, figure, *datasets))
    output = new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata=shown[1])
    chapter = new_notebook(cells=[new_code_cell(outputs=[output])])
    withhold(chapter, "private/x.ipynb")
    assert chapter.cells[0].outputs[0].data.get("image/svg+xml", "") == "<svg/>" * kept
    plt.close(figure)


def test_what_else_a_notebook_carries_is_taken_out(run):
    error = new_output("error", ename="KeyError", evalue="10000001", traceback=["10000001"])
    text = new_markdown_cell("![](attachment:a.png)", attachments={"a.png": {"image/png": "A"}})
    chapter = new_notebook(cells=[new_code_cell("1 / 0", outputs=[error]), text])
    chapter.metadata["widgets"] = {"state": "10000001"}
    withhold(chapter, "private/x.ipynb")
    withheld = nbformat.writes(chapter)
    assert "10000001" not in withheld
    assert '"A"' not in withheld
    withhold(chapter, "private/x.ipynb")
    assert nbformat.writes(chapter) == withheld


def test_small_counts_are_left_out(run, tmp_path):
    table = pd.DataFrame({"label": list("abc"), "positive": [0, 9, 10], "share": [0.0, 0.1, 0.2]})
    assert not is_declared(table)
    told = declare(run, table, counts=["positive"], derived=["share"])
    assert is_declared(told)
    assert told["positive"].isna().tolist() == [False, True, False]
    assert told["share"].isna().tolist() == [False, True, False]
    assert told["label"].tolist() == list("abc")
    table["known"] = [100, 100, 19]
    told = declare(run, table, counts=["positive", "known"], of="known", derived=["share"])
    assert told["positive"].isna().tolist() == [False, True, True]
    assert told["known"].tolist() == [100, 100, 19]
    assert told["share"].isna().tolist() == [False, True, True]
    phantoms = open_run("smoke", tmp_path / "phantoms")
    assert declare(phantoms, table, counts=["positive"]).equals(table)
