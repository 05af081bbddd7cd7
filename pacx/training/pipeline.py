"""All stages in their order, so that a chapter can start from nothing."""

import pandas as pd

from pacx.run import Run
from pacx.training.distill import VARIANTS, distill
from pacx.training.ecg import train_ecg
from pacx.training.labs import train_labs
from pacx.training.mae import pretrain_mae


def train_encoders(run: Run, *names: str) -> None:
    """Make sure that the run holds these encoders; what is there already is only checked.

    Args:
        run: The run.
        *names: `random`, `mae`, `mae-compared` (the profile's other mask ratio), `mae-continued`
            (the MAE trained on for as many steps as the distillation took) or keys of
            `pacx.training.distill.VARIANTS`.
    """
    pretrain_mae(run)
    if {*names} & {*VARIANTS, "mae-continued"}:
        train_labs(run)
        train_ecg(run)
    for name in names:
        if name in VARIANTS:
            distill(run, name)
        elif name == "mae-compared":
            pretrain_mae(run, name, mask_ratio=run.profile.mae.compared_mask_ratio)
        elif name == "mae-continued":
            history = pd.read_csv(distill(run, "pacx") / "history.csv")
            pretrain_mae(run, name, further_steps=len(history))
