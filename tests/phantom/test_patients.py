"""The patients, their labels, their blood tests and their ECGs."""

import numpy as np
import pandas as pd
import pytest

from pacx.constants import (
    ANATOMY_TASKS,
    CHEXPERT_FINDINGS,
    ECG_DIAGNOSES,
    LABS,
    LEADS_MIMIC,
    MEDMOD_PHENOTYPES,
    PHYSIOLOGY_TASKS,
)  # fmt: skip
from pacx.phantom import state
from pacx.phantom.ecg import CRITERIA, diagnoses, ecg_traits, render_ecgs
from pacx.phantom.findings import chexpert_findings, phenotype_labels
from pacx.phantom.labs import PANEL_OF, draw_labs


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    return state.sample_patients(4000, 1)


def test_same_seed_same_patients(patients):
    assert patients.equals(state.sample_patients(4000, 1))
    assert not patients.equals(state.sample_patients(4000, 2))


def test_states_are_about_standard_normal_and_follow_their_equations(patients):
    states = patients[list(state.STATES)]
    assert states.mean().abs().max() < 0.1
    assert (states.std() - 1).abs().max() < 0.08
    assert np.abs(states.cov() - state.state_covariance()).to_numpy().max() < 0.1
    earlier = set()
    for name, equation in state.EQUATIONS.items():
        assert set(equation.parents) <= earlier
        earlier.add(name)


@pytest.mark.parametrize("fact", list(state.FACTS))
def test_view_and_devices_are_as_frequent_and_more_so_in_sicker_patients(fact):
    many, apart = (state.sample_patients(20_000, 5, share) for share in (1.0, 0.0))
    share, weights = state.FACTS[fact]
    error = np.sqrt(share * (1 - share) / 20_000)
    for patients in (many, apart):
        assert patients[fact].mean() == pytest.approx(share, abs=4 * error)
    pd.testing.assert_frame_equal(many[list(state.STATES)], apart[list(state.STATES)])
    if not weights:
        assert many[fact].equals(apart[fact])
        return
    score = sum(weight * many[name] for name, weight in weights.items())
    sicker = score > score.median()
    assert many.loc[sicker, fact].mean() > 1.4 * many.loc[~sicker, fact].mean()
    # Without confounding no state tells of it: 13 correlations of 20,000 patients.
    told = apart[list(state.STATES)].corrwith(apart[fact].astype(float))
    assert told.abs().max() < 4 / np.sqrt(20_000)
    half = state.sample_patients(20_000, 5, 0.5)[fact].astype(float)
    assert 0.2 < np.corrcoef(half, score)[0, 1] / np.corrcoef(many[fact], score)[0, 1] < 0.9


def test_acute_states_move_on_and_chronic_ones_stay():
    before = state.sample_patients(20_000, 6)
    days = np.repeat([0.0, 0.5, 2.0, 30.0], 5000)
    after = state.move_on(before, days, 0.3, np.random.default_rng(0))
    acute = list(state.ACUTE)
    assert after.drop(columns=acute).equals(before.drop(columns=acute))
    assert list(after) == list(before)
    for day in np.unique(days):
        rows = days == day
        for name in acute:
            kept = np.corrcoef(before.loc[rows, name], after.loc[rows, name])[0, 1]
            assert kept == pytest.approx(np.exp(-0.3 * day), abs=4 / np.sqrt(5000)), (name, day)
            assert after.loc[rows, name].std() == pytest.approx(1, abs=0.06)
    assert after.loc[days == 0, acute].equals(before.loc[days == 0, acute])
    still = state.move_on(before, days, 0.0, np.random.default_rng(0))
    pd.testing.assert_frame_equal(still, before)


def test_residual_states_are_what_the_other_states_do_not_predict():
    states = state.sample_patients(20_000, 7)[list(state.STATES)]
    residuals = state.residual_states(states)
    assert list(residuals) == list(state.STATES)
    assert residuals.std().to_numpy() == pytest.approx(1, abs=0.03)
    for name in state.STATES:
        others = states.drop(columns=name)
        assert others.corrwith(residuals[name]).abs().max() < 4 / np.sqrt(20_000), name
        design = np.column_stack([np.ones(len(states)), others])
        left = states[name] - design @ np.linalg.lstsq(design, states[name], rcond=None)[0]
        assert np.corrcoef(left, residuals[name])[0, 1] > 0.999, name


def test_nothing_in_the_picture_tells_of_the_negative_controls():
    """Given the other states, no view or device goes with potassium or conduction."""
    patients = state.sample_patients(50_000, 8)
    residuals = state.residual_states(patients)[["potassium", "conduction"]]
    for fact in (*state.FACTS, "rotation", "age_years", "bmi_value"):
        told = residuals.corrwith(patients[fact].astype(float))
        assert told.abs().max() < 4 / np.sqrt(50_000), fact


def test_residual_states_are_those_of_each_patient_alone(patients):
    everybody = state.residual_states(patients)
    few = state.residual_states(patients.iloc[[7, 3]])
    pd.testing.assert_frame_equal(few, everybody.iloc[[7, 3]])


def test_task_prevalence(patients):
    tasks = state.task_labels(patients, 3)
    assert list(tasks) == [*PHYSIOLOGY_TASKS, *ANATOMY_TASKS]
    assert tasks.isin([0, 1]).all().all()
    assert tasks.mean().between(0.15, 0.24).all()
    assert tasks.equals(state.task_labels(patients, 3))


def test_other_labels(patients):
    phenotypes = phenotype_labels(patients, 3)
    assert list(phenotypes) == list(MEDMOD_PHENOTYPES)
    assert phenotypes.mean().between(0.03, 0.43).all()
    kidney = phenotypes["Chronic kidney disease"] == 1
    assert patients["renal"][kidney].mean() > patients["renal"][~kidney].mean() + 1
    findings = chexpert_findings(patients, 3)
    assert list(findings) == list(CHEXPERT_FINDINGS)
    assert set(np.unique(findings.fillna(9))) == {-1.0, 0.0, 1.0, 9.0}
    assert set(np.unique(chexpert_findings(patients, 3, certain=True))) == {0.0, 1.0}
    echo = state.echo_labels(patients, 3)
    assert (echo["composite_slvh_dlv"] == (echo["slvh"] | echo["dlv"])).all()
    assert echo["ivsd"].between(0.3, 2.0).all()
    assert echo["lvidd"].between(2, 8).all()


def test_labs_are_plausible(patients):
    labs = draw_labs(patients, 3)
    assert labs.shape == (4000, 50)
    assert labs.dtype == np.float32
    assert set(PANEL_OF) == {lab.name for lab in LABS}
    assert np.array_equal(labs, draw_labs(patients, 3), equal_nan=True)
    assert (~np.isnan(labs)).any(axis=1).all()
    for column, lab in enumerate(LABS):
        median = np.nanmedian(labs[:, column])
        width = lab.high - lab.low
        assert lab.low - 0.6 * width < median < lab.high + 0.6 * width, lab
        if lab.name != "Base Excess":
            assert np.nanmin(labs[:, column]) > 0, lab
    value = {lab.name: labs[:, column] for column, lab in enumerate(LABS)}
    ratio = value["Hematocrit"] / value["Hemoglobin"]
    assert np.nanmin(ratio) > 2.6
    assert np.nanmax(ratio) < 3.6
    gas = 6.1 + np.log10(
        (value["Calculated Total CO2"] - 0.0307 * value["pCO2"]) / (0.0307 * value["pCO2"])
    )
    assert np.nanmax(np.abs(gas - value["pH"])) < 0.02


def test_sicker_patients_have_more_labs(patients):
    observed = ~np.isnan(draw_labs(patients, 3))
    gas = observed[:, [lab.name for lab in LABS].index("pH")]
    sick = patients["copd"] + patients["inflammation"] > 1
    assert gas[sick].mean() > gas[~sick].mean() + 0.15
    assert 0.4 < observed.mean() < 0.8


def test_leads_obey_einthoven_and_goldberger(patients):
    ecg = render_ecgs(patients[:40], 100, 5)
    assert ecg.shape == (40, 12, 1000)
    assert ecg.dtype == np.float32
    assert np.isfinite(ecg).all()
    lead = dict(zip(LEADS_MIMIC, ecg.transpose(1, 0, 2), strict=True))
    for left, right in (
        (lead["II"], lead["I"] + lead["III"]),
        (lead["aVR"], -(lead["I"] + lead["II"]) / 2),
        (lead["aVL"], (lead["I"] - lead["III"]) / 2),
        (lead["aVF"], (lead["II"] + lead["III"]) / 2),
    ):
        assert np.abs(left - right).max() < 1e-6
    assert np.array_equal(ecg, render_ecgs(patients[:40], 100, 5))
    assert render_ecgs(patients[:2], 500, 5).shape == (2, 12, 5000)


def test_rate_of_the_ecg_is_the_trait(patients):
    traits = ecg_traits(patients[:200], 5)
    regular = np.flatnonzero(~traits["af"])[:30]
    leads = render_ecgs(patients[:200], 100, 5)[regular]
    # the spectrum's steep slopes only: QRS complexes
    slope = np.abs(np.diff(leads[:, 6:], axis=2)).sum(axis=1)
    peaks = slope > 0.45 * slope.max(axis=1, keepdims=True)
    beats = [1 + (np.diff(np.flatnonzero(row)) > 25).sum() for row in peaks]
    rate = traits["rate"].to_numpy()[regular]
    assert np.corrcoef(beats, rate)[0, 1] > 0.9


def test_diagnoses_come_from_the_ecg_not_from_the_tasks(patients):
    found = diagnoses(patients, 5)
    assert list(found) == list(ECG_DIAGNOSES)
    assert set(CRITERIA) == set(ECG_DIAGNOSES)
    traits = ecg_traits(patients, 5)
    block = (traits["pr"] > CRITERIA["270492004"].limit) & ~traits["af"]
    assert found["270492004"].equals(block)
    assert found.mean().between(0.03, 0.2).all()
    assert not set(ECG_DIAGNOSES.values()) & {*PHYSIOLOGY_TASKS, *ANATOMY_TASKS}
    assert set(state.TASK_STATES.values()).isdisjoint({"conduction", "atrial_load", "potassium"})
    tasks = state.task_labels(patients, 3)
    agreement = np.corrcoef(found.to_numpy().T, tasks.to_numpy().T)[:8, 8:]
    assert np.abs(agreement).max() < 0.45
