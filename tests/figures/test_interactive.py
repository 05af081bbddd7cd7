"""What readers can move: without a script, with a mouse, with keys, and against the library."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pacx.errors import PacxError
from pacx.figures.attention import embedding_maps, fades
from pacx.figures.cxr import strips
from pacx.figures.interactive import image_slider, losses
from pacx.models.distillation import DistillationLoss, Projections

LABELS = ["dark", "grey", "bright", "brightest"]
FRAMES = np.stack([np.full((8, 16), level, np.uint8) for level in (0, 85, 170, 255)])


@pytest.fixture
def shown(browser, tmp_path):
    """Open a piece from the file system, on a phone."""
    tabs = []

    def show(piece, **options):
        file = tmp_path / "page.html"
        file.write_text(f"<!doctype html><html lang='en'><body>{piece.data}</body>", "utf-8")
        tabs.append(browser.new_page(viewport={"width": 360, "height": 800}, **options))
        asked = []
        tabs[-1].on("request", lambda request: asked.append(request.url))
        tabs[-1].goto(file.as_uri())
        assert not [url for url in asked if not url.startswith(("file:", "data:"))]
        assert tabs[-1].evaluate("document.documentElement.scrollWidth") <= 360
        return tabs[-1]

    yield show
    for tab in tabs:
        tab.close()


def maps():
    places = np.random.default_rng(0).normal(size=(len(FRAMES), 2))
    return embedding_maps({"mae": places, "pacx": -places}, np.arange(len(FRAMES)), "size")


def test_keys_move_the_slider(shown):
    tab = shown(image_slider(FRAMES, LABELS, slider="Light", alt="A grey field.", start=1))
    slider = tab.get_by_label("Light")
    assert slider.get_attribute("aria-valuetext") == "grey"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == tab.text_content("output") == "bright"
    frame, window = (
        tab.locator(part).bounding_box() for part in (".image-slider img", ".image-slider")
    )
    # The third of four pictures, two a row, is the first of the second row.
    assert frame["x"] == pytest.approx(window["x"], abs=0.5)
    assert frame["y"] + frame["height"] / 2 == pytest.approx(window["y"], abs=0.5)


def test_pointing_at_a_patient_shows_the_x_ray(shown):
    plt.close("all")  # of other tests
    tab = shown(
        image_slider(
            FRAMES, LABELS, slider="Patient", alt="X-ray.", figure=maps(), figure_alt="Maps."
        )
    )
    for number in (2, 0):
        tab.locator("svg #dots-pacx use").nth(number).hover(force=True)
        assert tab.text_content("output") == LABELS[number]
    rings = tab.locator("svg circle.here")
    assert rings.count() == 2
    assert not plt.get_fignums()


def test_without_a_script_the_figure_stays_and_the_sliders_go(shown):
    piece = image_slider(
        FRAMES, LABELS, slider="Patient", alt="X-ray.", figure=maps(), figure_alt="M."
    )
    tab = shown(piece, java_script_enabled=False)
    assert tab.get_by_role("img", name="M.").is_visible()
    assert not tab.locator("input").is_visible()
    assert not tab.locator(".image-slider").is_visible()


def test_every_frame_needs_a_label():
    with pytest.raises(PacxError, match="4 frames but 3 labels"):
        image_slider(FRAMES, LABELS[:3], slider="Light", alt="A grey field.")


@pytest.mark.parametrize(
    "moved", [{}, {"temperature": -0.5, "contrastive": 1.5, "regression": 0.4}]
)
def test_losses_are_those_of_the_library(shown, moved):
    start = {"temperature": np.log10(0.1), "contrastive": 0.5, "regression": 1.0} | moved
    rng = np.random.default_rng(1)
    both = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(2, 5, 4))), dim=2)
    xrays, ecgs = both
    cosines = (xrays @ ecgs.T).numpy()
    tab = shown(losses(cosines, 0.1, 0.5, 1.0))
    for name, value in moved.items():
        tab.locator(f"input[name={name}]").fill(str(value))
    library = DistillationLoss(
        start["contrastive"], start["regression"], 10 ** start["temperature"], 0.0, ("ecg",)
    )
    terms = library(Projections(xrays, {"ecg": ecgs}, {"ecg": xrays}), {"ecg": ecgs})
    for name in ("contrastive", "regression", "total"):
        assert float(tab.text_content(f"[data-value={name}]")) == pytest.approx(
            terms[name].item(), abs=0.002
        )
    picks = torch.softmax(torch.tensor(cosines) / 10 ** start["temperature"], 1)
    assert tab.locator("tbody td").first.text_content() == f"{float(picks[0, 0]):.0%}"


def test_losses_without_a_script_show_what_the_script_shows(shown):
    piece = losses(np.random.default_rng(2).uniform(-1, 1, (4, 4)), 0.1, 0.5, 1.0)
    told = dict(re.findall(r'data-value="(\w+)">([^<]+)<', piece.data))
    tab = shown(piece)
    assert {name: tab.text_content(f"[data-value={name}]") for name in told} == told


def test_frames_of_a_fade_end_in_the_maps():
    images, first, second = (np.full((4, 8, 8), level) for level in (128, 0.0, 1.0))
    frames = fades(images.astype(np.uint8), first, second, steps=3)
    assert frames.shape == (3, 16, 24, 3)
    inferno = plt.colormaps["inferno"]
    for frame, value in zip(frames, (0.0, 0.5, 1.0), strict=True):
        expected = 255 * 0.55 * np.array(inferno(value)[:3]) + 0.45 * 128
        np.testing.assert_allclose(frame[0, 0], expected, atol=1.5)


def test_strips_keep_columns_apart():
    images = np.zeros((2, 32, 32), np.uint8)
    removed = torch.full((2, 3, 32, 32), torch.nan)
    strip = strips({"X-ray": images, "kept": removed})
    assert strip.shape == (2, 32, 65, 3)
    assert (strip[:, :, :32] == 0).all()
    assert (strip[:, :, 33:] == (0xC9, 0xD8, 0xEC)).all()
