"""A chapter on real data shows its patients in every way we know: none may reach the site."""

import base64
import re

import nbformat
import pytest
from tiny_hospital import hospital
from to_kill import give_executed_chapters

from pacx.book.build import build
from pacx.book.execution import execute
from pacx.data.datasets.symile_mimic import read_patients
from pacx.profile import load_profile
from pacx.run import open_run

#: What a cell does to its own patient: number `p`, date `day`, `xray` and `ecg`; and what of it
#: must not be found, where `{p}` is the number, `{a}` and `{b}` are its halves.
ATTACKS = {
    "an X-ray as an SVG mesh": ("plt.pcolormesh(xray).set_gid(f'mesh{p}')", "mesh{p}"),
    "an ECG as SVG paths": ("[line.set_gid(f'ecg{p}') for line in plt.plot(ecg)]", "ecg{p}"),
    "a figure of patients beside declared ones": (
        "declare(run, drawn('declared'))\n_ = drawn(f'gid{p}')", "gid{p}",
    ),
    "a figure whose data set is not open": (
        "_ = declare(run, drawn(f'closed{p}'), 'symile-mimic')", "closed{p}",
    ),
    "rows under other headers": ("display(pd.DataFrame({'a': [f'{int(p):,}']}))", "{grouped}"),
    "rows as a result": ("pd.DataFrame({'a': [p]})", "{p}"),
    "rows as a styled table": ("pd.DataFrame({'a': [p]}).style", "{p}"),
    "a result table": ('_ = run.save_results("rows", pd.DataFrame({"a": [p]}))', "{p}"),
    "stdout": ("print(p)", "{p}"),
    "stderr, after a tab": ("print(f'\\t{p}', file=sys.stderr)", "{p}"),
    "a warning": ("warnings.warn(p)", "{p}"),
    "a log": ("logging.error(p)", "{p}"),
    "a traceback": (
        "try:\n    raise ValueError(p)\nexcept ValueError:\n    traceback.print_exc()", "{p}",
    ),
    "HTML": ("display(HTML(p))", "{p}"),
    "HTML, one number in two spans": (
        "display(HTML(f'<span>{p[:4]}</span><b>{p[4:]}</b>'))", "<span>{a}</span><b>{b}</b>",
    ),
    "HTML, entities": ("display(HTML(f'{p[:4]}&#8203;{p[4:]}'))", "{a}&#8203;{b}"),
    "Markdown": ("display(Markdown(p))", "{p}"),
    "Markdown, a data URI": ("display(Markdown(f'![](data:,{p})'))", "data:,{p}"),
    "an attachment": ("display(Markdown(f'![](attachment:{p}.png)'))", "attachment:{p}"),
    "LaTeX": ("display(Latex(p))", "{p}"),
    "JSON": ("display(JSON({'a': p}))", "{p}"),
    "a script": ("display(Javascript(f'/* {p} */'))", "{p}"),
    "a link to a file": ("display(FileLink(f'{p}.png'))", "{p}"),
    "a picture": ("display(Image(picture(p)))", "{p}"),
    "dates of one patient": ("print(day)", "{day}"),
    "a declared output that is changed": (
        "shown = display(declare(run, HTML('')), display_id=True)\nshown.update(HTML(p))", "{p}",
    ),
    "metadata of a declared SVG": (
        "set_matplotlib_formats('svg', metadata={'Title': p})\n_ = declare(run, drawn('declared'))",
        "{p}",
    ),
    "words that an SVG draws, in its comments": (
        "_ = declare(run, drawn('declared')).text(0, 0, day)", "<!-- {day} -->",
    ),
    "metadata of a declared PNG": ("display(declare(run, Image(picture(p))))", "{p}"),
}  # fmt: skip
CHAPTER = """
# %% tags=["parameters"]
profile, runs = "smoke", "runs"

# %%
import io, logging, sys, traceback, warnings
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import JSON, FileLink, HTML, Image, Javascript, Latex, Markdown, display
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pacx.book.privacy import declare
from pacx.data.datasets.symile_mimic import read_patients
from pacx.figures.style import use_style
from pacx.figures.tables import say, show
from pacx.run import open_run

run = open_run(profile, runs)
use_style()
patients = read_patients(run.data_root, "train")["patient"]
arrays = run.data_root / "symile-mimic" / "data_npy" / "train"
xrays, ecgs = (np.load(arrays / f"{name}_train.npy") for name in ("cxr", "ecg"))

def drawn(name):
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.set_gid(name)
    return figure

def picture(words):
    about, buffer = PngInfo(), io.BytesIO()
    about.add_text("Patient", words)
    Pillow.new("L", (8, 8)).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()

# %%
show(pd.DataFrame({"kept": ["a table of aggregates"]}))

# %%
say("a sentence of aggregates")

# %%
few = declare(run, pd.DataFrame({"images": [9, 4711]}), counts=["images"])
_ = run.save_results("counts", few)
show(few)

# %%
_ = declare(run, drawn("a-declared-figure"))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The run of the one chapter, on phantoms passed off as real, and its site."""
    folder = tmp_path_factory.mktemp("attacked")
    project = folder / "given"
    run = open_run(load_profile("smoke", data_root=hospital()), folder / "runs")
    project.mkdir()
    give_executed_chapters(project)
    for number in range(1, 3):
        (project / "notebooks" / f"0{number}_tiny.py").unlink()
    cells = [
        f"# %%\np, xray, ecg = patients[{k}], xrays[{k}, 0], ecgs[{k}, 0]\n"
        f"day = f'2180-07-{{10 + {k}}}'\n{code}\n"
        for k, (code, _) in enumerate(ATTACKS.values())
    ]
    (project / "notebooks" / "00_tiny.py").write_text("\n".join([CHAPTER, *cells]))
    toc = '{"root": "book/index", "parts": [{"chapters": [{"file": "notebooks/00_tiny"}]}]}'
    (project / "_toc.yml").write_text(toc)
    execute(run, project=project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(project / "stub"), prepend=":")
        build(run, project=project)
    return run


def everything(folder):
    """All that can be read there, and in what is packed or encoded in it."""
    found = b""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            pictures = re.findall(rb'"image/png": "([\w+/=\\]+)"', content)
            content += b"".join(base64.b64decode(p.replace(b"\\n", b"")) for p in pictures)
            found += str(file.relative_to(folder)).encode() + content
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_reaches_the_site(built, name):
    number = list(ATTACKS).index(name)
    p = read_patients(hospital(), "train")["patient"].iloc[number]
    facts = {"p": p, "a": p[:4], "b": p[4:], "grouped": f"{int(p):,}"}
    facts["day"] = f"2180-07-{10 + number}"
    needle = ATTACKS[name][1].format(**facts).encode()
    copies = everything(built.private) + everything(built.results)
    assert needle in copies, "the attack was none"
    assert needle not in everything(built.folder / "html")
    assert needle not in everything(built.notebooks)


@pytest.mark.parametrize(
    "kept", ["a table of aggregates", "a sentence of aggregates", "a-declared-figure", "4711"]
)
def test_what_is_declared_stays(built, kept):
    assert kept.encode() in everything(built.folder / "html")


def test_a_line_says_where_the_copy_is(built):
    notebook = nbformat.read(built.notebooks / "00_tiny.ipynb", as_version=4)
    cells = notebook.cells[-len(ATTACKS) :]
    told = ["The copy is `private/00_tiny.ipynb`." in str(cell.outputs) for cell in cells]
    withheld = dict(zip(ATTACKS, told, strict=True))
    # The others are results, stderr, which pages never show, or parts of what is declared.
    assert sum(withheld.values()) == len(ATTACKS) - 8
    assert withheld["stdout"]
    assert withheld["an X-ray as an SVG mesh"]
    assert (built.private / "00_tiny.ipynb").is_file()
    assert built.private.stat().st_mode & 0o777 == 0o700


def test_only_declared_tables_are_offered(built):
    offered = {file.name for file in (built.folder / "html").rglob("*.csv")}
    assert offered == {"counts.csv"}
    assert not list((built.folder / "html").rglob("*.parquet"))
