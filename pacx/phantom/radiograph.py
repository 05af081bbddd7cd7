"""Chest X-rays of phantom patients: smooth shapes, attenuation, xray.

Coordinates: x and y run from -1 to 1, x to the right of the picture (the patient's left), y down.
Every shape is a function of continuous coordinates: any size renders the same anatomy. Fine texture
and noise depend on the size.
A frontal xray is built in three steps: where the organs are, how much each of them absorbs, and
how the detector turns that into grey values.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from pacx.phantom.devices import draw_devices
from pacx.phantom.shapes import blob, blurred, cloud, coordinates, softplus, step, texture
from pacx.phantom.state import PATTERNS, STATES

#: What the picture shows of a state = coupling * state + SLACK * N(0, 1).
#: No teacher sees the slack.
SLACK = 0.45

MASKS = ("lungs", "heart", "bones", "devices", "body")
CHUNK_PIXELS = 131_072  # arrays of half a megabyte stay in the processor's cache


def render_radiographs(
    patients: pd.DataFrame,
    size: int,
    seed: int,
    masks: bool = False,
    coupling: float = 1.0,
    only: np.ndarray | slice = slice(None),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Renders one frontal chest X-ray a patient.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`, optionally with a column
            `pattern` (one of `CHESTX6_CLASSES`) for a disease that only the picture knows.
        size: Pixels a side.
        seed: Seed of the slack, of positioning, exposure and noise. The same patients, size and
            seed give the same bytes.
        masks: Whether to return the exact masks too.
        coupling: How strongly the picture shows the states; 0 = not at all.
        only: Which patients to draw, as they look among all.

    Returns:
        Images `(N, H, W)` uint8, bright = dense, and masks `(N, H, W)` bool by name (`MASKS`,
        True = inside; empty without `masks`). `devices` holds pacemakers, tubes and wires.
    """
    shape = len(patients.iloc[only]), size, size
    images = np.empty(shape, np.uint8)
    drawn = {name: np.empty(shape, bool) for name in MASKS} if masks else {}
    for rows, p, rng in _chunks(patients, size, seed, coupling, stream=12, only=only):
        images[rows], inside = _frontal(p, size, rng)
        for name, mask in drawn.items():
            mask[rows] = inside[name]
    return images, drawn


def render_laterals(patients: pd.DataFrame, size: int, seed: int) -> np.ndarray:
    """Renders crude lateral views `(N, H, W)` uint8: what a frontal-only filter must drop."""
    images = np.empty((len(patients), size, size), np.uint8)
    for rows, p, rng in _chunks(patients, size, seed, 1.0, stream=13):
        images[rows] = _lateral(p, size, rng)
    return images


def _chunks(patients, size: int, seed: int, coupling: float, stream: int, only=slice(None)):
    """Rows, parameters `(B, 1, 1)` to be multiplied with pictures, and a generator of noise."""
    parameters = {k: v[only] for k, v in _draw_parameters(patients, seed, coupling).items()}
    chunk = max(1, CHUNK_PIXELS // size**2)
    for number, start in enumerate(range(0, len(parameters["tilt"]), chunk)):
        rows = slice(start, start + chunk)
        p = SimpleNamespace(
            **{k: v[rows] if v.ndim > 1 else v[rows, None, None] for k, v in parameters.items()}
        )
        yield rows, p, np.random.default_rng([seed, stream, number])


def _draw_parameters(patients: pd.DataFrame, seed: int, coupling: float) -> dict[str, np.ndarray]:
    """Everything that decides a picture except its texture and noise, each `(N,)` float32."""
    rng = np.random.default_rng([seed, 11])
    n = len(patients)
    normal, uniform = lambda: rng.standard_normal(n), lambda: rng.random(n)
    p = {s: coupling * patients[s].to_numpy() + SLACK * normal() for s in STATES}
    p["female"] = patients["sex"].to_numpy() == "F"
    for fact in ("rotation", "pacemaker", "tube", "pneumothorax", "ap_view"):
        p[fact] = patients[fact].to_numpy()
    # how the patient stands, breathes and is exposed
    p["tilt"] = 0.07 * normal()
    p["scale_x"], p["scale_y"] = 1 + 0.06 * normal(), 1 + 0.06 * normal()
    p["shift_x"], p["shift_y"] = 0.06 * normal(), 0.06 * normal()
    p["warp"] = 0.08 * rng.standard_normal((n, 2, 5, 5))
    p["inspiration"] = 0.045 * normal() - 0.04 * p["ap_view"]
    p["build"], p["heart_habitus"], p["heart_angle"] = normal(), normal(), normal()
    p["kilovoltage"], p["exposure"] = normal(), normal()
    if "exposure" in patients:
        p["exposure"] += patients["exposure"].to_numpy()
    p["gamma"] = np.exp(0.22 * normal())
    p["grid_x"], p["grid_y"] = 0.035 * normal(), 0.035 * normal()
    p["noise"] = np.exp(0.5 * normal() - 4.9)
    p["scatter"] = normal()
    p["mottle"] = np.exp(0.3 * normal())
    p["rib_contrast"], p["rib_phase"] = np.exp(0.35 * normal()), uniform()
    p["vessel_phase"], p["vessels"] = 6.28 * uniform(), np.exp(0.25 * normal())
    p["stomach"] = uniform()
    p["effusion_side"] = normal()
    # where focal disease sits
    p["focus_side"] = np.where(uniform() < 0.5, -1, 1)
    p["focus_x"], p["focus_y"] = 0.28 + 0.22 * uniform(), -0.2 + 0.45 * uniform()
    p["focus_size"] = 0.09 + 0.08 * uniform()
    p["air_side"], p["air_depth"] = np.where(uniform() < 0.5, -1, 1), 0.12 + 0.2 * uniform()
    # devices and what lies on the patient
    p["device_side"] = np.where(uniform() < 0.8, 1, -1)
    p["device_x"], p["device_y"] = 0.5 + 0.06 * normal(), -0.5 + 0.05 * normal()
    p["gastric"], p["tube_tip"] = uniform() < 0.4, 0.08 * normal()
    p["wires"] = (uniform() < 0.25 + 0.35 * p["ap_view"]) * 1.0
    for number in range(6):
        p[f"wire_{number}"] = uniform()
    # what belongs to the detector: a letter of lead, the lines of a grid, shutters
    p["marker"] = (uniform() < 0.35 + 0.4 * p["ap_view"]) * 1.0
    p["marker_x"] = 0.72 + 0.16 * uniform()  # an L lies on the patient's left
    p["marker_y"] = -0.88 + 0.25 * uniform()
    p["grid_lines"], p["grid_phase"] = (uniform() < 0.3) * 0.015, 6.28 * uniform()
    p["grid_pitch"] = 18 + 8 * uniform()
    p["shutter_x"], p["shutter_y"] = ((uniform() < 0.2) * 0.15 * uniform() for _ in range(2))
    pattern = patients["pattern"].to_numpy() if "pattern" in patients else np.full(n, "Normal")
    severity = 0.75 + 0.5 * uniform()
    for name, disease in PATTERNS.items():
        p[name] = (pattern == disease) * severity
    p["copd"] = p["copd"] + 2.2 * p["emphysema"]
    return {name: np.asarray(value, np.float32) for name, value in p.items()}


def _frontal(p: SimpleNamespace, size: int, rng: np.random.Generator):
    """Renders a chunk; parameters are `(B, 1, 1)`. Returns uint8 images and the masks."""
    x, y = coordinates(p, size)
    soft = max(0.02, 1.6 / size)
    patchy = texture(len(p.tilt), size, rng, cells=9)
    fine = texture(len(p.tilt), size, rng, cells=38)
    mottle = cloud(len(p.tilt), size, rng)

    # ---- where things are
    spine_x = -0.02 * p.rotation
    middle = spine_x + 0.075 * p.rotation  # what lies in front of the spine swings with rotation
    s = np.abs(x - middle)
    left = step(x - middle, 0.10)
    side = lambda if_left, if_right: if_right + (if_left - if_right) * left  # noqa: E731

    out = np.abs(x - spine_x)
    waist = 0.90 + 0.05 * p.bmi + 0.03 * p.build + 0.22 * step(-0.30 - y, 0.35)
    shoulder = out - 0.22
    edge = np.minimum(waist - out, np.maximum(y + 0.98 - 0.32 * shoulder * shoulder, -shoulder))
    body = step(edge, 0.05)

    lung_half = (0.335 - 0.008 * p.copd + 0.012 * p.build) * side(
        1 - 0.09 * p.rotation, 1 + 0.09 * p.rotation
    )
    u = (s - 0.36) / (lung_half * (1 + 0.18 * y))
    v = (y - 0.06) / (0.80 + 0.012 * p.copd)
    v = v * v
    radius = np.sqrt(u * u + 0.5 * v * (1 + v))
    dome = 0.40 + p.inspiration + 0.045 * p.copd
    arch = (s - 0.28 - 0.03 * p.build) / 0.37
    height = 0.15 - 0.03 * p.copd
    diaphragm = dome + side(0.045, 0.0) + height * arch * arch
    pleura = 0.25 * (1 - radius)  # roughly the distance to the chest wall
    cavity = step(pleura, soft) * step(diaphragm - y, soft)

    magnification = 1 + 0.09 * p.ap_view
    heart_scale = magnification * (1 + 0.06 * p.heart_habitus)
    long_axis = 0.30 * heart_scale * (1 + 0.085 * p.dilation + 0.02 * p.fluid)
    short_axis = 0.22 * heart_scale * (1 + 0.055 * p.dilation + 0.03 * p.hypertrophy)
    short_axis = short_axis * (1 - 0.03 * p.copd)
    angle = 0.62 + 0.09 * p.heart_angle + 0.07 * p.copd - 0.10 * p.dilation
    heart_x = middle + 0.105 + 0.018 * p.dilation
    heart_y = dome - 0.155 - 0.02 * p.dilation
    cos, sin = np.cos(angle), np.sin(angle)
    along = ((x - heart_x) * cos + (y - heart_y) * sin) / long_axis
    across = ((y - heart_y) * cos - (x - heart_x) * sin) / short_axis
    # a thick ventricle rounds the apex and lifts it: the upper left border bulges
    across = across * (1 + (0.16 - 0.11 * p.hypertrophy) * along)
    heart_distance = 0.23 * (1 - np.sqrt(along * along + across * across))
    appendage = 0.085 + 0.016 * p.atrial_load - np.hypot(x - middle - 0.135, y - dome + 0.40)
    heart_distance = np.maximum(heart_distance, appendage)
    heart = step(heart_distance, soft)

    pedicle_half = (0.088 + 0.011 * p.fluid) * magnification + side(0.012, 0.0)
    flare = 0.07 * step(y + 0.1, 0.5) + 0.05 * step(-0.62 - y, 0.25)
    aorta = 0.075 + 0.008 * p.age + 0.006 * p.hypertension
    knob = aorta - np.hypot(x - middle - 0.085, y + 0.33)
    mediastinum_distance = np.maximum(pedicle_half + flare - s, knob)
    mediastinum = step(mediastinum_distance, soft)
    lung = cavity * (1 - heart) * (1 - mediastinum)

    chest = SimpleNamespace(
        x=x, y=y, s=s, side=side, soft=soft, middle=middle, spine_x=spine_x, out=out, dome=dome,
        pleura=pleura, radius=radius, cavity=cavity, heart=heart, lung=lung,
        patchy=patchy, fine=fine,
    )  # fmt: skip

    # ---- how much it absorbs
    blood = 1 - 0.075 * p.anaemia
    lens = 0.55 + 0.45 * step(pleura, 0.13)
    air = 0.40 + 0.022 * p.copd - 0.02 * p.bmi
    tissue = 0.62 + 0.05 * p.bmi + 0.08 * step(y - 0.1, 0.6)
    tissue = tissue + p.female * (0.05 + 0.012 * p.bmi) * blob(s - 0.36, y - 0.28, 0.21, 0.16)
    tissue = tissue * np.sqrt(0.35 + 0.65 * step(edge, 0.4))
    tissue -= cavity * lens * air
    tissue += cavity * np.maximum(heart * 0.33, mediastinum * 0.29) * blood
    below = (1 - step(diaphragm - y, soft)) * step(pleura + 0.2, 0.15)
    tissue += 0.10 * below * blood
    bubble = blob(x - 0.30, y - dome - 0.20, 0.10 + 0.05 * p.stomach, 0.075)
    tissue -= 0.16 * below * step(p.stomach - 0.35, 0.2) * bubble

    vessels, hilum = _vessels(p, s, y, side)
    vessels = vessels * (1 - 0.2 * p.anaemia)
    tissue += cavity * (1 - heart) * 0.10 * blood * hilum * (1 + 0.10 * p.fluid)
    tissue += _diseases(p, chest)
    air_gap = step((x - middle) * p.air_side, 0.02) * p.pneumothorax * lung * step(0.15 - y, 0.25)
    pleural_line = (radius - 1 + p.air_depth * (0.45 + 0.55 * step(-0.25 - y, 0.4))) / 0.045
    outside = step(pleural_line, 1.0) * air_gap
    tissue += air_gap * 0.16 * np.exp(-pleural_line * pleural_line) - 0.14 * outside
    tissue += lung * (1 - outside) * (vessels + 0.012 * fine)

    trachea = step(0.042 - np.abs(x - middle - 0.01 * p.tilt), 0.02) * step(-0.24 - y, 0.06)
    tissue -= 0.10 * trachea
    bones, bone_mask = _bones(p, chest)
    tissue += bones
    devices = draw_devices(p, x, y, middle, dome, soft)
    absorption = tissue * body + devices

    # ---- the xray
    absorption += (p.grid_x * x + p.grid_y * y) * body
    low = 0.05 + 0.05 * p.exposure
    xray = (absorption - low) / (0.95 * np.exp(0.12 * p.kilovoltage))
    veil = 0.45 * np.exp(0.2 * p.scatter)  # scattered radiation blurs a part of the picture
    xray = xray + veil * (blurred(xray, 0.055 * size) - xray)
    coarse = (1 - outside) * np.exp(0.9 * np.tanh(0.28 * (p.fluid + p.inflammation - p.copd)))
    # Wet or infected lungs are coarse, emphysema is smooth, and a pneumothorax has no texture.
    xray = xray + p.mottle * mottle * (0.02 + (0.045 * coarse - 0.02) * lung) * body
    xray = np.clip(xray, 0.0, None)
    xray = xray / np.sqrt(np.sqrt(1 + (xray * xray) ** 2)) * 1.06
    xray = xray**p.gamma
    xray = _on_the_detector(p, xray)
    xray += p.noise * rng.standard_normal(xray.shape, np.float32) * (1.4 - 0.7 * xray)
    xray = blurred(xray, 0.58)
    image = np.clip(xray * 255, 0, 255).astype(np.uint8)
    masks = {
        "lungs": (pleura > 0) & (diaphragm > y) & (heart_distance < 0)
        & (mediastinum_distance < 0) & (edge > 0),
        "heart": (heart_distance > 0) & (edge > 0),
        "bones": bone_mask & (edge > 0),
        "devices": devices > 0.05,
        "body": edge > 0,
    }  # fmt: skip
    return image, masks


def _on_the_detector(p, xray):
    """Grid lines, shutters and the marker L, which do not move with the patient."""
    axis = (np.arange(xray.shape[1], dtype=np.float32) + 0.5) * (2 / xray.shape[1]) - 1
    u, v = axis[None, None, :], axis[None, :, None]
    xray = xray * (1 + p.grid_lines * np.cos(3.1416 * p.grid_pitch * v + p.grid_phase))
    xray = xray * step(1 - p.shutter_x - np.abs(u), 0.02) * step(1 - p.shutter_y - np.abs(v), 0.02)
    stem = np.minimum(0.02 - np.abs(u - p.marker_x), 0.07 - np.abs(v - p.marker_y))
    foot = np.minimum(0.02 - np.abs(v - p.marker_y - 0.05), 0.045 - np.abs(u - p.marker_x - 0.025))
    return xray + 0.5 * p.marker * step(np.maximum(stem, foot), 0.02)


def _vessels(p, s, y, side):
    """Branching lung vessels around the hila, and the hila themselves."""
    hilum_x, hilum_y = s - 0.15, y + side(0.11, 0.06)
    reach = np.sqrt(hilum_x * hilum_x + hilum_y * hilum_y)
    turn = np.arctan2(hilum_y, hilum_x)
    bend = p.vessel_phase + side(0.9, 0.0)
    large = np.cos(8 * turn + 2.2 * np.sin(6 * reach + bend) + bend)
    small = np.cos(19 * turn + 2.5 * np.sin(11 * reach - bend))
    near = step(reach - 0.06, 0.06)
    tree = near * np.maximum(large - 0.25, 0) * np.exp(-4.5 * reach)
    tree += 0.6 * np.maximum(small - 0.35, 0) * np.exp(-3.0 * reach) * np.minimum(4 * reach, 1)
    upper = step(-hilum_y - 0.02, 0.2)
    tree = tree * (0.25 * p.vessels) * (1 + 0.30 * p.fluid * upper - 0.18 * p.copd)
    return tree, blob(hilum_x, hilum_y, 0.075, 0.12)


def _diseases(p, a):
    """What congestion, infection and the ChestX6 patterns add inside the lungs."""
    lung, s, y = a.lung, a.s, a.y
    wet = softplus(p.fluid)
    batwing = blob(s - 0.20, y - 0.02, 0.26, 0.34)
    ridges = np.maximum(1 - 1.6 * np.abs(a.fine), 0)
    added = lung * wet * (0.045 * batwing + 0.05 * (ridges - 0.24) * step(y + 0.3, 0.5))
    level = softplus(0.8 * p.fluid + 0.3 * p.renal + a.side(0.5, -0.5) * p.effusion_side - 0.4)
    surface = a.dome + 0.16 - 0.10 * level - 0.30 * level * np.maximum(s - 0.42, 0)
    added += a.cavity * (1 - a.heart) * 0.24 * step(y - surface, 0.09) * np.minimum(level, 1.5)
    infected = 0.45 * softplus(1.6 * p.inflammation - 1.0)
    focus_x = a.x - a.middle - p.focus_side * p.focus_x
    focus = blob(focus_x, y - p.focus_y, p.focus_size, p.focus_size)
    added += lung * np.minimum(infected, 0.70) * focus * (0.8 + 0.35 * a.patchy)
    if p.ground_glass.any():
        rim = step(a.radius - 0.55, 0.3) * step(y + 0.45, 0.4)
        added += p.ground_glass * lung * rim * (0.13 + 0.13 * a.patchy)
    if p.lobar.any():
        fissure = p.focus_side * (a.x - a.middle) > 0
        lobe = step(y - p.focus_y + 0.16, 0.03) * step(p.focus_y + 0.20 - y, 0.12)
        added += p.lobar * lung * fissure * lobe * (0.15 + 0.05 * a.patchy)
    if p.interstitial.any():
        added += p.interstitial * lung * (0.10 * ridges + 0.05 * batwing + 0.03 * a.patchy)
    if p.cavity.any():
        dx, dy = a.x - a.middle - p.focus_side * 0.34, y + 0.46
        ring = (np.hypot(dx, dy) - 0.085) / 0.035
        infiltrate = blob(dx, dy, 0.20, 0.22) * (0.10 + 0.08 * a.patchy)
        wall = 0.20 * np.exp(-ring * ring) - 0.10 * step(-ring - 0.5, 0.5)
        added += p.cavity * lung * (infiltrate + wall)
    return added


def _bones(p, a):
    """Ribs, clavicles, spine and humeral heads. Returns absorption and the bone mask."""
    s, y, x = a.s, a.y, a.x
    density = 0.13 * p.rib_contrast * (1 - 0.06 * p.age)
    cage = step(a.pleura + 0.05, 0.04) * step(y + 0.82, 0.06) * step(0.62 - y, 0.3)
    cage = cage * step(s - 0.06, 0.04)
    lateral = s - 0.18
    back = (y - lateral * lateral * (0.75 + 0.5 * y)) / 0.148 + p.rib_phase
    front = (y + 0.55 * s) / 0.165 + p.rib_phase * 0.7
    rear_rib = np.clip(1.6 * np.cos(6.2832 * back) - 0.35, 0, 1)
    front_rib = np.clip(1.6 * np.cos(6.2832 * front) - 0.45, 0, 1) * step(s - 0.24, 0.1)
    fade = 0.45 + 0.55 * step(s - 0.3, 0.35)
    ribs = cage * (rear_rib * fade + 0.45 * front_rib * step(0.25 - y, 0.2))
    lift = 0.05 * p.ap_view - 0.03 * p.inspiration
    inner = s - 0.07 - a.side(-0.03, 0.03) * p.rotation
    clavicle_y = -0.60 - lift - 0.20 * inner + 0.10 * np.sin(5.5 * inner)
    clavicle = step(0.03 - np.abs(y - clavicle_y), a.soft)
    clavicle = clavicle * step(inner, 0.02) * step(0.78 - s, 0.03)
    column = np.abs(x - a.spine_x - 0.02 * p.tilt * y) - 0.085
    vertebrae = np.cos(6.2832 * (y / 0.145 + p.rib_phase))
    spine = step(-column, 0.03) * (0.7 + (0.4 + 0.20 * p.renal) * vertebrae)
    humerus = step(0.12 - np.hypot(a.out - 0.90, y + 0.66), 0.04)
    scapula = step(0.05 - np.abs(a.out - 0.70 - 0.12 * y), 0.03)
    scapula = scapula * step(0.32 - np.abs(y + 0.32), 0.1)
    bones = density * (ribs + 1.1 * clavicle + 1.1 * humerus + 0.5 * scapula) + 0.075 * spine
    mask = ((cage > 0.5) & (rear_rib > 0.5)) | (clavicle > 0.5) | (column < 0)
    mask |= humerus > 0.5
    return bones, mask


def _lateral(p, size, rng):
    x, y = coordinates(p, size)
    body = step(0.62 + 0.04 * p.bmi - np.abs(x + 0.1 * y), 0.06)
    lung = step(0.42 - np.hypot(x, 0.62 * (y + 0.12)), 0.05) * step(0.45 - 0.3 * x - y, 0.04)
    heart = step(0.22 + 0.02 * p.dilation - np.hypot(x + 0.17, y - 0.22), 0.04)
    spine = step(0.07 - np.abs(x - 0.42 + 0.25 * y * y), 0.03) * (0.8 + 0.2 * np.cos(45 * y))
    xray = body * (0.72 - 0.42 * lung + 0.3 * lung * heart + 0.14 * spine) + 0.02 * p.exposure
    xray = _on_the_detector(p, xray)
    xray += p.noise * rng.standard_normal(xray.shape, np.float32)
    return np.clip(xray * 255, 0, 255).astype(np.uint8)
