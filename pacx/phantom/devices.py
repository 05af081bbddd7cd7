"""Pacemakers, tubes and monitoring wires on a radiograph."""

from types import SimpleNamespace

import numpy as np

from pacx.phantom.shapes import curve, step


def draw_devices(
    p: SimpleNamespace,
    x: np.ndarray,
    y: np.ndarray,
    middle: np.ndarray,
    dome: np.ndarray,
    soft: float,
) -> np.ndarray:
    """Pacemakers, tubes and monitoring wires: absorption `(B, H, W)`; 0 where there is none."""
    absorption = np.zeros_like(x)
    thin = max(0.007, 0.8 / x.shape[1])
    rows = np.flatnonzero(p.pacemaker.ravel())
    if len(rows):
        q, px, py = _take(p, rows), x[rows] - middle[rows], y[rows]
        side = q.device_side
        can = 0.075 - np.hypot(px - side * q.device_x, 0.9 * (py - q.device_y))
        atrium, apex = (-0.06, -0.40), (0.20, dome[rows] - 0.06)
        lead = np.minimum(
            curve(px, py, (side * q.device_x, q.device_y), (side * 0.16, -0.66), atrium),
            curve(px, py, atrium, (-0.14, dome[rows] - 0.05), apex),
        )
        absorption[rows] += 0.55 * step(can, soft) + 0.40 * step(thin - lead, thin)
    rows = np.flatnonzero(p.tube.ravel())
    if len(rows):
        q, px, py = _take(p, rows), x[rows] - middle[rows], y[rows]
        tip = -0.36 + 0.6 * q.tube_tip
        airway = curve(px, py, (0.02, -1.1), (0.0, -0.8), (0.005, tip))
        gut = curve(px, py, (0.01, -1.1), (-0.03, 0.0), (0.05, dome[rows]))
        gut = np.minimum(gut, curve(px, py, (0.05, dome[rows]), (0.1, 0.62), (0.32, 0.55)))
        absorption[rows] += 0.30 * step(thin * 1.5 - np.where(q.gastric > 0, gut, airway), thin)
    rows = np.flatnonzero(p.wires.ravel())
    if len(rows):
        q, px, py = _take(p, rows), x[rows], y[rows]
        start, end = (-1.1, 1.6 * q.wire_0 - 0.7), (1.1, 1.6 * q.wire_1 - 0.5)
        bend = (1.2 * q.wire_2 - 0.6, 2 * q.wire_3 - 0.8)
        wire = curve(px, py, start, bend, end)
        pad = np.hypot(px - 1.2 * q.wire_4 + 0.6, py - 1.4 * q.wire_5 + 0.6)
        absorption[rows] += 0.14 * step(thin - wire, thin) + 0.20 * step(0.028 - pad, 0.02)
    return absorption


def _take(p, rows):
    return SimpleNamespace(**{name: value[rows] for name, value in vars(p).items()})
