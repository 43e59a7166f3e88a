"""Active learning: what is selected, and a whole loop, whatever happens to it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import tomli_w
from ase.io import read, write
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_runs import TESTS, Instead, cold_frames, write_loop
from rich.console import Console
from strategies import Structure, candidates, permutations, rotations, seeds, structures
from toy_calculator import SlowToy, toy_model
from toy_models import hcp, toy_potential

from ase_hmlp import HMLP
from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, LearningError, NotConvergedError, OutputExistsError
from ase_hmlp.model_io import load_model, save_model
from ase_hmlp.parallel import WorkersSection
from ase_hmlp.simulate.build import hcp as supercell_of_hcp
from ase_hmlp.simulate.melt import CrystalOrder
from ase_hmlp.training.append_only import RecordFile, split_frames, split_lines
from ase_hmlp.training.cache import cached
from ase_hmlp.training.commands import _rounds_table
from ase_hmlp.training.evaluate import error_table, predict
from ase_hmlp.training.frames import iterate_structures, read_frames
from ase_hmlp.training.label import structure_digest
from ase_hmlp.training.learn import starts
from ase_hmlp.training.learn.config import ExploreSection, LearnConfig
from ase_hmlp.training.learn.environments import (
    deviations,
    environments,
    frame_of,
    nearest,
    typical_separation,
)
from ase_hmlp.training.learn.explore import explore, route
from ase_hmlp.training.learn.loop import _check_setup, _setup, learn_from_config
from ase_hmlp.training.learn.refit import Errors, _joined, read_training
from ase_hmlp.training.learn.rounds import Round
from ase_hmlp.training.learn.select import uncertainty_threshold, weighted_centres
from ase_hmlp.training.learn.starts import (
    PACKING_CONTACT,
    Start,
    random_packing,
    starting_structures,
    volume_at,
)
from ase_hmlp.training.learn.trajectories import compactness, dynamics, relaxation
from ase_hmlp.training.sections import read_toml

ROOT = TESTS.parent

#: Half of what a candidate's environments are apart from each other.
SEPARATION = 0.5


def hmlp(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


# ---------------------------------------------------------------- selection


@given(candidates(), st.integers(0, 10))
def test_budget_is_kept_and_none_chosen_twice(data, n):
    chosen, distance = weighted_centres(*data, SEPARATION, n)
    assert len(chosen) == len(distance) <= n
    assert len(set(chosen.tolist())) == len(chosen)
    assert (distance > SEPARATION).all()


@given(candidates(), st.integers(1, 10), seeds)
def test_duplicates_are_never_chosen(data, n, seed):
    """Of copies of a frame one is chosen, of what is known none."""
    frames, weights, known = data
    rng = np.random.default_rng(seed)
    copies = [frames[k][rng.permutation(len(frames[k]))] for k in range(len(frames))]
    old = known[rng.permutation(len(known))]
    everything = [*frames, *copies, old]
    uncertain = [*weights, *(np.ones(len(c)) for c in copies), np.full(len(old), 1e3)]
    chosen, _ = weighted_centres(everything, uncertain, known, 0.0, n)
    originals = chosen % len(frames)
    assert 2 * len(frames) not in chosen
    assert len(set(originals.tolist())) == len(chosen)
    assert len(chosen) == min(n, len(frames))


@given(candidates(), st.integers(1, 10))
def test_chosen_frames_differ_from_all_before(data, n):
    """By brute force: an atom of each is farther than the separation from what came before."""
    frames, _, known = data
    chosen, distance = weighted_centres(*data, SEPARATION, n)
    before = known
    for k, reach in zip(chosen, distance, strict=True):
        far = np.linalg.norm(frames[k][:, None] - before, axis=2).min(axis=1)
        # Distances to many points come from squares of up to 1e2: 1e-7 is their rounding.
        assert far.max() == pytest.approx(reach, abs=1e-6)
        before = np.vstack([before, frames[k]])
    if len(chosen) < n:  # and none that is left does
        for frame in frames:
            assert np.linalg.norm(frame[:, None] - before, axis=2).min(axis=1).max() <= SEPARATION


@given(candidates(), seeds)
def test_the_outlier_comes_first(data, seed):
    frames, weights, known = data
    outlier = np.random.default_rng(seed).normal(size=(1, 3)) + 100.0
    k = seed % (len(frames) + 1)
    frames, weights = frames.copy(), weights.copy()
    frames.insert(k, outlier)
    weights.insert(k, np.array([0.5]))  # as uncertain as others
    chosen, _ = weighted_centres(frames, weights, known, SEPARATION, 1)
    assert chosen.tolist() == [k]


def test_of_equally_new_frames_the_more_uncertain_comes_first():
    frames = [np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]]), np.array([[1.0, 0.0]])]
    weights = [np.array([0.1]), np.array([0.3]), np.array([0.2])]
    chosen, distance = weighted_centres(frames, weights, np.zeros((1, 2)), 0.5, 3)
    assert chosen.tolist() == [1, 2, 0]
    assert distance == pytest.approx(1.0)
    assert weighted_centres(frames, weights, np.zeros((0, 2)), 0.5, 1)[0].tolist() == [1]


@given(candidates(), seeds)
def test_selection_does_not_hang_on_the_order_of_candidates(data, seed):
    frames, weights, known = data
    order = np.random.default_rng(seed).permutation(len(frames))
    chosen, _ = weighted_centres(*data, SEPARATION, 4)
    again, _ = weighted_centres(
        [frames[k] for k in order], [weights[k] for k in order], known, SEPARATION, 4
    )
    assert order[again].tolist() == chosen.tolist()


def test_nothing_to_select_from():
    chosen, distance = weighted_centres([], [], np.zeros((3, 2)), 1.0, 5)
    assert len(chosen) == len(distance) == 0


def test_threshold_is_the_uncertainty_on_the_training_frames(tmp_path):
    write(tmp_path / "a.extxyz", cold_frames(6))
    frames, model = read_frames(tmp_path / "a.extxyz"), toy_model()
    largest = sorted(deviations(model.potential, f).max() for f in frames if f.group == "cold")
    assert uncertainty_threshold(model, frames, ["test"], 1.0) == pytest.approx(largest[-1])
    assert uncertainty_threshold(model, frames, ["test"], 0.5) == pytest.approx(np.median(largest))
    # Families that are always fitted count if there are no others.
    assert uncertainty_threshold(model, frames, ["test", "cold"], 1.0) >= largest[-1]


# ---------------------------------------------------------------- environments


@given(structures(max_molecules=4, pbc=(True, True, True)), st.data())
def test_environments_are_those_of_the_atoms_and_of_nothing_else(structure, data):
    """Turned structures look the same; renumbered ones too, atom by atom."""
    potential = toy_potential()
    whole = frame_of(structure.positions, structure.cell, structure.molecules)
    seen = environments(potential, whole)
    q = data.draw(rotations())
    turned = frame_of(structure.positions @ q, structure.cell @ q, structure.molecules)
    # Fingerprints are sums of up to hundreds of terms of order one.
    np.testing.assert_allclose(environments(potential, turned), seen, atol=1e-9)
    order = data.draw(permutations(len(structure)))
    molecules = np.argsort(order)[structure.molecules]
    molecules = molecules[data.draw(permutations(len(molecules)))]
    renumbered = frame_of(structure.positions[order], structure.cell, molecules)
    np.testing.assert_allclose(environments(potential, renumbered), seen[order], atol=1e-9)


def test_environments_are_what_the_kernel_sees_of_the_molecule():
    """Compressed fingerprints and the bond length in its width, the same for both atoms."""
    potential = toy_potential()
    atoms = hcp(3.0, (2, 1, 1), seed=1, bond_spread=0.12)
    frame = frame_of(atoms.positions, atoms.cell.array, np.arange(8).reshape(-1, 2))
    regressor = potential.environment.regressor
    seen = environments(potential, frame)
    assert seen.shape == (8, len(regressor.transform) + 1)
    np.testing.assert_array_equal(seen[::2], seen[1::2])
    structure = Structure.of(atoms)
    level = potential.environment
    v, _ = oracle.environment_fingerprints(level.basis, potential.stretch, structure, level.overlap)
    _, _, lengths = oracle.molecules_of(structure)
    held = potential.stretch.r0 + oracle.held_stretch(potential.stretch, lengths)
    assert np.abs(held - lengths).max() > 0.005
    expected = np.column_stack([v @ regressor.transform.T, held / regressor.stretch_width])
    np.testing.assert_allclose(seen[::2], expected, rtol=0, atol=1e-7)
    rigid = toy_potential(stretch_width=0.0)
    assert environments(rigid, frame).shape == (8, len(regressor.transform))
    # The other levels have no part in it.
    np.testing.assert_array_equal(environments(replace(potential, pair=None), frame), seen)
    with pytest.raises(ValueError, match="without an environment level"):
        environments(replace(potential, environment=None), frame)


def test_typical_separation_is_that_of_different_frames():
    """Atoms of one frame coincide; frames are 3 apart, on a line."""
    frames = [np.full((4, 2), 3.0 * k) / np.sqrt(2.0) for k in range(5)]
    assert typical_separation(frames) == pytest.approx(3.0)
    assert nearest(np.array([[0.0, 4.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])) == pytest.approx(3.0)


# ---------------------------------------------------------------- exploration


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=7, unique=True),
    st.lists(st.integers(1, 3000), min_size=1, max_size=6, unique=True),
)
def test_the_route_visits_every_point_once_in_small_steps(pressures, temperatures):
    points = route(pressures, temperatures)
    assert sorted(points) == sorted((p, t) for p in pressures for t in temperatures)
    ranks = [sorted(pressures).index(p) for p, _ in points]
    steps = np.abs(np.diff([*ranks, ranks[0]]))
    assert steps.max() <= (1 if len(temperatures) > 1 else 2)


@settings(max_examples=10)
@given(seeds, st.sampled_from([2, 3, 8, 24]), st.sampled_from([1.5, 2.5, 6.0]))
def test_random_packings_have_room_for_their_molecules(seed, n, volume):
    atoms = random_packing(n, volume, 0.75, np.random.default_rng(seed))
    assert len(atoms) == n + n % 2 and atoms.pbc.all()
    assert atoms.get_volume() / len(atoms) >= volume * (1 - 1e-9)
    frame = frame_of(atoms.positions, atoms.cell.array, np.arange(len(atoms)).reshape(-1, 2))
    assert frame.shortest_contact >= PACKING_CONTACT
    np.testing.assert_allclose(np.linalg.norm(frame.bond_vectors(), axis=1), 0.75)
    again = random_packing(n, volume, 0.75, np.random.default_rng(seed))
    assert (again.positions == atoms.positions).all()


def test_compactness_is_that_of_the_lattice():
    """Whatever vectors it is given by: 1 for a cube, a quarter for one four times as flat."""
    assert compactness(3.0 * np.eye(3)) == pytest.approx(1.0)
    assert compactness([[3.0, 0, 0], [30.0, 3.0, 0], [-9.0, 6.0, 3.0]]) == pytest.approx(1.0)
    flat = np.diag([2.0, 2.0, 0.25])
    assert compactness(flat) == pytest.approx(0.25)


def test_volume_of_a_packing_is_that_of_the_nearest_pressure(tmp_path):
    write(tmp_path / "a.extxyz", cold_frames(5))
    frames = read_frames(tmp_path / "a.extxyz")
    for frame in frames:
        pressure = -frame.stress[:3].mean() * 160.21766208
        assert volume_at(frames, pressure) == pytest.approx(frame.volume / frame.n_atoms)
    bare = [replace(f, stress=None) for f in frames]
    assert volume_at([*bare, frames[2]], 1e4) == pytest.approx(frames[2].volume / 8)


SETTINGS = ExploreSection(
    pressures=[30.0],
    temperatures=[300.0],
    ramp=0.005,
    hold=0.02,
    snapshots=5,
    relaxation_steps=15,
)
CRYSTAL = Start("hcp", hcp(3.0, (2, 1, 1), seed=5))


@pytest.fixture(scope="module")
def relaxed():
    return relaxation(toy_model(), CRYSTAL, 30.0, 3.0, SETTINGS, 0)


def held(relaxed, temperature=300.0, rigid=False, compact=0.5, **domain):
    """Dynamics after the relaxation."""
    point = (30.0, temperature)
    return dynamics(toy_model(**domain), relaxed, point, rigid, compact, SETTINGS, 7)


def test_tours_pass_by_what_is_left_out(tmp_path):
    grid = {"pressures": [30.0, 40.0], "temperatures": [200.0, 300.0]}
    one = {"leave_out": [(40.0, 300.0)], "run": WorkersSection(workers=1)}
    settings = SETTINGS.model_copy(update=grid | one)
    write(tmp_path / "some.extxyz", cold_frames(1))
    frames = read_frames(tmp_path / "some.extxyz")
    found = explore(tmp_path, toy_model(), [CRYSTAL], frames, settings, 3, 1, lambda *_: None)
    visited = [(t.pressure, t.temperature) for t in found]
    assert sorted(visited) == [(30, 0), (30, 200), (30, 300), (40, 0), (40, 200)]


def test_a_run_leaves_snapshots_and_an_end_to_go_on_from(relaxed):
    run = held(relaxed)
    assert relaxed.trip is None and relaxed.goes_on and len(relaxed) == 5
    assert run.trip is None and run.goes_on
    # 50 steps of 0.5 fs, five snapshots, the last of them the end.
    assert run.steps.tolist() == [10, 20, 30, 40, 50]
    assert run.name == "hcp/30GPa-300K" and relaxed.name == "hcp/30GPa-relaxed"
    frame = run.frame(4)
    np.testing.assert_allclose(run.deviations[4], deviations(toy_potential(), frame), rtol=1e-9)
    assert (run.atoms(4).arrays["partner"] == [1, 0, 3, 2, 5, 4, 7, 6]).all()
    # Continued: the same atoms, ramped from 300 K; the same twice.
    on = [
        dynamics(toy_model(), run, (40.0, 500.0), False, 0.5, SETTINGS, 8).positions
        for _ in range(2)
    ]
    assert (on[0] == on[1]).all()
    assert np.abs(on[0][0] - run.positions[-1]).max() < 0.5


def test_cells_of_packings_keep_their_shape(relaxed):
    free, kept = held(relaxed), held(relaxed, rigid=True)

    def shape(cells):
        return cells / np.cbrt(np.linalg.det(cells))[:, None, None]

    for run, varies in ((free, True), (kept, False)):
        assert (np.ptp(shape(run.cells), axis=0).max() > 1e-6) == varies
        assert np.ptp(np.linalg.det(run.cells)) > 0


@pytest.mark.parametrize(
    "domain, kind, sentence",
    [
        ({"bond_length": (0.739, 0.741)}, "bond", "The bond between atoms"),
        ({"contact": 1.3}, "contact", "of different molecules are"),
        ({"contact": 1.3, "contact_limit": 1.3}, "contact", "energies mean nothing"),
        ({"bond_length": (0.70, 0.80), "bond_limits": (0.70, 0.80)}, "bond", "Å long"),
    ],
)
def test_dynamics_ends_where_it_leaves_the_domain(relaxed, domain, kind, sentence):
    """Every warning and error of the calculator about bonds and contacts is recognised."""
    hot = held(relaxed, temperature=3000.0, **domain)
    assert hot.trip.kind == kind and sentence in hot.trip.sentence
    assert not hot.goes_on and 0 < len(hot) <= 6
    assert hot.steps[-1] < 50
    # Where it tripped there is an energy, and the structure is outside, or the last before.
    frame = hot.frame(-1)
    bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
    if "bond_limits" not in domain and "contact_limit" not in domain:
        low, high = domain.get("bond_length", (0.0, 9.0))
        outside = bonds.min() < low or bonds.max() > high
        assert outside or frame.shortest_contact < domain.get("contact", 0.0)


def test_a_relaxation_goes_on_through_what_has_an_energy():
    relaxed = relaxation(toy_model(contact=2.0), CRYSTAL, 30.0, 3.0, SETTINGS, 0)
    assert relaxed.trip.kind == "contact" and relaxed.goes_on and len(relaxed) == 5
    hopeless = relaxation(
        toy_model(contact=2.0, contact_limit=1.99), CRYSTAL, 30.0, 3.0, SETTINGS, 0
    )
    assert hopeless.trip.kind == "contact" and not hopeless.goes_on


def test_a_squashed_cell_ends_a_run(relaxed):
    run = held(relaxed, compact=3.0)
    assert run.trip.kind == "cell" and not run.goes_on


def test_phase_one_keeps_its_random_orientations():
    """Scaled to the pressure: its molecules point anywhere, as another seed's do elsewhere."""
    runs = [relaxation(toy_model(), Start("hcp"), 30.0, 3.0, SETTINGS, seed) for seed in (1, 1, 2)]
    axes = []
    for run in runs:
        assert len(run) == 1 and run.trip is None and run.goes_on
        assert len(run.positions[0]) >= SETTINGS.atoms
        bonds = run.frame(0).bond_vectors()
        axes.append(bonds / np.linalg.norm(bonds, axis=1)[:, None])
        atoms = run.atoms(0)
        atoms.calc = HMLP(toy_model(), threads=1)
        pressure = -atoms.get_stress()[:3].mean() * 160.21766208
        assert pressure == pytest.approx(30.0, abs=0.01)
    assert np.abs(axes[0] - axes[1]).max() < 1e-9
    assert np.abs(axes[0] - axes[2]).max() > 0.5
    assert not Start("hcp").flows and Start("liquid").flows and Start("random-0").flows


def test_liquids_are_melted():
    settings = SETTINGS.model_copy(update={"atoms": 48, "temperatures": [600.0, 900.0]})
    run = relaxation(load_model("h2-pbe"), Start("liquid"), 30.0, 2.5, settings, 3)
    assert len(run) == 1 and run.trip is None and run.goes_on
    atoms = run.atoms(0)
    crystal = supercell_of_hcp(48)
    order = CrystalOrder(crystal, np.arange(len(crystal)).reshape(-1, 2))
    assert order(crystal) == pytest.approx(1.0) and order(atoms) < 0.25


def test_a_liquid_that_does_not_melt_is_no_start(monkeypatch):
    def never(*_):
        raise NotConvergedError("The crystal did not melt.")

    monkeypatch.setattr(starts, "liquid", never)
    run = relaxation(toy_model(), Start("liquid"), 30.0, 3.0, SETTINGS, 3)
    assert run.trip.sentence == "The crystal did not melt." and not run.goes_on and len(run) == 1


# ---------------------------------------------------------------- a whole loop


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """One round, and then another: folder, result, the stages told, the structures labelled."""
    folder = tmp_path_factory.mktemp("learn")
    log, stages = folder / "log", []
    changes = {"label": {"calculator": {"arguments": {"log": str(log)}}}, "stop": {"rounds": 1}}
    learn_from_config(write_loop(folder, changes))
    config = write_loop(folder, {**changes, "stop": {"rounds": 2}})
    result = learn_from_config(config, progress=lambda *told: stages.append(told))
    return config, result, stages, log.read_text().splitlines()


def test_a_loop_finds_labels_and_fits(loop):
    config, result, stages, labelled = loop
    assert result.folder == config.with_suffix("") and len(result.rounds) == 2
    assert "All 2 rounds are done" in result.reason
    known = 16  # of the 20 frames four are held out
    for r in result.rounds:
        folder = result.folder / f"round-{r.number:02d}"
        selected = read(folder / "selected.extxyz", ":")
        frames = read(folder / "labelled.extxyz", ":")
        assert r.selected == r.labelled == len(selected) == len(frames) == 6
        assert r.training_frames == known
        # In the order they were selected, with the labels of the calculator, in a family.
        for chosen, frame in zip(selected, frames, strict=True):
            assert frame.info["label_id"] == structure_digest(chosen)
            truth = chosen.copy()
            truth.calc = SlowToy()
            # What was labelled is what the file says: eight digits after the point.
            assert frame.get_potential_energy() == pytest.approx(
                truth.get_potential_energy(), abs=1e-12
            )
            assert frame.info["group"] == "learned"
            assert frame.info["source"].startswith(f"round-{r.number:02d}/")
        assert r.before.energy > r.fitted.energy and r.before.force > r.fitted.force
        known += 6
        model = load_model(folder / "model" / "toy.joblib")
        assert model.training["frames"] == known
    assert result.model == result.folder / "round-02" / "model" / "toy.joblib"
    assert len(labelled) == 12 and len(set(labelled)) == 12
    assert {name for name, *_ in stages} >= {
        "rounds",
        "relaxations",
        "dynamics",
        "selection",
        "labelling",
        "design matrix",
    }
    assert stages[-1] == ("rounds", 2, 2)
    assert [t for t in stages if t[0] == "dynamics"][-1] == ("dynamics", 8, 8)


def test_errors_are_those_of_the_potential_that_found_the_frames(loop):
    _, result, *_ = loop
    frames = read_frames(result.folder / "round-02" / "labelled.extxyz")
    models = [load_model(result.folder / f"round-{n:02d}" / "model" / "toy.joblib") for n in (1, 2)]
    last = result.rounds[-1]
    for model, errors in zip(models, (last.before, last.fitted), strict=True):
        row = error_table(predict(model.potential, frames))[-1]
        assert errors.energy == pytest.approx(row.energy_mae)
        assert errors.force == pytest.approx(row.force_mae)
        assert errors.pressure == pytest.approx(row.pressure_mae)
    rows = models[1].errors["levels"]["all"]
    assert [row["group"] for row in rows] == ["test", "all"]
    assert last.held_out.force == pytest.approx(rows[0]["force_mae"])
    assert last.held_out_before == result.rounds[0].held_out


def test_the_threshold_is_the_first_potentials_and_stays(loop):
    config, result, *_ = loop
    training = read_training(read_toml(config, LearnConfig).train, config.parent)
    first = load_model(result.folder / "round-00" / "model" / "toy.joblib")
    frames = [f for f in training.frames if f.group == "cold"]
    expected = uncertainty_threshold(first, frames, [], 0.99)
    assert [r.threshold for r in result.rounds] == pytest.approx([expected] * 2)


def test_reports_say_what_happened(loop):
    _, result, *_ = loop
    for r in result.rounds:
        folder = result.folder / f"round-{r.number:02d}"
        text = (folder / "report.md").read_text()
        assert f"# Round {r.number}" in text
        assert f"{r.uncertain} of {r.candidates} structures" in text
        assert f"{r.before.energy:.2f} / {r.before.force:.1f} / {r.before.pressure:.2f}" in text
        for kind in r.trips:
            assert f"- {r.trips[kind]} × " in text
        trips = [t for t in r.trips if t != "uncertainty"]
        assert (folder / "trips.extxyz").exists() == bool(trips)
        for atoms in read(folder / "selected.extxyz", ":"):
            name, step = atoms.info["source"].split("/", 1)[1].rsplit("/", 1)
            assert f"{name}, step {step}" in text
        assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    summary = result.report.read_text()
    assert result.reason in summary and "[1](round-01/report.md)" in summary
    assert (result.folder / "report.png").stat().st_size > 10_000
    journal = (result.folder / "journal.jsonl").read_text().splitlines()
    one = ["explore", "select", "label", "compare", "fit"]
    # The first fit is looked for again when the second round is asked for.
    assert [json.loads(line)["stage"] for line in journal] == ["fit", *one, "fit", *one]


def test_numbers_of_a_round_survive_their_file(loop):
    for r in loop[1].rounds:
        assert Round.from_dict(json.loads(json.dumps(r.to_dict()))) == r
        nameless = replace(r, before=replace(r.before, pressure=float("nan")), held_out=None)
        again = Round.from_dict(json.loads(json.dumps(nameless.to_dict(), allow_nan=False)))
        assert np.isnan(again.before.pressure) and again.held_out is None


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_finished_loop_does_nothing_more(loop):
    config, result, _, labelled = loop
    before = contents(result.folder)
    done = hmlp("learn", config)
    assert done.exit_code == 0, done.output
    assert "All 2 rounds are done" in done.output and "Report:" in done.output
    after = contents(result.folder)
    assert before.keys() == after.keys()
    # The first potential is looked at again, which the journal says; nothing else.
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed <= {"journal.jsonl"}
    assert (config.parent / "log").read_text().splitlines() == labelled


@pytest.mark.parametrize("columns", [None, "80"])
def test_the_table_of_rounds_can_be_read_anywhere(loop, columns):
    """In a pipe, and on 80 columns."""
    config, result, *_ = loop
    done = CliRunner(env={"COLUMNS": columns}).invoke(main, ["learn", str(config)])
    lines = done.stdout.splitlines()
    (head,) = (k for k, line in enumerate(lines) if "tripped" in line)
    r = result.rounds[0]
    words = f"{r.candidates} {r.uncertain} {r.tripped_runs} of {r.runs} {r.labelled} ({r.failed})"
    errors = (r.before.energy, r.before.force, r.held_out.energy, r.held_out.force)
    numbers = " ".join(f"{x:.{2 - k % 2}f}" for k, x in enumerate(errors))
    assert lines[head + 2].split() == f"1 {words} {numbers}".split()
    assert f"Model:  {result.model}" in lines  # a path in one piece, however long


def test_the_table_of_rounds_has_room_for_large_numbers(loop):
    e = Errors(energy=123.45, force=1234.5, pressure=10.0)
    r = replace(
        loop[1].rounds[0],
        **dict(number=10, candidates=12345, uncertain=12345, runs=120, labelled=100, failed=100),
        **dict(before=e, held_out=e),
    )
    stream = io.StringIO()
    Console(file=stream, width=80).print(_rounds_table([r]))
    assert "12345" in stream.getvalue() and "100 (100)" in stream.getvalue()
    assert stream.getvalue().count("1234.5 ") == 2 and "…" not in stream.getvalue()


def test_another_configuration_is_refused(loop):
    config, result, *_ = loop
    before = contents(result.folder)
    changed = config.with_name("changed.toml")
    for old, new, key in (
        ("hold = 0.01", "hold = 0.02", "explore.hold"),
        ("seed = 2", "seed = 3", "seed"),
        ("frames = 6", "frames = 7", "select.frames"),
        ("cutoff = 4.5", "cutoff = 4.0", "train.config.pair.cutoff"),
    ):
        text = config.read_text()
        assert old in text
        changed.write_text(text.replace(old, new))
        refused = hmlp("learn", changed, "--output", result.folder)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("Error: ") and f"another {key}:" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert contents(result.folder) == before


def test_changed_data_of_a_source_are_another_setup(loop, tmp_path):
    """Loops that began before this was looked at go on."""
    source = {"files": ["more.extxyz"], "zero": "shared"}
    settings = {"data": {"source": [source]}}
    config = write_loop(tmp_path, {"model": str(loop[1].model), "train": {"settings": settings}})

    def check(frames):
        write(tmp_path / "more.extxyz", frames)
        read = read_toml(config, LearnConfig)
        training = read_training(read.train, tmp_path)
        labeller = read.label.calculator.labeller(tmp_path)
        starts = starting_structures(read.explore, tmp_path)
        _check_setup(tmp_path / "setup.json", _setup(read, labeller, training, starts, None))

    check(cold_frames(6, seed=3))
    check(cold_frames(6, seed=3))
    with pytest.raises(ConfigError, match=r"another train\.source_files:"):
        check(cold_frames(6, seed=4))
    old = json.loads((tmp_path / "setup.json").read_text())
    assert len(old["train"].pop("source_files")) == 1
    (tmp_path / "setup.json").write_text(json.dumps(old))
    check(cold_frames(6, seed=4))
    with pytest.raises(ConfigError, match=r"another train\.source_files:"):
        check(cold_frames(6, seed=3))


@pytest.mark.parametrize("name", ["report.md", "report.png", "round-01", "setup.json"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    config = write_loop(tmp_path)
    (tmp_path / "learn").mkdir()
    (tmp_path / "learn" / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"{name} is .*another folder"):
        learn_from_config(config)
    assert [p.read_text() for p in (tmp_path / "learn").iterdir()] == ["mine"]


def test_two_runs_in_one_folder_are_refused(loop):
    config, result, *_ = loop
    with (
        RecordFile(result.folder / "journal.jsonl", split_lines),
        pytest.raises(OutputExistsError, match="another run"),
    ):
        learn_from_config(config)


# ---------------------------------------------------------------- killed and resumed


class Hmlp:
    """`hmlp learn` in a process of its own."""

    def __init__(self, config):
        self._errors = config.with_suffix(".stderr")
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        with self._errors.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ase_hmlp.cli", "learn", str(config)],
                stdout=subprocess.DEVNULL,
                stderr=err,
                cwd=config.parent,
                env=environment,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def killed_when(self, condition):
        """Kill it as soon as a condition holds, which must be before its end."""
        deadline = time.monotonic() + 900.0
        while not condition():
            assert self._process.poll() is None, self._errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL

    def ends(self):
        assert self._process.wait(900) == 0, self._errors.read_text()


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_sigkill_changes_nothing(loop, tmp_path):
    """Killed in every stage of a round: the same frames, labels and potential as without."""
    _, expected, _, labelled = loop
    log = tmp_path / "log"
    changes = {
        "label": {"calculator": {"arguments": {"log": str(log), "seconds": 0.4}}},
        "stop": {"rounds": 1},
    }
    config = write_loop(tmp_path, changes)
    first = tmp_path / "learn" / "round-01"
    labels = first / "labels.extxyz"
    moments = (
        lambda: len(list((first / "exploration").glob("*.joblib"))) >= 6,
        lambda: labels.exists() and len(split_frames(labels.read_bytes())) >= 2,
        lambda: (first / "train.toml").exists(),
    )
    for moment in moments:
        with Hmlp(config) as run:
            run.killed_when(moment)
        assert not (tmp_path / "learn" / "report.md").exists()
    with Hmlp(config) as run:
        run.ends()
    theirs = expected.folder / "round-01"
    for name in ("selected.extxyz", "result.json"):
        assert (first / name).read_bytes() == (theirs / name).read_bytes(), name
    pairs = zip(
        read(first / "labelled.extxyz", ":"), read(theirs / "labelled.extxyz", ":"), strict=True
    )
    for a, b in pairs:
        assert a.get_potential_energy() == b.get_potential_energy()
        assert (a.get_forces() == b.get_forces()).all()
    models = [load_model(folder / "model" / "toy.joblib") for folder in (first, theirs)]
    same_arrays(*(model.potential.to_dict() for model in models))
    # Twice at most what was in flight when it was killed: one structure a time.
    again = log.read_text().splitlines()
    assert set(again) == set(labelled[:6])
    assert len(again) <= 6 + len(moments)


def same_arrays(a, b):
    """Nested dicts equal to the last bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same_arrays(a[key], b[key])
    else:
        assert np.array_equal(a, b)


def test_a_loop_from_phase_one_has_other_orientations_in_every_round(loop, tmp_path):
    phases = {"phases": ["hcp"], "files": [], "random": 0}
    select = {"uncertainty": 1e-3, "separation": 1e-3}
    result = learn_from_config(
        write_loop(tmp_path, given_model(loop, {"explore": phases, "select": select}))
    )
    assert len(result.rounds) == 2
    setup = json.loads((result.folder / "setup.json").read_text())
    assert setup["starts"] == {"hcp": None}
    first, second = (
        cached(result.folder / f"round-{n:02d}" / "exploration" / "hcp-20GPa.joblib", None)
        for n in (1, 2)
    )
    bonds = [t.frame(0).bond_vectors() for t in (first, second)]
    assert np.abs(bonds[0] - bonds[1]).max() > 0.3


# ---------------------------------------------------------------- when it ends


def given_model(loop, changes):
    """Changes that begin with the last potential of the loop: a round without a fit before it."""
    return {"model": str(loop[1].model), **changes}


def test_the_loop_stops_when_nothing_new_turns_up(loop, tmp_path):
    # All structures are uncertain, but none is far enough from what is known.
    nothing = {"uncertainty": 1e-3, "separation": 1e6}
    config = write_loop(tmp_path / "a", given_model(loop, {"select": nothing}))
    done = hmlp("learn", config)
    assert done.exit_code == 0, done.output
    assert "Round 1 found nothing new." in done.output
    folder = tmp_path / "a" / "learn" / "round-01"
    assert not (folder / "labelled.extxyz").exists() and not (folder / "model").exists()
    assert (folder / "report.png").exists()
    # The same exploration, where one structure is, in a round that wants two.
    selection = cached(folder / "selection.joblib", None)
    assert selection.uncertain.sum() > 20
    between = np.sort(selection.distance)[-2:].mean() / (selection.separation / 1e6)
    one = {"uncertainty": 1e-3, "separation": float(between)}
    config = write_loop(tmp_path / "b", given_model(loop, {"select": one}))
    result = learn_from_config(config)
    assert result.reason == (
        "Round 1 found 1 new frames, fewer than the 2 that would be worth a round."
    )
    assert result.rounds[0].last and result.rounds[0].labelled == 0
    assert result.model == Path(loop[1].model)


def test_frames_that_fail_are_reported_and_the_loop_goes_on(loop, tmp_path):
    large = [f.volume / f.n_atoms for f in read_frames(loop[1].folder / "round-01/labelled.extxyz")]
    limit = float(np.median(large))
    changes = {
        "label": {"calculator": {"arguments": {"fails_above": limit}}},
        "stop": {"rounds": 1},
        "explore": {"random": 1},
    }
    config = write_loop(tmp_path, changes)
    # The first potential is that of the loop, found again.
    (tmp_path / "learn").mkdir()
    shutil.copytree(loop[1].folder / "round-00", tmp_path / "learn" / "round-00")
    result = learn_from_config(config)
    (r,) = result.rounds
    assert r.failed == sum(v > limit for v in large) and r.labelled + r.failed == r.selected
    report = (tmp_path / "learn/round-01/report.md").read_text()
    assert f"{r.labelled} labelled, {r.failed} failed" in report
    assert f"- {r.failed} × failed: RuntimeError: too large" in report
    assert load_model(result.model).training["frames"] == 16 + r.labelled


def test_a_round_without_a_label_is_an_error_that_can_be_mended(loop, tmp_path):
    changes = given_model(
        loop,
        {
            "label": {"calculator": {"arguments": {"fails_above": 0.0}}},
            "select": {"uncertainty": 1e-3},
        },
    )
    config = write_loop(tmp_path, changes)
    for _ in range(2):
        with pytest.raises(LearningError, match="None of the 6 frames selected could be labelled"):
            learn_from_config(config)
    failed = tmp_path / "learn" / "round-01" / "labels.failed.jsonl"
    assert len(failed.read_text().splitlines()) == 6
    assert hmlp("learn", config, "--retry-failed").exit_code == 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"explore": {"pressure": [1.0]}}, "unknown key 'explore.pressure'"),
        ({"explore": {"phases": ["P1"]}}, "there is no phase 'P1', only"),
        ({"explore": {"pressures": [20, 20]}}, "key 'explore.pressures': something is named twice"),
        ({"explore": {"pressures": []}}, "explore.pressures"),
        ({"explore": {"temperatures": [-5]}}, "explore.temperatures"),
        ({"explore": {"leave_out": [[30.0, 301.0]]}}, "[30, 301] is no point of the grid"),
        (
            {"explore": {"pressures": [5], "temperatures": [9], "leave_out": [[5, 9]]}},
            "leave_out leaves no",
        ),
        ({"explore": {"files": [], "random": 0}}, "to start from"),
        ({"explore": {"files": ["none.xyz"]}}, "none.xyz does not exist"),
        ({"explore": {"files": ["odd.extxyz"]}}, "Frame 0 of"),
        ({"explore": {"hold": 0.001}}, "too short for 4 snapshots"),
        ({"explore": {"run": {"backend": "abacus"}}}, "run.backend"),
        ({"stop": {"frames": 9}}, "stop.frames = 9 is more than select.frames = 6"),
        ({"label": {"calculator": {"kind": "abacus"}}}, "label.calculator"),
        ({"label": {"calculator": {"class": "NoSuchClass"}}}, "NoSuchClass"),
        ({"label": None}, "missing key 'label'"),
        ({"train": None}, "missing key 'train'"),
        ({"train": {"settings": None}}, "give a training configuration"),
        ({"train": {"config": "none.toml"}}, "none.toml cannot be read"),
        ({"train": {"settings": {"pair": {"cutof": 1.0}}}}, "train.settings: unknown key"),
        ({"train": {"settings": {"data": {"files": ["none.extxyz"]}}}}, "none.extxyz"),
        ({"train": {"settings": {"fit": {"variance": False}}}}, "fit.variance must be true"),
        (
            {"train": {"settings": {"environment": {"representatives": 0}}}},
            "there must be an environment level with representatives",
        ),
        ({"train": {"settings": {"split": {"test": ["gas"]}}}}, "names families"),
        ({"train": {"family": "cold"}}, "have a family 'cold' already"),
        ({"train": {"family": "all"}}, "train.family': 'all' is what tables call"),
        ({"model": "none.joblib"}, "none.joblib"),
        ({"model": "bare.joblib"}, "without predictive variances"),
    ],
)
def test_impossible_configurations_are_refused_in_a_sentence(tmp_path, changes, words):
    config = write_loop(tmp_path, changes)
    oxygen = hcp(3.0, (2, 1, 1))
    oxygen.numbers[3] = 8
    write(tmp_path / "odd.extxyz", oxygen)
    if changes.get("model") == "bare.joblib":
        potential = toy_potential()
        object.__setattr__(potential.environment.regressor, "variance", None)
        save_model(toy_model(potential), tmp_path / "bare.joblib")
    before = contents(tmp_path)
    result = hmlp("learn", config)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert contents(tmp_path) == before and not (tmp_path / "learn").exists()


def test_the_shipped_configuration_is_one(tmp_path, monkeypatch):
    # Named as the README does, relative to the clone.
    monkeypatch.chdir(ROOT)
    path = Path("training") / "configs" / "learn-h2-pbe.toml"
    config = read_toml(path, LearnConfig)
    training = read_training(config.train, path.parent)
    assert set(training.config.split.test) < {f.group for f in training.frames}
    assert len(training.fitted([])) < len(training.frames)
    assert config.explore.phases and config.label.calculator.kind == "espresso"


def test_settings_replace_those_of_a_training_configuration(tmp_path):
    config = write_loop(tmp_path)
    inline = read_toml(config, LearnConfig).train
    (tmp_path / "elsewhere").mkdir()
    whole = {**inline.settings, "data": {"files": ["../toy.extxyz"]}}
    (tmp_path / "elsewhere" / "train.toml").write_text(tomli_w.dumps(whole))
    section = {
        "config": "elsewhere/train.toml",
        "settings": {"environment": {"representatives": 7}, "weights": {"energy": 3.0}},
    }
    whole["environment"] = whole["environment"] | {"inputs": {"axial": 0.5, "S": 0.2}}
    (tmp_path / "elsewhere" / "train.toml").write_text(tomli_w.dumps(whole))
    section["settings"]["environment"]["inputs"] = {"shell": 1.0}
    training = read_training(type(inline).model_validate(section), tmp_path)
    assert training.config.environment.inputs == {"shell": 1.0}  # one value, however many parts
    assert training.config.environment.representatives == 7
    assert training.config.pair.gaussians == [0.9, 1.4, 2.2, 3.0]
    assert training.config.weights.energy == 3.0
    assert len(training.frames) == 20


def test_sources_of_a_training_configuration_join(tmp_path):
    """Their paths are relative to where they are written, and absolute in a round's own."""
    config = write_loop(tmp_path)
    inline = read_toml(config, LearnConfig).train
    (tmp_path / "elsewhere").mkdir()
    whole = dict(inline.settings)
    whole["data"] = {
        "files": ["../toy.extxyz"],
        "source": [{"files": ["../toy.extxyz"], "zero": "shared", "weight": 2.0}],
    }
    (tmp_path / "elsewhere" / "train.toml").write_text(tomli_w.dumps(whole))
    section = type(inline).model_validate({"config": "elsewhere/train.toml"})
    training = read_training(section, tmp_path)
    assert [f.weight for f in training.frames] == 20 * [1.0] + 20 * [2.0]
    (source,) = training.settings["data"]["source"]
    assert source == {
        "files": [str((tmp_path / "toy.extxyz").resolve())],
        "zero": "shared",
        "weight": 2.0,
    }
    # Those of the loop's own configuration are relative to it.
    own = {"data": {"source": [{"files": ["toy.extxyz"], "weight": 3.0}]}}
    section = section.model_copy(update={"settings": own})
    assert {f.weight for f in read_training(section, tmp_path).frames} == {1.0, 3.0}


def test_new_frames_have_the_zero_of_the_model(tmp_path):
    """With sources alone, too, of which the first one's is the model's."""
    config = write_loop(tmp_path)
    section = read_toml(config, LearnConfig).train
    training = read_training(section, tmp_path)
    toy = str((tmp_path / "toy.extxyz").resolve())
    assert _joined(training, ["new.extxyz"]) == {"files": [toy, "new.extxyz"]}
    sources = {**section.settings, "data": {"source": [{"files": ["toy.extxyz"], "name": "PBE"}]}}
    training = read_training(section.model_copy(update={"settings": sources}), tmp_path)
    first = {"files": [toy], "name": "PBE"}
    assert _joined(training, []) == {"files": []}
    data = _joined(training, ["new.extxyz"])
    assert data == {"source": [first, {"files": ["new.extxyz"], "zero": "shared"}]}


# ---------------------------------------------------------------- with Quantum ESPRESSO


@pytest.mark.skipif(
    shutil.which("pw.x") is None,
    reason="no pw.x: apt-get install quantum-espresso quantum-espresso-data libopenblas0",
)
def test_a_round_with_quantum_espresso(tmp_path):
    """The shipped model, eight atoms of P2₁/c, its energies against those of DFT."""
    configs = ROOT / "training" / "configs"
    some = list(iterate_structures(ROOT / "training" / "data" / "h2-pbe-qe.extxyz.xz"))[::20]
    write(tmp_path / "some.extxyz", some)
    fit = {
        "data": {"files": ["some.extxyz"], "source": [], "always": []},
        "bond": {"form": "quartic", "groups": []},
        "split": {"scheme": "families", "test": ["crystal"], "fitted": []},
        "pair": {"baseline_groups": []},
        "environment": {"representatives": 20},
        "fit": {"learning_curve": 1},
    }
    changes = {
        "model": "h2-pbe",
        "explore": {
            "phases": ["P21c-8"],
            "files": [],
            "random": 0,
            "pressures": [100],
            "temperatures": [200],
            "relaxation_steps": 5,
            "run": Instead(workers=2),  # in processes of their own, as for real
        },
        "select": {"frames": 1, "uncertainty": 0.01, "separation": 1e-3},
        "stop": {"rounds": 1, "frames": 1},
        # Fewer k-points than for real.
        "label": {"calculator": Instead(kind="espresso", small_kspacing=0.12)},
        "train": {
            "config": os.path.relpath(configs / "h2-pbe.toml", tmp_path),
            "settings": Instead(fit),
        },
    }
    config = write_loop(tmp_path, changes)
    result = learn_from_config(config)
    (r,) = result.rounds
    assert (r.labelled, r.failed) == (1, 0)
    frame = read(tmp_path / "learn" / "round-01" / "labelled.extxyz")
    assert frame.info["label"].startswith("Quantum ESPRESSO") and len(frame) == 8
    # The shipped model is right to 5 meV/atom on the average; the coarse k-points cost as much.
    assert r.before.energy < 30.0
    assert (
        load_model(result.model).training["frames"]
        == sum(a.info["group"] != "crystal" for a in some) + 1
    )
