"""Chapters as notebooks for Colab and JupyterLab, which know no MyST and fold no cell by its tags.

`make sync` runs this module. The `.py` files are the source: nothing is read from an `.ipynb`.
"""

import re
import textwrap
import unicodedata
from functools import cache
from pathlib import Path
from urllib.parse import quote

from pacx.book.execution import sources_of  # says what to install where the next are missing

# isort: split
import jupytext
import nbformat
import yaml
from pybtex.database import Entry, parse_file

from pacx.errors import PacxError
from pacx.files import new_file

#: Tags of cells whose code the book folds or leaves out. What they print may be an error.
FOLDED = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
_BOXES = {"hint", "important", "note", "seealso", "tip", "warning"}

#: Code comes before roles and links, which it may hold as examples.
_MYST = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})(?:\{(?P<box>[\w-]+)\})?(?P<title>.*)\n"
    r"(?P<options>(?: *:[\w-]+:.*\n)*)(?P<body>(?s:.*?))^(?P=indent)(?P=fence)$"
    r"|(?P<ticks>`+)(?!`)(?s:.+?)(?<!`)(?P=ticks)(?!`)"
    r"|\{(?P<role>[\w:-]+)\}`(?P<content>[^`]+)`"
    r"|(?<=\]\()(?P<target>[^)\s]+)",
    re.MULTILINE,
)


def write_notebooks(project: Path = Path()) -> None:
    """Write `notebooks/*.ipynb` from the `.py` files beside them.

    Raises:
        PacxError: There are no chapters, or one holds what a notebook cannot show.
    """
    for source in sources_of(project):
        with new_file(source.with_suffix(".ipynb")) as partial:
            write_notebook(source, partial, project)


def write_notebook(source: Path, target: Path, project: Path = Path()) -> None:
    """Write one chapter with plain Markdown, links that work anywhere and folded cells folded.

    The source is the `.py` file, or an executed notebook, whose outputs are kept.

    Raises:
        PacxError: A role, a directive, a citation, a term or a page is unknown.
    """
    notebook = jupytext.read(source)
    notebook.metadata.pop("jupytext", None)  # it would make JupyterLab write the `.py` file
    for index, cell in enumerate(notebook.cells):
        cell.id = str(index)  # not a random one
        tags = set(cell.metadata.get("tags", []))
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if tags else {})
        if cell.cell_type == "markdown":
            cell.source = _plain_text(cell.source, project)
        if tags & FOLDED:
            # Colab folds code below a title.
            title = "" if cell.source.startswith("# ") else "Code\n"
            cell.source = f"# @title {title}{cell.source.removeprefix('# ')}"
            cell.metadata["cellView"] = "form"
            cell.metadata["jupyter"] = {"source_hidden": True}
        elif "hide-output" in tags:
            cell.metadata["jupyter"] = {"outputs_hidden": True}
    nbformat.write(notebook, target)


def _plain_text(text: str, project: Path) -> str:
    def replace(match: re.Match) -> str:
        if match["box"]:
            return _box(match, project)
        if match["role"]:
            return _role(match, project)
        if match["target"]:
            return _address(match["target"], project)
        return match[0]

    return _MYST.sub(replace, text)


def _box(match: re.Match, project: Path) -> str:
    name, title = match["box"], match["title"].strip()
    body = _plain_text(match["body"], project)
    if name == "dropdown":
        text = f"<details><summary>{title}</summary>\n\n{textwrap.dedent(body)}\n</details>"
    elif name in _BOXES or name == "admonition":
        if name != "admonition":  # its text begins on the first line
            title, body = name.capitalize(), f"{title}\n{body}"
        text = f"**{title}**\n\n{textwrap.dedent(body).strip()}"
        text = textwrap.indent(text, "> ", lambda line: True)
    else:
        raise _unknown(match[0].splitlines()[0])
    return textwrap.indent(text, match["indent"])


def _role(match: re.Match, project: Path) -> str:
    name, content = match["role"], " ".join(match["content"].split())
    try:
        if name == "term":
            shown, term = re.fullmatch(r"(.+?)(?: ?<(.+)>)?", content).groups()
            anchor, meaning = _glossary(project)[(term or shown).lower()]
            return f'[{shown}]({_site(project)}/book/glossary.html#{anchor} "{meaning}")'
        cited = [_references(project)[key.strip()] for key in content.split(",")]
    except KeyError:
        raise _unknown(match[0]) from None
    if name == "cite:t":
        return ", ".join(_citation(entry, "{} ({})") for entry in cited)
    if name in ("cite", "cite:p"):
        return f"({'; '.join(_citation(entry, '{}, {}') for entry in cited)})"
    raise _unknown(match[0])


def _citation(entry: Entry, form: str) -> str:
    """A link such as `[He et al., 2022](https://doi.org/...)`."""
    names = [" ".join(p.prelast_names + p.last_names) for p in entry.persons.get("author", [])]
    if not names:
        text = entry.fields["key"]
    else:
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        text = form.format(re.sub("[{}]", "", who), entry.fields["year"])
    doi = entry.fields.get("doi")
    return f"[{text}]({f'https://doi.org/{quote(doi)}' if doi else entry.fields['url']})"


def _address(target: str, project: Path) -> str:
    """A chapter is the notebook beside this one; prose is a page of the published book."""
    if ":" in target:
        return target
    page, _, anchor = target.partition("#")
    if (project / "notebooks" / f"{page}.py").is_file():
        return f"{page}.ipynb"
    if page.startswith("../book/") and (project / "notebooks" / f"{page}.md").is_file():
        return f"{_site(project)}/{page.removeprefix('../')}.html{anchor and '#' + anchor}"
    raise _unknown(f"]({target})")


def _unknown(what: str) -> PacxError:
    return PacxError(
        f"notebooks/*.py hold {what!r}, which names nothing that a notebook can show. Mend it, or "
        "teach pacx/book/colab.py to write it."
    )


@cache
def _site(project: Path) -> str:
    """Where the book is published: on the GitHub Pages of its repository."""
    config = yaml.safe_load((project / "_config.yml").read_text(encoding="utf-8"))
    owner, name = config["repository"]["url"].rsplit("/", 2)[1:]
    return f"https://{owner}.github.io/{name}"


@cache
def _references(project: Path) -> dict[str, Entry]:
    return parse_file(project / "book" / "references.bib", "bibtex").entries


@cache
def _glossary(project: Path) -> dict[str, tuple[str, str]]:
    """Of each term, in lower case, its anchor on the page and what it means."""
    text = (project / "book" / "glossary.md").read_text(encoding="utf-8")
    found = {}
    for terms, meaning in re.findall(r"^((?:[^\s#:].*\n)+)((?:  .*\n|\n(?=  ))+)", text, re.M):
        meaning = re.sub(r" ?\{cite\S*?\}`.*?`", "", " ".join(meaning.split()))
        meaning = re.sub(r"\{\w+\}|[`*]", "", meaning).replace('"', "'").replace("|", "/")
        for term in terms.splitlines():
            name = unicodedata.normalize("NFKD", term).encode("ascii", "ignore").decode()
            found[term.lower()] = "-".join(["term", *re.findall(r"[\w.]+", name)]), meaning
    return found


if __name__ == "__main__":
    write_notebooks()
