"""The distillation loss on golden inputs, in this process or in one of several.

A file of its own so that a new process imports little.
"""

import ast
import math

import numpy as np
import torch
import torch.distributed as dist
from golden_formula import calculate, formulas

from pacx.models.distillation import DistillationLoss, Projections


def modalities_of(variant: str) -> tuple[str, ...]:
    """Teachers of "both" or of "ecg_only"."""
    return ("ecg", "labs") if variant == "both" else (variant.removesuffix("_only"),)


def distillation_inputs(golden: dict) -> dict[str, torch.Tensor]:
    """The file's embeddings, rounded to float32, in float64."""
    nodes, unrounded = {}, set()
    for name, text in golden["inputs"].items():
        for formula in formulas(golden, str(text), {"b", *golden["inputs"]}):
            nodes[name] = formula.node
            if formula.name:  # the file rounds what is built from the base, not the base
                nodes[formula.name] = formula.node
                unrounded.add(formula.name)

    def value(name: str) -> np.ndarray:
        words = {node.id for node in ast.walk(nodes[name]) if isinstance(node, ast.Name)}
        others = {word: value(word) for word in words & set(nodes)}
        exact = calculate(golden, nodes[name], **others)
        return exact if name in unrounded else exact.astype(np.float32).astype(np.float64)

    return {name: torch.from_numpy(value(name)) for name in nodes}


def distillation_terms(
    golden: dict,
    x: dict[str, torch.Tensor],
    modalities=("ecg", "labs"),
    temperature: float | None = None,
    label_smoothing: float | None = None,
    rows: slice = slice(None),
) -> tuple[dict[str, torch.Tensor], DistillationLoss]:
    settings = golden["settings"]
    temperature = settings["temperature"] if temperature is None else temperature
    smoothing = settings["label_smoothing"] if label_smoothing is None else label_smoothing
    loss = DistillationLoss(
        settings["clip_weight"], settings["regression_weight"], temperature, smoothing, modalities
    ).double()
    loss.logit_scale.data.fill_(math.log(1 / temperature))  # float64 all the way
    projections = Projections(
        x["cxr_shared"][rows],
        {m: x[f"{m}_shared"][rows] for m in modalities},
        {m: x[f"{m}_pred"][rows] for m in modalities},
    )
    return loss(projections, {m: x[f"{m}_target"][rows] for m in modalities}), loss


def distill_in_rank(rank: int, world: int, folder: str, golden: dict, variants: list[str]) -> None:
    """One process: write its terms and the gradient averaged over all processes, by variant."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    x = distillation_inputs(golden)
    local = len(x["cxr_shared"]) // world
    rows = slice(rank * local, (rank + 1) * local)
    result = {}
    for variant in variants:
        t = torch.ones(x["cxr_shared"].shape[1], dtype=torch.float64, requires_grad=True)
        terms, _ = distillation_terms(
            golden, x | {"cxr_shared": x["cxr_shared"] * t}, modalities_of(variant), rows=rows
        )
        terms["total"].backward()
        dist.all_reduce(t.grad)  # what DDP does, with the division below
        result[variant] = {name: float(v) for name, v in terms.items()}
        result[f"{variant}_gradient"] = t.grad / world
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
