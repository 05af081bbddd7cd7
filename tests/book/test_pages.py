"""The book as readers meet it: built without a warning, whole, and quiet on the network."""

import re

import pytest
from conftest import PROJECT

from pacx.book.build import toc_pages
from pacx.evaluation.evidence import FOLDER, NOT_GATHERED

PROSE = [*(f"{page}.html" for page in toc_pages(PROJECT)), "genindex.html"]
CHAPTERS = [page for page in PROSE if page.startswith("notebooks/")]
MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    for file in (PROJECT / "pacx").rglob("*.py")
} - {"pacx", "pacx.__main__", "pacx.cli"}
LIBRARY = [f"book/api/{module}.html" for module in sorted(MODULES)]
PAGES = [*PROSE, *LIBRARY]
#: Of the library a room and a module: the others are made from the same template.
BROWSED = [*PROSE, "book/api/pacx.training.html", "book/api/pacx.training.probe.html"]
PARTS = (
    "What you will learn",
    "Before you start",
    "Check it yourself",
    "Summary",
    "Exercises",
    "Next",
)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_there(html, page):
    assert (html / page).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_local_links_and_images_exist(html, page):
    text = (html / page).read_text(encoding="utf-8")
    for address in re.findall(r'(?:href|src)="([^"]+)"', text):
        if re.match(r"(https?|mailto|data|javascript):|#", address):
            continue
        target = (html / page).parent / re.split(r"[?#]", address)[0]
        assert target.exists(), f"{page} links to {address}"


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_from_elsewhere(html, page):
    text = (html / page).read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|img|iframe|source)[^>]+src="(https?:[^"]+)"', text)
    loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="(https?:[^"]+)"', text)
    assert not loaded


def test_pages_are_light(html):
    sizes = {page: (html / page).stat().st_size for page in PAGES}
    assert not {page: size for page, size in sizes.items() if size > 6_000_000}
    assert not {page: sizes[page] for page in LIBRARY if sizes[page] > 150_000}


@pytest.mark.parametrize("page", ["protocol", "limits", "faq", "how_to_read"])
def test_page_that_speaks_of_missing_evidence_says_so(html, page):
    text = re.sub(r"\s+", " ", (html / "book" / f"{page}.html").read_text(encoding="utf-8"))
    assert (NOT_GATHERED in text) == (not FOLDER.is_dir())


def test_first_page_shows_a_patient_and_who_gets_how_far(html):
    text = (html / "book" / "index.html").read_text(encoding="utf-8")
    for figure in ("patient", "ladder"):
        shown = re.search(rf'<img [^>]*src="[^"]*{figure}\.(?:svg|webp)"[^>]*>', text)
        assert re.search(r'alt="[^"]{80,}"', shown.group())
    assert "no table" not in text


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_has_all_its_parts(html, page):
    text = (html / page).read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)<a", text)
    assert not [part for part in PARTS if part not in headings]


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_opens_in_colab_and_binder_and_downloads(html, page):
    text, name = (html / page).read_text(encoding="utf-8"), page.removesuffix(".html")
    assert re.search(rf"colab\.research\.google\.com/github/.+/blob/main/{name}\.ipynb", text)
    assert re.search(rf"mybinder\.org/.+urlpath=lab/tree/{name}\.ipynb", text)
    assert f'href="../_sources/{name}.ipynb"' in text


@pytest.mark.parametrize("page", CHAPTERS)
def test_glossary_terms_carry_their_definition(html, page):
    links = re.findall(r"<a [^>]*glossary\.html#term-[^>]*>", (html / page).read_text("utf-8"))
    assert links
    assert all(re.search(r'title="[A-Z0-9][^"]{10,}\.', link) for link in links)


def test_page_of_a_module_names_its_chapters(html):
    text = (html / "book" / "api" / "pacx.training.probe.html").read_text(encoding="utf-8")
    assert "Called in:" in text
    assert "notebooks/06_clinical_transfer.html" in text
    assert "Example" in text


def test_index_leads_to_chapters(html):
    text = (html / "genindex.html").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        assert f'href="{chapter}#' in text


@pytest.mark.parametrize("page", PAGES)
def test_sidebar_names_every_page(html, page):
    text = (html / page).read_text(encoding="utf-8")
    entries = re.findall(r'<li class="toctree-l1[^"]*"><a [^>]*>([^<]*)</a>', text)
    assert len(entries) >= len(PROSE) - 2
    assert not [e for e in entries if not re.sub(r"[\d.\s]", "", e)]


@pytest.mark.parametrize("page", PAGES)
def test_page_leads_to_what_made_it(html, page):
    footer = (html / page).read_text(encoding="utf-8").partition('class="made-by"')[2]
    footer = footer.partition("</p>")[0]
    assert "run profile smoke, " in footer
    assert "status.html" in footer or page == "book/status.html"


@pytest.mark.parametrize("page", BROWSED)
def test_page_in_a_browser(browser, site, page):
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    asked, failed, said = [], [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("requestfailed", lambda request: failed.append(request.url))
    tab.on("response", lambda r: failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    tab.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(f"{site}/{page}", wait_until="networkidle")

    assert not [url for url in asked if not url.startswith((site, "data:", "blob:"))]
    assert not failed
    assert not said
    broken = "images => images.filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert not tab.eval_on_selector_all("img", broken)
    if tab.query_selector(".math"):
        tab.wait_for_selector("mjx-container")
        assert not tab.query_selector("mjx-merror")

    tab.set_viewport_size({"width": 360, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    beyond = """all => all.filter(one => one.getBoundingClientRect().right > 360
        && !one.closest("pre, mjx-container, .math, .pst-scrollable-table-container, .cell_output"))
        .map(one => one.outerHTML)"""
    assert not tab.eval_on_selector_all(".bd-article :is(p, li, a, h1, h2, h3, dt)", beyond)
    tab.emulate_media(color_scheme="dark")  # the theme follows the machine's
    tab.wait_for_selector("html[data-theme=dark]")
    # axe-core takes no stand on text over several grounds: outputs must have the text's own colour.
    colour = "all => all.map(one => getComputedStyle(one).color)"
    shown = tab.eval_on_selector_all(
        ".cell_output :is(.text_html p, td), .bd-article p:not(figcaption p)", colour
    )
    assert len(set(shown)) <= 1
    tab.close()


@pytest.mark.parametrize("page", BROWSED)
def test_page_is_accessible(browser, site, page):
    """No rule of axe-core is broken, with a mouse or on a phone, in the light or the dark theme."""
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), []
    for theme, width in (("light", 1440), ("dark", 360)):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        tab.goto(f"{site}/{page}", wait_until="networkidle")
        tab.wait_for_selector(f"html[data-theme={theme}]")
        for broken in axe.run(tab).response["violations"]:
            places = [node["target"] for node in broken["nodes"]]
            found.append(f"{theme}, {width} px: {broken['help']}: {places[:3]}")
        tab.close()
    assert not found


def test_every_page_of_the_library_is_accessible_on_a_phone(browser, site):
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), []
    tab = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    for page in LIBRARY:
        tab.goto(f"{site}/{page}")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, page
        broken = axe.run(tab).response["violations"]
        found += [f"{page}: {rule['help']}" for rule in broken]
    tab.close()
    assert not found


@pytest.mark.parametrize("page", ["book/index.html", *CHAPTERS])
def test_everything_can_be_done_with_keys(browser, site, page):
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.goto(f"{site}/{page}", wait_until="networkidle")
    step = """() => {
        const now = document.activeElement, style = getComputedStyle(now);
        if (now === document.body || "reached" in now.dataset) return null;
        now.dataset.reached = "";
        return [now.outerHTML, style.outlineStyle != "none" || style.boxShadow != "none"];
    }"""
    for _ in range(1000):
        tab.keyboard.press("Tab")
        if (found := tab.evaluate(step)) is None:
            break
        what, shows_focus = found
        assert shows_focus, what
    focusable = "a[href], button, input, select, summary, [tabindex='0']"
    missed = """all => all.filter(one => !("reached" in one.dataset) && !one.disabled
        && one.getClientRects().length && one.checkVisibility({visibilityProperty: true}))
        .map(one => one.outerHTML)"""
    assert not tab.eval_on_selector_all(focusable, missed)
    if page in CHAPTERS:
        tab.locator("details.sd-dropdown summary").first.press("Enter")
        assert tab.locator("details.sd-dropdown").first.get_attribute("open") is not None
    tab.close()


def test_dark_page_is_printed_in_the_light_theme(browser, site):
    tab = browser.new_page(color_scheme="dark")
    tab.goto(f"{site}/book/index.html", wait_until="networkidle")
    theme = "document.documentElement.dataset.theme"
    tab.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {theme} }})")
    tab.pdf()
    assert tab.evaluate("printed") == "light"
    assert tab.evaluate(theme) == "dark"
    tab.close()


def test_first_page_is_light(browser, site):
    tab, loaded = browser.new_page(), []
    tab.on("response", lambda r: loaded.append(int(r.headers.get("content-length", 0))))
    tab.goto(f"{site}/book/index.html", wait_until="networkidle")
    assert sum(loaded) < 1_500_000
    tab.close()


@pytest.mark.parametrize("chapter", ["02_cxr_mae", "05_distillation", "11_attention_shift"])
def test_interactive_pages_work_from_the_file_system(browser, html, chapter):
    tab, said = browser.new_page(), []
    tab.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    tab.goto((html / "notebooks" / f"{chapter}.html").as_uri())
    tab.wait_for_selector("mjx-container")
    assert not said
    tab.close()
