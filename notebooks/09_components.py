# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Component analysis and controls
#
# Which part of the method earns the gain, would something much simpler have done as well, and what
# is lost?

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a YAML file: what to run, how big, on which data
runs = "runs"  # folder that holds all runs

# %% tags=["hide-input"]
from pacx.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - what the ECG, the labs, the contrastive and the regression loss each contribute;
# - three controls that could have refuted the method: shuffled pairs, untrained teachers, more
#   steps of MAE;
# - what the encoder forgets during distillation;
# - how to write a claim so that a table of intervals can reject it.
#
# ## Before you start
#
# | concept | why | where |
# |---|---|---|
# | both losses of stage 2 | they are switched off one by one | [chapter 05](05_distillation) |
# | probes, pairs and intervals | the yardstick | [chapter 06](06_clinical_transfer) |
# | few labels | half of the comparison | [chapter 07](07_label_efficiency) |

# %% [markdown]
# ## One change at a time
#
# Every variant starts from the same MAE, sees the same X-rays in the same order and takes the same
# number of steps. One thing differs.

# %% tags=["hide-input"]
from pacx.figures.source import show_source
from pacx.training.distill import VARIANTS, Variant

show_source(Variant)

# %%
import pandas as pd

from pacx.figures.style import name_of
from pacx.figures.tables import show

variants = pd.DataFrame(
    [{"variant": name_of(n), **vars(variant)} for n, variant in VARIANTS.items()]
)
show(variants.assign(modalities=variants["modalities"].map(", ".join)))

# %% [markdown]
# Two more encoders are no distillation at all. *MAE continued* goes on with masked autoencoding
# for exactly as many steps: was it only more training? *MAE, other mask ratio* is the second mask
# ratio of [chapter 02](02_cxr_mae).

# %%
from pacx.training.pipeline import train_side_by_side

models = ["pacx", *[name for name in VARIANTS if name != "pacx"], "mae-continued", "mae-compared"]
train_side_by_side(run, *models)

# %% [markdown]
# ## The paper's component analysis
#
# The same five variants on those of the paper's data sets that this profile has. The paper gives
# one number a cell. Here each has an interval, and you can see how many differences are smaller
# than it.

# %%
from IPython.display import Markdown, display

from pacx.evaluation.transfer import compare_probes, open_benchmark
from pacx.figures.tables import beside_the_paper

parts_of_pacx = ["pacx-ecg", "pacx-labs", "pacx-contrastive", "pacx-regression", "pacx"]
chosen = [n for n in run.profile.benchmarks if n in ("chexchonet", "medmod", "vindr-cxr")]
published_on = [open_benchmark(run, name) for name in chosen]
components = [
    compare_probes(run, dataset, ["mae", *parts_of_pacx], metric=metric)
    for dataset in published_on
    for metric in ("AUROC", "F1")
]
components = pd.concat(components, ignore_index=True).drop(columns=["pooling", "fraction"])
_ = run.save_results("components", components)

# %% tags=["hide-input"]
show(beside_the_paper(components, "components"))

# %% mystnb={"image": {"alt": "Forest plots of the difference from the MAE for each component variant, one panel a benchmark; filled dots are AUROC, hollow dots F1, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.results import forest, forest_panels

gains = components[components["model"] != "mae"]
_ = forest_panels(
    gains, panels="dataset", filled="metric", x_label="difference in score, variant − MAE"
)

# %% [markdown]
# ## Against the truth of phantoms
#
# Phantoms allow a sharper question: the mean over the tasks of *physiology*, with few labels and
# with all, and over those of *anatomy*, which no teacher knows. Each is read from the CLS token
# (filled) and from the mean of the patches (hollow).

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS

few = min(run.profile.label_efficiency.fractions)
outcomes = {
    f"physiology, {few:.0%} of labels": (PHYSIOLOGY_TASKS, few),
    "physiology, all labels": (PHYSIOLOGY_TASKS, 1.0),
    "anatomy, all labels": (ANATOMY_TASKS, 1.0),
}
poolings = {"cls": "CLS token", "mean": "mean of patches"}
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    parts = [
        compare_probes(
            run, phantoms, models, tasks=tasks, fraction=fraction, pooling=pooling
        ).assign(outcome=outcome, read=read)
        for outcome, (tasks, fraction) in outcomes.items()
        for pooling, read in poolings.items()
    ]
    controls = run.save_results("controls", pd.concat(parts, ignore_index=True))
else:
    display(
        Markdown(
            "The rest of this chapter needs the phantoms' true state; on real data it is left out."
        )
    )

# %% mystnb={"image": {"alt": "Three forest plots side by side: difference from the MAE for each variant and control on physiology with few labels, physiology with all labels and anatomy; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(controls, panels="outcome", filled="read")

# %% tags=["hide-input"]
from pacx.evaluation.statistics import difference_of, interval, verdict


def share(row):
    """A variant's gain as a share of PaCX's gain, where the latter is clearly above zero."""
    whole = difference_of(pacx.loc[(row["outcome"], row["pooling"])])
    return f"{row['difference_value'] / whole.value:.0%}" if whole.low > 0 else "–"


if run.is_phantom:
    pacx = controls[controls["model"] == "pacx"].set_index(["outcome", "pooling"])
    summary = pd.DataFrame(
        {
            "outcome": controls["outcome"],
            "read from": controls["read"],
            "variant": controls["model"].map(name_of),
            "gain over MAE [95 %]": [str(difference_of(row)) for _, row in controls.iterrows()],
            "share of PaCX's gain": [share(row) for _, row in controls.iterrows()],
        }
    )
    display(show(summary))

# %% [markdown]
# A share is left out (a dash) where the interval of PaCX's own gain reaches zero.
#
# ## What the controls say
#
# **Shuffled pairs**: every X-ray learns from somebody else's ECG and labs. The losses, the steps
# and the teachers are the same; only the pairing is gone. If this gains as much, the gain is not
# physiology.
#
# **Untrained teachers**: the pairs are right, but the teachers have random weights. A random
# network is still a function of the signal: patients who look alike stay alike. If this gains as
# much, what the teachers had *learned* adds nothing, and the pairs do the work.
#
# **MAE continued**: if this gains as much, it was only more training.

# %% tags=["hide-input"]
questions = {
    "pacx-shuffled": "Shuffled pairs",
    "pacx-untrained": "Untrained teachers",
    "mae-continued": "MAE continued",
}


def measured(model, outcome):
    row = controls.query("model == @model and outcome == @outcome and pooling == 'cls'").iloc[0]
    gain = difference_of(row)
    return f"{outcome}: {gain}, {verdict(gain)}" + (
        f"; {share(row)} of PaCX's gain" if share(row) != "–" else ""
    )


if run.is_phantom:
    lines = ["Gain over the MAE in this run, CLS token:", ""]
    for model, name in {"pacx": "PaCX-MAE", **questions}.items():
        lines.append(
            f"- **{name}**. " + ". ".join(measured(model, o) for o in list(outcomes)[:2]) + "."
        )
    display(Markdown("\n".join(lines)))

# %% [markdown]
# And PaCX-MAE against each control directly, on the same patients: this is what the pairs, the
# teachers' training and the change of objective add.

# %% mystnb={"image": {"alt": "Forest plot of PaCX-MAE minus each control on physiology tasks with few and all labels, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    direct = [
        compare_probes(
            run, phantoms, ["pacx"], tasks=tasks, fraction=fraction, reference=control
        ).assign(row=f"minus {name_of(control)}, {fraction:.0%}")
        for control in questions
        for tasks, fraction in list(outcomes.values())[:2]
    ]
    _ = forest(
        pd.concat(direct, ignore_index=True),
        rows="row",
        x_label="difference in AUROC on physiology, PaCX − control",
    )

# %% [markdown]
# ## What is forgotten
#
# Adapters change the encoder for one purpose. What the MAE had learned beside it may get lost. The
# anatomy tasks measure that, and so does the segmentation of the lungs. The paper looks at
# segmentation only.

# %% tags=["hide-input"]
from pacx.evaluation.transfer import compare_segmentation

if run.is_phantom:
    single = [
        compare_probes(
            run, phantoms, ["pacx", "mae-continued"], tasks=[task], pooling=pooling
        ).assign(outcome=task, read=read)
        for task in ANATOMY_TASKS
        for pooling, read in poolings.items()
    ]
    forgotten = pd.concat(single, ignore_index=True)
    lungs = compare_segmentation(run, open_benchmark(run, "covid-qu-ex"), ["mae", "pacx"])
    iou = lungs.query("metric == 'IoU' and model == 'pacx'").iloc[0]
    lines = [
        f"Lungs, IoU, PaCX-MAE minus MAE: {difference_of(iou)}, {verdict(difference_of(iou))}.",
        "",
    ]
    for _, row in forgotten[forgotten["model"] == "pacx"].iterrows():
        lines.append(
            f"- {row['task']}, {row['read']}: {difference_of(row)}, {verdict(difference_of(row))}"
        )
    display(Markdown("\n".join(lines)))

# %% mystnb={"image": {"alt": "Difference from the MAE on each anatomy task for PaCX-MAE and for the MAE continued, from the CLS token (filled) and the mean of patches (hollow), with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(forgotten, panels="outcome", filled="read")

# %% [markdown]
# ## Claims, and whether they hold
#
# Each claim was written down before the run, with the interval that would reject it.

# %%
from pacx.evaluation.alignment import compare_alignment
from pacx.evaluation.transfer import macro_score


def gain_over_mae(model, outcome):
    return difference_of(
        controls.query("model == @model and outcome == @outcome and pooling == 'cls'").iloc[0]
    )


if run.is_phantom:
    few_labels, all_labels, _ = outcomes
    cosine = {
        target: difference_of(
            compare_alignment(run, ["pacx"], target).query("metric == 'cosine'").iloc[0]
        )
        for target in ("ecg", "labs")
    }
    point, spread = {}, {}
    for model in ("mae", "pacx", "pacx-shuffled"):
        point[model], spread[model] = macro_score(run, phantoms, model, tasks=PHYSIOLOGY_TASKS)
    excess = [
        (s["pacx-shuffled"] - s["mae"]) - 0.25 * (s["pacx"] - s["mae"]) for s in (point, spread)
    ]
    quarter = interval(*excess)
    few_gain, all_gain = gain_over_mae("pacx", few_labels), gain_over_mae("pacx", all_labels)
    lung, more = difference_of(iou), gain_over_mae("mae-continued", all_labels)
    claims = [
        (f"Physiology, {few:.0%} of labels: PaCX − MAE is above zero", few_gain, few_gain.low > 0),
        ("Physiology, all labels: PaCX − MAE is above zero", all_gain, all_gain.low > 0),
        ("Lungs: IoU of PaCX is within 0.01 of MAE's", lung, lung.low > -0.01 and lung.high < 0.01),
        (
            "Alignment, ECG: cosine of PaCX − MAE is above zero",
            cosine["ecg"],
            cosine["ecg"].low > 0,
        ),
        (
            "Alignment, labs: cosine of PaCX − MAE is above zero",
            cosine["labs"],
            cosine["labs"].low > 0,
        ),
        (
            "Shuffled pairs: gain minus a quarter of PaCX's gain is below zero",
            quarter,
            quarter.high < 0,
        ),
        ("MAE continued: its gain is not above zero", more, more.low <= 0),
    ]
    claims = pd.DataFrame(
        [{"claim": text, **e._asdict(), "holds": bool(ok)} for text, e, ok in claims]
    )
    claims = claims.rename(columns={"value": "estimate"})
    run.save_results("claims", claims)
    display(show(claims.assign(holds=claims["holds"].map({True: "yes", False: "no"}))))

# %% [markdown]
# A "no" does not say that the opposite is true. It says that this run, with its patients and its
# size, does not support the claim. One run is also one training seed: the interval covers other
# test patients, not other trainings. The intervals are not corrected for the number of claims, and
# "MAE continued gains nothing" asks only that its interval reaches zero: a small run passes easily.
#
# ## Check it yourself

# %%
from pacx.training.distill import distill

# All variants took the same number of steps, and so did the MAE that went on.
steps = {name: len(pd.read_csv(distill(run, name) / "history.csv")) for name in VARIANTS}
steps["mae-continued"] = len(pd.read_csv(run.artefact("mae-continued") / "history.csv"))
assert len(set(steps.values())) == 1

# The encoders differ: no control is a copy of another.
contents = {(run.artefact(name) / "model.safetensors").read_bytes() for name in ["mae", *models]}
assert len(contents) == len(models) + 1

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
if run.is_phantom:
    held = int(claims["holds"].sum())
    untrained = measured("pacx-untrained", all_labels)
    lost = forgotten[(forgotten["model"] == "pacx") & (forgotten["difference_high"] < 0)][
        "task"
    ].unique()
    display(
        Markdown(
            f"{held} of {len(claims)} claims hold in this run. Untrained teachers, {untrained}. Anatomy tasks with a "
            f"loss below zero in at least one pooling: {', '.join(lost) if len(lost) else 'none'}."
        )
    )
else:
    display(Markdown("See the table of components above; the controls need phantoms."))

# %% [markdown]
# ## Exercises
#
# 1. Suppose untrained teachers gave all of the gain. Would the method be useless?
#
# ```{dropdown} Answer
# No: the encoder would still be better, for nothing but pairs. But the explanation would be wrong.
# It would not be the teachers' knowledge of physiology that is distilled, and one could save their
# training.
# ```
#
# 2. Why is `pacx-shuffled` a better control than "no distillation"?
#
# ```{dropdown} Answer
# It changes one thing. Adapters, losses, augmentation and number of steps are those of PaCX, so
# they cannot explain a difference between the two.
# ```
#
# 3. A claim is rejected with 100 test patients. With 2,000 it holds. Which run is right?
#
# ```{dropdown} Answer
# Both. The small run could not tell, its interval was wide. "Not distinguishable from zero" is not
# "zero".
# ```
#
# ## Next
#
# The encoder has changed. [Chapter 10](10_attention_shift) asks where it looks now.
#
# ## References
#
# The method and its component analysis: {cite:p}`liu2026pacx`. Randomised controls of this kind:
# {cite:p}`adebayo2018sanity`.
