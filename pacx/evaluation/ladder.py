"""How each model scores, from chance to the true states, and whether phantoms allow a claim."""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS
from pacx.data.datasets import load_dataset
from pacx.data.table import Dataset
from pacx.evaluation.baselines import POOLINGS, readings_of
from pacx.evaluation.statistics import Estimate, difference_of
from pacx.evaluation.teachers import teacher_scores
from pacx.evaluation.transfer import compare_probes
from pacx.phantom.hospital import write_hospital
from pacx.run import Run

GROUPS = {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}
#: Of an acceptance: how far the MAE must be above a linear model, and above random weights. On real
#: X-rays of the same size the first is about 0.03.
ABOVE_PIXELS, ABOVE_RANDOM, AROUND_CHANCE = 0.02, 0.04, 0.02


def ladder(run: Run, dataset: Dataset, models: Sequence[str]) -> pd.DataFrame:
    """AUROC of encoders, baselines and ceilings on the phantoms' tasks.

    Encoders stand there once a pooling and probe, baselines (of `READINGS`) once, read best. The
    network that was trained on all labels has no row with fewer.

    Returns:
        `group` (physiology or anatomy), then the columns of
        `pacx.evaluation.transfer.compare_probes`, the last rows of the teachers themselves.
    """
    encoders = [model for model in models if readings_of(model) == POOLINGS]
    others = [model for model in models if model not in encoders]
    tables = []
    fractions = dict.fromkeys((min(run.profile.label_efficiency.fractions), 1.0))
    for (group, tasks), fraction in product(GROUPS.items(), fractions):
        simpler = [model for model in others if fraction == 1 or model != "supervised"]
        by_encoder = [(encoders, *how) for how in product(POOLINGS, ("converged", "paper"))]
        tables += [
            compare_probes(
                run, dataset, some, tasks=tasks, fraction=fraction, pooling=pooling, probe=probe
            ).assign(group=group)
            for some, pooling, probe in [*by_encoder, (simpler, "best", "converged")]
            if some
        ]
    return pd.concat([*tables, teacher_scores(run, GROUPS)], ignore_index=True)


def acceptance(run: Run) -> pd.DataFrame:
    """Whether a run's phantoms can tell a network from a linear model: only then they bear claims.

    The run holds `mae` and `supervised`; each is read as validation labels say is best. For the
    last criteria the patients of `phantom-truth` are rendered once more with a coupling of 0, so
    that no X-ray shows a state.

    Returns:
        One row a criterion: `criterion`, `value`, `low`, `high`, `wanted`, `holds`. Whether it
        holds is read off the value; the interval says how sure that is.
    """
    dataset = load_dataset("phantom-truth", run.data_root)
    rows = []

    def judge(criterion: str, estimate: Estimate, wanted: str, holds: bool) -> None:
        rows.append(
            {"criterion": criterion, **estimate._asdict(), "wanted": wanted, "holds": bool(holds)}
        )

    for group, tasks in GROUPS.items():
        for model, other, margin in (
            ("mae", "pixels", ABOVE_PIXELS),
            ("mae", "random", ABOVE_RANDOM),
            ("supervised", "pixels", 0.0),
            ("supervised", "mae", 0.0),
        ):
            table = compare_probes(
                run, dataset, [model], tasks=tasks, pooling="best", reference=other
            )
            difference = difference_of(table.iloc[0])
            wanted = f"at least {margin:g}" if margin else "above 0"
            holds = difference.value >= margin if margin else difference.value > 0
            judge(f"{group}: {model} minus {other}", difference, wanted, holds)
    uncoupled = _uncoupled(run)
    for model in ("pixels", "mae"):
        table = compare_probes(
            run, uncoupled, [model], tasks=PHYSIOLOGY_TASKS, pooling="best", reference=model
        )
        row = table.iloc[0]
        judge(
            f"coupling 0, physiology: {model}", Estimate(row["value"], row["low"], row["high"]),
            f"0.5, at most {AROUND_CHANCE:g} off", abs(row["value"] - 0.5) <= AROUND_CHANCE,
        )  # fmt: skip
    return pd.DataFrame(rows)


def _uncoupled(run: Run) -> Dataset:
    """`phantom-truth` of the same size and seed whose X-rays show no state."""
    root = run.folder / "uncoupled"
    settings = run.profile.phantom.model_dump() | {"coupling": 0.0}
    settings["patients"] = {"phantom-truth": settings["patients"]["phantom-truth"]}
    write_hospital(root, **settings)
    return load_dataset("phantom-truth", root)
