"""Pieces that a reader can move: pictures on a slider, and the weights of the losses.

Each is one HTML output with its own script. It asks for nothing else, so it works in the book, from
the file system, in Jupyter and on Colab; its sliders are hidden where no script runs and in print.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from html import escape
from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image
from scipy.special import log_softmax, softmax

from pacx.errors import PacxError
from pacx.figures.style import as_aggregate


def image_slider(
    frames: np.ndarray,
    labels: Sequence[str],
    *,
    slider: str,
    alt: str,
    caption: str = "",
    start: int = 0,
    figure: Figure | None = None,
    figure_alt: str = "",
) -> HTML:
    """Pictures on a slider; with a figure, pointing at one of its dots chooses the picture.

    Args:
        frames: (T, H, W) or (T, H, W, 3) uint8.
        labels: T texts, each what its frame shows.
        slider: What the slider changes.
        alt: What the pictures show.
        caption: How to read them.
        start: Number of the frame that is shown first.
        figure: A figure whose collections with a gid that starts with `dots` have T points each, in
            the order of the frames. It is shown above the slider, and closed.
        figure_alt: What the figure shows.

    Raises:
        PacxError: Frames and labels do not agree in number.
    """
    if len(frames) != len(labels):
        raise PacxError(f"{len(frames)} frames but {len(labels)} labels; give each frame one.")
    above = "" if figure is None else _svg(figure, figure_alt)
    across = int(np.ceil(np.sqrt(len(frames))))
    height, width = frames.shape[1:3]
    # The theme pads pictures on dark pages, which would shift the sheet.
    picture = (
        f'<div class="image-slider" style="width: {16 * width / height:.1f}rem; '
        f'aspect-ratio: {width} / {height}"><img style="width: {100 * across}%; padding: 0" '
        f'alt="{escape(alt)}" src="data:image/jpeg;base64,{_sheet(frames, across)}"></div>'
    )
    moves = (
        f'<div class="moves" hidden><label>{escape(slider)} <input type="range" min="0" '
        f'max="{len(frames) - 1}" value="{start}"></label><output></output>{picture}'
        f"<p>{escape(caption)}</p></div>"
    )
    return _piece("imageSlider", above + moves, labels=list(labels), across=across)


def losses(
    cosines: np.ndarray, temperature: float, contrastive_weight: float, regression_weight: float
) -> HTML:
    """Stage 2's losses of a few pairs, with sliders for temperature and weights.

    One set of cosines serves both losses. The share of the pull is that of the derivatives with
    respect to the cosines of the true pairs, summed over them.

    Args:
        cosines: (N, N), X-ray i with partner j; an example's, no patients'.
        temperature: Where its slider starts, in [0.01, 1].
        contrastive_weight: Where lambda_C starts, in [0, 2].
        regression_weight: Where lambda_R starts, in [0, 2].
    """
    cosines = np.round(cosines, 3)
    n = len(cosines)
    logits = cosines / temperature
    picks, picked = softmax(logits, axis=1).diagonal(), softmax(logits, axis=0).diagonal()
    both_ways = log_softmax(logits, axis=1).diagonal() + log_softmax(logits, axis=0).diagonal()
    contrastive, regression = -both_ways.mean() / 2, 1 - cosines.diagonal().mean()
    pull = contrastive_weight * (2 - picks - picked).mean() / (2 * temperature)
    total = contrastive_weight * contrastive + regression_weight * regression
    rows = "".join(
        f'<tr><th scope="row">X-ray {i + 1}</th>'
        + "".join(f'<td style="--share: {p:.4f}">{p:.0%}</td>' for p in row)
        + "</tr>"
        for i, row in enumerate(softmax(logits, axis=1))
    )
    head = "".join(f'<th scope="col">ECG {j + 1}</th>' for j in range(n))
    value = '<b data-value="{}">{}</b>'.format
    share = pull / (pull + regression_weight) if pull + regression_weight else np.nan
    power = round(float(np.log10(temperature)), 3)
    least = power - 0.05 * np.floor((power + 2) / 0.05)  # so that the start is one of its steps
    text = (
        f'<div class="moves" hidden>'
        f"{_slider('temperature', 'Temperature τ', least, 0, 0.05, power)}"
        f"{_slider('contrastive', 'Weight λ_C', 0, 2, 0.1, contrastive_weight)}"
        f"{_slider('regression', 'Weight λ_R', 0, 2, 0.1, regression_weight)}</div>"
        '<table class="pairs"><caption>How likely each X-ray is to pick each ECG</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>Contrastive loss {value('contrastive', f'{contrastive:.3f}')} nats, regression loss "
        f"{value('regression', f'{regression:.3f}')}, together {value('total', f'{total:.3f}')}. "
        "Share of the contrastive loss in the pull on the true pairs: "
        f"{value('share', '–' if np.isnan(share) else f'{share:.0%}')}.</p>"
    )
    return as_aggregate(_piece("losses", text, cosines=cosines.tolist()))


def _slider(name: str, label: str, low: float, high: float, step: float, value: float) -> str:
    base, _, index = label.partition("_")
    words = f"{base}<sub>{index}</sub>" if index else base
    return (
        f'<label><span>{words}</span> <input type="range" name="{name}" min="{low:.4g}" '
        f'max="{high}" step="{step}" value="{value:.4g}"><output></output></label>'
    )


def _piece(kind: str, content: str, **data: object) -> HTML:
    """Content, style and script; the script shows what is hidden without it."""
    files = resources.files("pacx.figures")
    names = "interactive.css", "interactive.js"
    style, script = (files.joinpath(name).read_text("utf-8") for name in names)
    attributes = "".join(f' data-{k}="{escape(json.dumps(v))}"' for k, v in data.items())
    name = f"pacx-{hashlib.sha256((content + attributes).encode()).hexdigest()[:8]}"
    return HTML(
        f"<style>{style}</style>"
        f'<figure class="pacx-live" id="{name}"{attributes}>{content}'
        "<noscript><p>The sliders need JavaScript.</p></noscript></figure>"
        f"<script>(() => {{{script}"
        f'const root = document.getElementById("{name}"); {kind}(root);'
        'root.querySelector(".moves").hidden = false;})();</script>'
    )


def _sheet(frames: np.ndarray, across: int) -> str:
    """All frames in rows, as one JPEG in base64."""
    count, height, width = frames.shape[:3]
    down = -(-count // across)
    sheet = np.zeros((down * across, *frames.shape[1:]), np.uint8)
    sheet[:count] = frames
    rows = sheet.reshape(down, across, *frames.shape[1:]).swapaxes(1, 2)
    buffer = io.BytesIO()
    picture = Image.fromarray(rows.reshape(down * height, across * width, *frames.shape[3:]))
    picture.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _svg(figure: Figure, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = buffer.getvalue().partition("<svg")[2]
    return f'<svg role="img" aria-label="{escape(alt)}"{svg}'
