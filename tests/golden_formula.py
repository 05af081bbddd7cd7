"""Reads golden files: inputs and weights are given as formulas, expected values as numbers.

English stands around the formulas, and may be worded in any way: what is read is found by how it is
built, such as a formula in known names, `t=0..4999`, `b<2` or `alpha=16`.
"""

import ast
import itertools
import json
import math
import operator
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

FOLDER = Path(os.environ.get("PACX_GOLDEN", Path(__file__).parent / "golden"))
MODULUS = 2147483647  # of the pseudo-random formula U, part of its definition in every file
#: The files print nine digits of what was computed in float64, as our side is.
CLOSE = {"atol": 1e-6, "rtol": 1e-6}

NAMES = {
    "sin": np.sin, "cos": np.cos, "exp": np.exp, "sqrt": np.sqrt, "where": np.where, "pi": math.pi,
}  # fmt: skip
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.MatMult: operator.matmul, ast.USub: operator.neg,
    ast.UAdd: operator.pos, ast.Gt: operator.gt, ast.Lt: operator.lt, ast.Eq: operator.eq,
}  # fmt: skip
ARITHMETIC = (
    ast.Constant, ast.Name, ast.Call, ast.Attribute, ast.UnaryOp, ast.BinOp, ast.BoolOp,
    ast.Compare, ast.IfExp, ast.And, ast.expr_context, *OPERATORS,
)  # fmt: skip
TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|[^\W\d]\w*|'\w*'|\*\*|==|\S")
SIGN = re.compile(r"\d|'|\*\*|==|[-+*/@<>(),.]")  # "=" alone, ":" and ";" end a formula


def golden_files(item: str | None = None) -> dict[str, dict]:
    """Contents of the folder's `g*.json` by file name, or of those of one item such as "G3"."""
    files = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(FOLDER.glob("g*.json"))
    }
    return {name: c for name, c in files.items() if item is None or item_of(name) == item}


def item_of(name: str) -> str:
    """Item of a file, such as "G3" of "g3_mae"."""
    return name.split("_")[0].upper()


def uniform(golden: dict, name: str, index: np.ndarray) -> np.ndarray:
    """The formula U of the files: values in (-1, 1), float64."""
    constants = golden["constants"]
    j = np.asarray(index, np.int64) + (zlib.crc32(name.encode()) % 1000) * constants["B"]
    k = ((j * j % MODULUS) * constants["C"] % MODULUS + j * constants["A"] % MODULUS) % MODULUS
    return 2.0 * ((k + 0.5) / MODULUS) - 1.0


class Formula(NamedTuple):
    """An arithmetic formula in a text.

    Attributes:
        name: What stands before its "=", if anything: "x" of "x[n,d]=n*32+d".
        node: The formula.
    """

    name: str
    node: ast.expr


def formulas(golden: dict, text: str, names: set[str]) -> list[Formula]:
    """Every formula in a text: the longest in each run of what formulas are made of.

    A word is part of a formula when it is a function, one of the file's constants or of `names`.
    "[...]" (indices, comments) and "(float32)" are left out; "^" is a power.
    """
    words = {"U", "reshape", "and", "if", "else", *NAMES, *golden["constants"], *names}
    text = re.sub(r"\[[^\]]*\]|\(float\d+\)", "", text).replace("^", "**")
    tokens = list(TOKEN.finditer(text))

    def may_be_part(place: int) -> bool:
        word = tokens[place][0]
        return word in words if word[0].isalpha() else bool(SIGN.match(word))

    found = []
    for is_run, places in itertools.groupby(range(len(tokens)), may_be_part):
        run = list(places)
        pieces = (
            text[tokens[run[first]].start() : tokens[run[first + length - 1]].end()]
            for length in range(len(run), 0, -1)
            for first in range(len(run) - length + 1)
        )
        if is_run and (node := next(filter(None, map(_formula, pieces)), None)):
            name, sign = ("", "", *(token[0] for token in tokens[: run[0]]))[-2:]
            found.append(Formula(name if sign == "=" else "", node))
    return found


def _formula(text: str) -> ast.expr | None:
    """The text as a formula that calculates something with names, if it is one."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    inside = list(ast.walk(node))
    functions = [call.func for call in inside if isinstance(call, ast.Call)]
    is_formula = (
        not isinstance(node, ast.Name)
        and any(isinstance(inner, ast.Name) for inner in inside)
        and all(isinstance(inner, ARITHMETIC) for inner in inside)
        and all(
            function.attr == "reshape"
            if isinstance(function, ast.Attribute)
            else getattr(function, "id", "") in ("U", *NAMES)
            for function in functions
        )
    )
    return node if is_formula else None


def calculate(golden: dict, node: ast.expr, size: int | None = None, **values):
    """Value of a formula.

    Args:
        golden: The file's content.
        node: The formula.
        size: Number of values of a U without index; that of `reshape(...)` when not given.
        values: Of the names in the formula.
    """
    scope = {**NAMES, **golden["constants"], **values}
    shapes = [
        [size.value for size in call.args]
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    ]
    size = math.prod(shapes[0]) if shapes else size

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
            case ast.BoolOp():
                return np.logical_and.reduce([value(inner) for inner in node.values])
            case ast.Compare(ops=[op], comparators=[right]):
                return OPERATORS[type(op)](value(node.left), value(right))
            case ast.IfExp():
                return np.where(value(node.test), value(node.body), value(node.orelse))
            case ast.Call(func=ast.Attribute()):
                return value(node.func.value).reshape([value(a) for a in node.args])
            case ast.Call(func=ast.Name(id="U")):
                name, *index = [value(a) for a in node.args]
                return uniform(golden, name, index[0] if index else np.arange(size))
            case ast.Call():
                return value(node.func)(*[value(a) for a in node.args])

    return value(node)


def evaluate(golden: dict, text: str, size: int | None = None, **values):
    """Value of the longest formula in a text."""
    found = formulas(golden, text, set(values))
    assert found, f"no formula in {text!r}"
    node = max((formula.node for formula in found), key=lambda node: len(ast.dump(node)))
    return calculate(golden, node, size, **values)


def summands(node: ast.expr) -> list[ast.expr]:
    """What a formula adds up."""
    match node:
        case ast.BinOp(op=ast.Add()):
            return summands(node.left) + summands(node.right)
        case ast.BinOp(op=ast.Sub()):
            negative = [ast.UnaryOp(ast.USub(), term) for term in summands(node.right)]
            return summands(node.left) + negative
    return [node]


def count_of(text: str, letter: str) -> int:
    """Number of values of an index: 12 of "l=0..11" or of "l<12"."""
    last, count = re.search(rf"\b{letter} *(?:= *0 *\.\. *(\d+)|< *(\d+))", text).groups()
    return int(count) if last is None else int(last) + 1


def setting(text: str, name: str) -> float:
    """Number after a name: 16 of "alpha=16"."""
    return float(re.search(rf"\b{name} *= *(\d+(?:\.\d+)?)", text)[1])


def axes(*sizes: int) -> list[np.ndarray]:
    """Index arrays that broadcast to `sizes`."""
    return list(np.ogrid[tuple(slice(n) for n in sizes)])


def is_fixed(kind: list[str]) -> bool:
    """Whether a row of 'state' tells of a fixed table, which no formula fills."""
    return any("=False" in word for word in kind)


def formula_weights(golden: dict) -> dict[str, torch.Tensor]:
    """Weights by the file's rule for every name in its 'state', under the file's names, float32.

    Fixed tables are absent.
    """
    constants = golden["constants"]
    special = _special_weights(golden)
    weights = {}
    for name, shape, *kind in golden["state"]:
        if is_fixed(kind):
            continue
        n = math.prod(shape)
        # In pieces: int64 temporaries of a whole layer would cost several times its memory.
        u = np.concatenate(
            [
                uniform(golden, name, np.arange(first, min(first + 2**20, n)))
                for first in range(0, n, 2**20)
            ]
        )
        last = name.rpartition(".")[2]
        if last in special:
            w = calculate(golden, special[last], u=u)
        elif len(shape) > 1:
            w = constants["g"] * math.sqrt(3 / math.prod(shape[1:])) * u
        elif name.endswith("bias"):
            w = constants["bias"] * u
        else:
            w = 1 + constants["norm"] * u
        weights[name] = torch.from_numpy(w.astype(np.float32)).reshape(shape)
    return weights


def _special_weights(golden: dict) -> dict[str, ast.expr]:
    """Formulas in u of the tensors that the file names: of each the next that follows its name."""
    text = golden.get("weights_special", "")
    rules = {}
    for last in {name.rpartition(".")[2] for name, *_ in golden["state"]} - {"weight", "bias"}:
        mentioned = re.search(rf"\b{last}\b", text)
        following = formulas(golden, text[mentioned.end() :], {"u"}) if mentioned else []
        if following:
            rules[last] = following[0].node
    return rules


def assert_close(actual, expected, limits: dict[str, float] = CLOSE, what: str = "") -> None:
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().numpy()
    np.testing.assert_allclose(actual, np.asarray(expected), err_msg=what, **limits)


def assert_stats(values, expected: dict, limits: dict[str, float] = CLOSE, what: str = "") -> None:
    """Compare mean, population std, min, max, l2 and mean absolute value."""
    x = values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    found = {
        "mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max(),
        "l2": np.sqrt((x * x).sum()), "abs_mean": np.abs(x).mean(),
    }  # fmt: skip
    for name, value in expected.items():
        if name in found:
            assert_close(found[name], value, limits, f"{what} {name}")
