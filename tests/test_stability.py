"""Tests of stability: what judges a run, what survives a kill, what goes back to labelling."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import tomli_w
from ase.io import read
from click.testing import CliRunner
from killed_runs import in_a_child, same

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, HMLPError, OutputExistsError
from ase_hmlp.model_io import load_model, model_hash, save_model
from ase_hmlp.simulate import run_folder
from ase_hmlp.simulate.dynamics import Dynamics
from ase_hmlp.simulate.observables import bonds, shortest_contact
from ase_hmlp.simulate.run import Run
from ase_hmlp.simulate.sweep import POINTS
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.label import label_from_config
from ase_hmlp.training.sections import read_toml
from ase_hmlp.training.stability.config import StabilityConfig, stability_points
from ase_hmlp.training.stability.grid import FRAMES, RECORD, stability_from_config
from ase_hmlp.training.stability.report import FIGURE, TABLE, TEXT
from ase_hmlp.training.stability.watch import CAUGHT, EXTREMES, Watching, read_extremes

STEPS = 60

#: ps between structures that are kept; checkpoints come in the middle of such stretches.
APART = 0.015

#: Bonds of Phase I at 300 K leave these within the first vibrations, now and then.
TIGHT = (0.68, 0.80)

GROWING = (run_folder.LOG, run_folder.TRAJECTORY, EXTREMES, CAUGHT)


def write_config(folder, changes=None, **run):
    """Three hcp molecules across, one point at 60 GPa and 300 K; `run` replaces its keys."""
    settings = {
        "grid": {"phase": ["hcp"], "pressure": [60.0], "temperature": [300.0]},
        "run": {
            "structure": {"atoms": 16},
            "stage": [{"ensemble": "npt", "steps": STEPS}],
            "write": {
                "sample_interval": 5,
                "deviation_interval": 10,
                "frame_interval": 30,
                "checkpoint_interval": 20,
            },
            **run,
        },
        "frames": {"most": 3, "apart": APART},
        "workers": {"workers": 1, "backend": "sequential"},
        **(changes or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "test.toml"
    path.write_text(tomli_w.dumps(settings))
    return path


def shipped(path, threshold=None, **domain):
    """The shipped model with other limits (Å) or another threshold (eV), in a file."""
    model = load_model("h2-pbe")
    errors = dict(model.errors)
    if threshold is not None:
        errors["reliability"] = errors["reliability"] | {"threshold": threshold}
    model = replace(model, domain=replace(model.domain, **domain), errors=errors)
    return save_model(model, path)


def steps_of(config, folder):
    """Bonds, contact and mean deviation of every step, measured by other means."""
    (point,) = stability_points(read_toml(config, StabilityConfig))
    seen = []

    def look(dynamics):
        atoms = dynamics.atoms
        molecules = atoms.calc.molecules
        seen.append((bonds(atoms, molecules)[0], shortest_contact(atoms, molecules)))

    run = Run(point.config, folder, config.parent)
    run.attach(look)
    run.run()
    return np.array([lengths for lengths, _ in seen]), np.array([contact for _, contact in seen])


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """A model so sure of nothing that bonds leave its domain, and a whole test with it."""
    folder = tmp_path_factory.mktemp("tight")
    shipped(folder / "tight.joblib", 1e-5, bond_length=TIGHT)
    config = write_config(folder, model="tight.joblib")
    return config, stability_from_config(config, folder / "whole")


def point_of(folder):
    (point,) = (folder / POINTS).iterdir()
    return point


# ---------------------------------------------------------------- verdicts


def test_a_run_within_the_limits_is_ok(tmp_path):
    config = write_config(tmp_path)
    result = stability_from_config(config, command="hmlp stability test.toml")
    (outcome,) = result.outcomes
    assert outcome.verdict == "ok" and outcome.passed and result.frames == 0
    assert outcome.time_ps == pytest.approx(STEPS * 0.0005)
    lengths, contact = steps_of(config, tmp_path / "again")
    assert (outcome.shortest_bond_A, outcome.longest_bond_A) == pytest.approx(
        (lengths.min(), lengths.max()), abs=1e-8
    )
    assert outcome.shortest_contact_A == pytest.approx(contact.min(), abs=1e-8)
    text = (result.folder / TEXT).read_text()
    assert "1 of 1 points met every criterion" in text
    assert model_hash("h2-pbe") in text and "hmlp stability test.toml" in text and "numpy" in text
    with (result.folder / TABLE).open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["verdict"] == "ok" and float(row["temperature_K"]) == 300.0
    assert (result.folder / FIGURE).stat().st_size > 1000
    assert not (result.folder / FRAMES).exists()


def test_extremes_are_of_every_step(tight, tmp_path):
    """Rows every five steps and at every step outside; between them nothing is missed."""
    config, result = tight
    lengths, contact = steps_of(config, tmp_path / "again")
    rows, outside = read_extremes(point_of(result.folder) / EXTREMES)
    left = ((lengths < TIGHT[0]) | (lengths > TIGHT[1])).any(axis=1)
    due = np.flatnonzero(left | (np.arange(STEPS + 1) % 5 == 0))
    assert left.any() and not left.all()
    np.testing.assert_array_equal(rows["step"], due)
    before = -1
    for row, molecules, step in zip(rows, outside, due, strict=True):
        part = slice(before + 1, step + 1)
        expected = lengths[part].min(), lengths[part].max(), contact[part].min()
        found = row["bond_min_A"], row["bond_max_A"], row["contact_A"]
        assert found == pytest.approx(expected, abs=1e-8)
        now = np.flatnonzero((lengths[step] < TIGHT[0]) | (lengths[step] > TIGHT[1]))
        assert molecules == tuple(now)
        before = step


def test_a_bond_that_leaves_the_domain(tight, tmp_path):
    config, result = tight
    (outcome,) = result.outcomes
    lengths, _ = steps_of(config, tmp_path / "again")
    left = (lengths < TIGHT[0]) | (lengths > TIGHT[1])
    assert outcome.verdict == "bond" and not outcome.passed
    assert outcome.bond_ps == pytest.approx(0.0005 * left.any(axis=1).argmax())
    assert outcome.contact_ps is None and outcome.crash_ps is None
    assert outcome.molecules_outside == left.any(axis=0).sum() > 0
    assert "0 of 1 points met" in (result.folder / TEXT).read_text()


def test_a_contact_shorter_than_any_labelled(tmp_path):
    shipped(tmp_path / "m.joblib", contact=3.0)
    result = stability_from_config(write_config(tmp_path, model="m.joblib"))
    assert result.outcomes[0].verdict == "contact"
    assert result.outcomes[0].contact_ps == 0.0 and result.frames > 0


def test_a_crash_is_a_verdict_and_the_others_go_on(tmp_path):
    """Beyond the limits of bonds the calculator has no energy; at 1 K nothing moves that far."""
    shipped(tmp_path / "m.joblib", bond_length=TIGHT, bond_limits=(0.66, 0.84))
    grid = {"phase": ["hcp"], "pressure": [60.0], "temperature": [1.0, 1500.0]}
    config = write_config(tmp_path, {"grid": grid}, model="m.joblib")
    result = stability_from_config(config)
    cold, hot = result.outcomes
    assert cold.verdict == "ok"
    assert hot.verdict == "crash, bond" and hot.error == "BondStretchError"
    assert 0.0 < hot.bond_ps <= hot.crash_ps == hot.time_ps <= STEPS * 0.0005
    assert "BondStretchError: The bond between atoms" in (result.folder / TEXT).read_text()
    again = stability_from_config(config)
    assert again.already == 2 and again.outcomes == result.outcomes


def test_an_integrator_that_cannot_go_on(tmp_path, monkeypatch):
    advance = Dynamics.advance

    def failing(self, stop):
        if stop == 30:
            raise np.linalg.LinAlgError("Singular matrix")
        advance(self, stop)

    monkeypatch.setattr(Dynamics, "advance", failing)
    (outcome,) = stability_from_config(write_config(tmp_path)).outcomes
    assert (outcome.verdict, outcome.error) == ("crash", "LinAlgError")
    assert outcome.crash_ps == pytest.approx(29 * 0.0005)
    assert "Singular matrix" in outcome.reason


def test_a_start_that_cannot_be_made(tmp_path):
    grid = {"phase": ["hcp"], "pressure": [60000.0], "temperature": [300.0]}
    result = stability_from_config(write_config(tmp_path, {"grid": grid}))
    (outcome,) = result.outcomes
    assert outcome.verdict == "not run" and outcome.reason
    assert outcome.reason in (result.folder / TEXT).read_text()


# ---------------------------------------------------------------- what goes back to labelling


def test_what_trips_can_be_labelled(tight, tmp_path):
    """At most three, some time apart, with the bonds the run had; `hmlp label` takes them."""
    _, result = tight
    frames = list(iterate_structures(result.folder / FRAMES))
    assert 1 < len(frames) == result.frames == result.outcomes[0].frames <= 3
    steps = [int(atoms.info["source"].split("/")[1]) for atoms in frames]
    assert np.diff(steps).min() >= APART / 0.0005
    assert {atoms.info["group"] for atoms in frames} == {"stability"}
    left = [atoms for atoms in frames if atoms.info["trips"] == "bond"]
    assert left
    for atoms in left:
        partner = atoms.arrays["partner"]
        lengths = bonds(atoms, np.column_stack([np.arange(len(atoms)), partner]))[0]
        excess = max(TIGHT[0] - lengths.min(), lengths.max() - TIGHT[1])
        assert atoms.info["excess_A"] == pytest.approx(excess, abs=1e-5) and excess > 0
    settings = {
        "input": [str(result.folder / FRAMES)],
        "output": "labelled.extxyz",
        "calculator": {"kind": "ase", "module": "toy_calculator", "class": "SlowToy"},
        "run": {"workers": 1, "backend": "sequential"},
    }
    (tmp_path / "label.toml").write_text(tomli_w.dumps(settings))
    assert label_from_config(tmp_path / "label.toml").labelled == len(frames)
    labelled = read(tmp_path / "labelled.extxyz", ":")
    assert {atoms.info["group"] for atoms in labelled} == {"stability"}


def test_the_uncertain_are_written_down_the_most_uncertain_first(tmp_path):
    """Above the threshold nothing failed, but something is to be learnt."""
    model = shipped(tmp_path / "m.joblib", threshold=1e-5)
    config = write_config(tmp_path, {"frames": {"apart": 0.005}}, model="m.joblib")
    result = stability_from_config(config)
    (outcome,) = result.outcomes
    assert outcome.verdict == "ok" and outcome.share_uncertain == 1.0
    frames = list(iterate_structures(result.folder / FRAMES))
    assert len(frames) == 3 and {atoms.info["trips"] for atoms in frames} == {"uncertainty"}
    caught = list(iterate_structures(point_of(result.folder) / CAUGHT))
    largest = max(atoms.info["deviation_meV"] for atoms in caught)
    assert largest == pytest.approx(outcome.largest_deviation_meV, abs=1e-5)
    assert largest in [atoms.info["deviation_meV"] for atoms in frames]
    assert load_model(model).uncertainty_threshold == 1e-5


# ---------------------------------------------------------------- killed


def kill_at(step):
    def look(dynamics):
        if dynamics.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return look


def test_killed_again_and_again_it_ends_as_if_it_never_was(tight, tmp_path):
    config, whole = tight
    (point,) = stability_points(read_toml(config, StabilityConfig))
    folder = tmp_path / "killed" / POINTS / point.name
    # What a kill leaves in the middle of a line and of a frame.
    halves = {EXTREMES: "58,0.029,0.1,0.2,", CAUGHT: "16\nLattice="}

    def work(step):
        run = Run(point.config, folder, config.parent)
        Watching(APART)(run)
        run.attach(kill_at(step))
        run.run()

    for step in (3, 18, 33, 47, 59):
        assert os.WTERMSIG(in_a_child(lambda step=step: work(step))) == signal.SIGKILL, step
        for name, half in halves.items():
            with (folder / name).open("a") as stream:
                stream.write(half)
    again = stability_from_config(config, tmp_path / "killed")
    same(folder, point_of(whole.folder), GROWING)
    same(tmp_path / "killed", whole.folder, (FRAMES, FIGURE))
    alike = [
        replace(o, microseconds_per_atom_step=None) for o in (*again.outcomes, *whole.outcomes)
    ]
    assert alike[0] == alike[1]


def test_the_command_killed_from_outside(tight, tmp_path):
    config, whole = tight
    command = [sys.executable, "-m", "ase_hmlp.cli", "stability", str(config)]
    command += ["-o", str(tmp_path / "killed")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path
    )
    while process.poll() is None and not list((tmp_path / "killed").glob(f"{POINTS}/*/{EXTREMES}")):
        time.sleep(0.005)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    result = CliRunner().invoke(main, command[3:])
    assert result.exit_code == 0, result.output
    assert "0 of 1 points met every criterion" in result.stdout
    same(point_of(tmp_path / "killed"), point_of(whole.folder), GROWING)
    text = (tmp_path / "killed" / TEXT).read_text()
    # CliRunner calls the program by another name; the command of the killed process is there too.
    assert f"stability {config} -o {tmp_path / 'killed'}" in text


def test_lammps_is_not_looked_at(tmp_path):
    config = write_config(tmp_path, engine="lammps")
    with pytest.raises(ConfigError, match=r"run.engine: every step is looked at"):
        stability_from_config(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_of_what_there_is(tight, tmp_path):
    config, _ = tight
    with pytest.raises(ConfigError, match="no test of stability"):
        stability_from_config(config, tmp_path / "none", report_only=True)
    (point,) = stability_points(read_toml(config, StabilityConfig))
    folder = tmp_path / "some" / POINTS / point.name

    def work():
        run = Run(point.config, folder, config.parent)
        Watching(APART)(run)
        run.attach(kill_at(7))
        run.run()

    assert os.WTERMSIG(in_a_child(work)) == signal.SIGKILL
    (outcome,) = stability_from_config(config, tmp_path / "some", report_only=True).outcomes
    assert outcome.verdict.endswith("unfinished") and 0.0025 <= outcome.time_ps <= 0.0035
    assert not (folder / run_folder.SUMMARY).exists()


# ---------------------------------------------------------------- configurations


def test_the_shipped_configuration_is_the_grid_of_50_ps():
    config = read_toml(
        files("ase_hmlp.training.configs") / "stability-h2-pbe.toml", StabilityConfig
    )
    points = stability_points(config)
    assert len({p.name for p in points}) == len(points) == 32
    assert {p.pressure for p in points} == {20.0, 60.0, 100.0, 160.0}
    assert {p.temperature for p in points} == {100.0, 300.0, 800.0, 1500.0}
    for point in points:
        (stage,) = point.config.stages
        assert stage.steps * point.config.dynamics.timestep == 50_000.0
        assert stage.method.ensemble == "npt" and point.config.structure.atoms >= 256
        flows = point.phase == "liquid" or point.temperature >= 800.0
        assert stage.method.cell == ("iso" if flows else "full")
        assert stage.start.pressure == point.pressure
        assert stage.start.temperature == point.temperature


def test_another_model_and_time(tmp_path, monkeypatch):
    """The model of the command line is relative to where it is given, not to CONFIG."""
    config = write_config(tmp_path / "configs")
    shipped(tmp_path / "m.joblib", contact=3.0)
    monkeypatch.chdir(tmp_path)
    output = ["stability", "configs/test.toml", "-o", "out", "--time", "0.01"]
    result = CliRunner().invoke(main, [*output, "--model", "m.joblib"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["model"]["sha256"] == model_hash(tmp_path / "m.joblib")
    summary = json.loads((point_of(tmp_path / "out") / run_folder.SUMMARY).read_text())
    assert summary["steps"] == 20
    before = (tmp_path / "out" / TEXT).read_text()
    refused = CliRunner().invoke(main, output)
    assert refused.exit_code == 2 and "another model" in refused.stderr
    with pytest.raises(OutputExistsError, match="stage"):
        stability_from_config(config, "out", model="m.joblib", time=0.02)
    assert (tmp_path / "out" / TEXT).read_text() == before
    assert json.loads((tmp_path / "out" / RECORD).read_text()) == record


def test_a_model_may_move(tmp_path):
    model = shipped(tmp_path / "m.joblib", contact=3.0)
    config = write_config(tmp_path)
    before = stability_from_config(config, model=model, command="one")
    moved = model.rename(tmp_path / "other.joblib")
    after = stability_from_config(config, model=moved, command="two")
    assert after.already == 1 and after.outcomes == before.outcomes
    record = json.loads((after.folder / RECORD).read_text())
    assert record["model"]["name"] == str(moved) and record["commands"] == ["one", "two"]


def test_what_ran_nothing_is_not_noted(tmp_path):
    model = shipped(tmp_path / "m.joblib", contact=3.0)
    config = write_config(tmp_path)
    folder = stability_from_config(config, model=model).folder
    record = (folder / RECORD).read_bytes()
    moved = model.rename(tmp_path / "other.joblib")
    with pytest.raises(OutputExistsError, match="stage"):
        stability_from_config(config, model=moved, time=0.02)
    assert (folder / RECORD).read_bytes() == record
    workers = {"workers": {"workers": 2, "backend": "nowhere"}}
    with pytest.raises(ConfigError):
        stability_from_config(write_config(tmp_path, workers), model=moved)
    assert (folder / RECORD).read_bytes() == record


@pytest.mark.parametrize(
    ("changes", "run", "words"),
    [
        ({"verdicts": 1}, {}, "unknown key 'verdicts'"),
        ({}, {"write": {"sample_interval": 7, "deviation_interval": 7}}, "checkpoint_interval"),
        ({"frames": {"apart": 0.0}}, {}, "frames.apart"),
        ({}, {"model": "missing.joblib"}, "missing.joblib"),
        (
            {"grid": {"phase": ["hcp", "hcp"], "pressure": [60.0], "temperature": [300.0]}},
            {},
            "more than once",
        ),
        ({}, {"stage": [{"ensemble": "npt", "steps": 10}] * 2}, "one stage"),
        ({}, {"stage": {"ensemble": "npt", "steps": 10}}, r"key 'run': stage must be tables"),
        ({}, {"stage": ["npt"]}, r"stage must be tables, each of them \[\[run\.stage\]\]"),
        ({}, {"structure": "hcp"}, r"structure must be a table"),
        ({"frames": {"family": "all"}}, {}, r"frames\.family': 'all' is what tables call"),
    ],
)
def test_what_is_refused(tmp_path, changes, run, words):
    config = write_config(tmp_path, changes, **run)
    with pytest.raises(HMLPError, match=words):
        stability_from_config(config, time=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["test.toml"]
