"""Reads golden files: inputs and weights are given as formulas, expected values as numbers."""

import ast
import json
import math
import operator
import os
import re
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(os.environ.get("PACX_GOLDEN", Path(__file__).parent / "golden"))
MODULUS = 2147483647  # of the pseudo-random formula U, part of its definition in every file

NAMES = {
    "sin": np.sin, "cos": np.cos, "exp": np.exp, "sqrt": np.sqrt, "where": np.where, "pi": math.pi,
}  # fmt: skip
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.MatMult: operator.matmul, ast.USub: operator.neg,
    ast.Gt: operator.gt, ast.Lt: operator.lt, ast.Eq: operator.eq,
}  # fmt: skip


def read_golden_files() -> list[tuple[str, dict]]:
    """Every `g*.json` of the folder as (item prefix such as "G3", content)."""
    files = []
    for path in sorted(FOLDER.glob("g*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        words = str(content.get("item", "")).split() if isinstance(content, dict) else []
        files.append((words[0] if words else f"none ({path.name})", content))
    return files


def uniform(golden: dict, name: str, index: np.ndarray) -> np.ndarray:
    """The formula U of the files: values in (-1, 1), float64."""
    constants = golden["constants"]
    j = np.asarray(index, np.int64) + (zlib.crc32(name.encode()) % 1000) * constants["B"]
    k = ((j * j % MODULUS) * constants["C"] % MODULUS + j * constants["A"] % MODULUS) % MODULUS
    return 2.0 * ((k + 0.5) / MODULUS) - 1.0


def evaluate(golden: dict, text: str, size: int | None = None, **names):
    """Evaluate one arithmetic formula of a file.

    Args:
        golden: The file's content.
        text: Such as "x[n,d]=U('X',n*32+d)*(1+d/8), float64 then float32". What stands before the
            first "=" and after ", float" is left out; "^" is a power, "[...]" a comment.
        size: Number of values of a U without index; read from `reshape(...)` when not given.
        names: Values of the names in the formula.
    """
    text = re.sub(r"^\s*\w+(\[[^\]]*\])?\s*=(?!=)", "", text)
    text = re.sub(r",? *\(?float(32|64).*$", "", text)
    text = re.sub(r"\[[^\]]*\]", "", text).replace("^", "**").strip()
    if size is None and (shape := re.search(r"reshape\(([\d, ]+)\)", text)):
        size = math.prod(int(n) for n in shape[1].split(","))

    def u(name, index=None):
        return uniform(golden, name, np.arange(size) if index is None else index)

    scope = {"U": u, **NAMES, **golden["constants"], **names}

    def value(node):
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return scope[node.id]
            case ast.UnaryOp():
                return OPERATORS[type(node.op)](value(node.operand))
            case ast.BinOp():
                return OPERATORS[type(node.op)](value(node.left), value(node.right))
            case ast.Compare(ops=[op], comparators=[right]):
                return OPERATORS[type(op)](value(node.left), value(right))
            case ast.Call(func=ast.Attribute(attr="reshape")):
                return value(node.func.value).reshape([value(a) for a in node.args])
            case ast.Call():
                return value(node.func)(*[value(a) for a in node.args])
        raise ValueError(f"{text!r} is not an arithmetic formula")

    return value(ast.parse(text, mode="eval").body)


def axes(*sizes: int) -> list[np.ndarray]:
    """Index arrays that broadcast to `sizes`."""
    return list(np.ogrid[tuple(slice(n) for n in sizes)])


def formula_weights(golden: dict) -> dict[str, torch.Tensor]:
    """Weights by the file's rule for every name in its 'state', under the file's names, float32.

    Fixed tables, which the rule leaves out, are absent.
    """
    constants = golden["constants"]
    special, fixed = {}, []
    for rule in golden.get("weights_special", "").split(";"):
        if match := re.match(r"\s*(?:names ending )?([\w ,/]+): ([\d.]+[*+]u|0)\b", rule):
            special |= dict.fromkeys(re.split(r"[,/ ]+", match[1].strip()), match[2])
        elif "fixed" in rule:
            fixed = re.findall(r"\w*pos_embed", rule)
    weights = {}
    for name, shape, *_ in golden["state"]:
        if name in fixed:
            continue
        n = math.prod(shape)
        # In pieces: int64 temporaries of a whole layer would cost several times its memory.
        u = np.concatenate(
            [
                uniform(golden, name, np.arange(first, min(first + 2**20, n)))
                for first in range(0, n, 2**20)
            ]
        )
        ending = next((e for e in special if name.endswith(e)), None)
        if ending:
            w = evaluate(golden, special[ending], u=u) + np.zeros_like(u)
        elif len(shape) > 1:
            w = constants["g"] * math.sqrt(3 / math.prod(shape[1:])) * u
        elif name.endswith("bias"):
            w = constants["bias"] * u
        else:
            w = 1 + constants["norm"] * u
        weights[name] = torch.from_numpy(w.astype(np.float32)).reshape(shape)
    return weights


def tolerance(text: str) -> dict[str, float]:
    """ "abs 3e-5 + rel 3e-5" to arguments of `np.testing.assert_allclose`."""
    found = dict(re.findall(r"\b(abs|rel) ([\d.]+(?:e[+-]?\d+)?)", text))
    assert found, f"no tolerance in {text!r}"
    return {"atol": float(found.get("abs", 0)), "rtol": float(found.get("rel", 0))}


def assert_close(actual, expected, limits: dict[str, float], what: str = "") -> None:
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().numpy()
    np.testing.assert_allclose(actual, np.asarray(expected), err_msg=what, **limits)


def assert_stats(values, expected: dict, limits: dict[str, float], what: str = "") -> None:
    """Compare mean, population std, min, max, l2 and mean absolute value."""
    x = values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    found = {
        "mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max(),
        "l2": np.sqrt((x * x).sum()), "abs_mean": np.abs(x).mean(),
    }  # fmt: skip
    # The files print seven digits or more: a large sum needs that much relative slack.
    limits = {"atol": limits["atol"], "rtol": max(limits["rtol"], 1e-6)}
    for name, value in expected.items():
        if name in found:
            assert_close(found[name], value, limits, f"{what} {name}")
