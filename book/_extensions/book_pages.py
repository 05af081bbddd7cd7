"""Sphinx extension: what the pages of this book have, or lack, beside the theme's.

- A link to a glossary term carries the definition as its title. Browsers show it when the pointer
  rests on the link; that needs no script and no network.
- The foot of each page says which run made it.
- The index lists, below each glossary term, the sections of chapters that use it.
- The page of a module of the library names the chapters that import it.
- References are items of their list; Sphinx gives them a role that ARIA has dropped.
- Two scripts of more than a megabyte are not loaded where nothing needs them.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.addnodes import index, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from pacx.files import imports_of

GLOSSARY = "book/glossary"
REFERENCES = "book/references"
MADE_BY = "book/_generated/made_by.md"


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_transform(_IndexTerms)
    app.connect("autodoc-process-docstring", _name_callers)
    app.connect("doctree-resolved", _add_tips)
    app.connect("html-page-context", _say_what_made_it)
    app.connect("html-page-context", _drop_mathjax, priority=600)  # after MathJax has been added
    app.connect("build-finished", _empty_icon_script)
    app.connect("build-finished", _list_references)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class _IndexTerms(SphinxTransform):
    """The first use of a glossary term in each chapter goes into the index."""

    default_priority = 800  # before Sphinx collects the index, at 850

    def apply(self) -> None:
        if not self.env.docname.startswith("notebooks/"):
            return
        seen = set()
        for link in list(self.document.findall(pending_xref)):
            section = next((p for p in _parents(link) if isinstance(p, nodes.section)), None)
            term = link["reftarget"][:1].upper() + link["reftarget"][1:]  # as the glossary has it
            if link["reftype"] == "term" and section and term not in seen:
                seen.add(term)
                entry = ("single", term, section["ids"][0], "", None)
                section.insert(1, index(entries=[entry]))  # below the title


def _name_callers(
    app: Sphinx, what: str, name: str, module: object, options: object, lines: list[str]
) -> None:
    if what == "module":
        chapters = _imports_of_chapters(Path(app.srcdir, "notebooks"))
        callers = [f":doc:`/notebooks/{c}`" for c, names in chapters.items() if name in names]
        if callers:
            lines += ["", f"Called in: {', '.join(callers)}."]


@cache
def _imports_of_chapters(folder: Path) -> dict[str, set[str]]:
    """Modules of the library that each chapter imports."""
    imports = {}
    for file in sorted(folder.glob("*.ipynb")):
        cells = nbformat.read(file, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        imports[file.stem] = imports_of(code)
    return imports


def _parents(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _add_tips(app: Sphinx, page: nodes.document, name: str) -> None:
    links = [link for link in page.findall(nodes.reference) if _is_term(link)]
    if links:
        tips = _definitions(app.env.get_doctree(GLOSSARY))
        for link in links:
            target = link.get("refid") or link["refuri"].rpartition("#")[2]
            link["reftitle"] = tips[target]


def _is_term(link: nodes.reference) -> bool:
    return any("std-term" in child.get("classes", []) for child in link.findall(nodes.inline))


def _definitions(glossary: nodes.document) -> dict[str, str]:
    """Anchor of each term -> its definition without citations."""
    tips = {}
    for item in glossary.findall(nodes.definition_list_item):
        definition = next(item.findall(nodes.definition)).deepcopy()
        for citation in list(definition.findall(pending_xref)):
            citation.parent.remove(citation)
        text = re.sub(r"\s+([.,:;])", r"\1", " ".join(definition.astext().split()))
        tips |= {anchor: text for term in item.findall(nodes.term) for anchor in term["ids"]}
    return tips


def _say_what_made_it(app: Sphinx, name: str, template: str, context: dict, page: object) -> None:
    context["made_by"] = (Path(app.srcdir) / MADE_BY).read_text(encoding="utf-8").strip()


def _drop_mathjax(app: Sphinx, name: str, template: str, context: dict, page: object) -> None:
    """Sphinx loads it on the first page for equations that only the pages below it have."""
    if name == app.config.root_doc and app.builder.name == "html":
        scripts = context["script_files"]
        context["script_files"] = [s for s in scripts if "mathjax/" not in str(s.filename)]


def _empty_icon_script(app: Sphinx, error: Exception | None) -> None:
    """The theme's icons come from a font; its script would let us add icons of our own."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if error is None and script.is_file():
        script.write_text("")


def _list_references(app: Sphinx, error: Exception | None) -> None:
    page = Path(app.outdir) / f"{REFERENCES}.html"
    if error is None and page.is_file():
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace('role="doc-biblioentry"', 'role="listitem"'), encoding="utf-8")
