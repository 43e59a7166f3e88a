"""The fit of the hierarchy and a whole training run, on labels whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from toy_models import ORIENTATION_BASIS, PAIR_BASIS, hcp, pa3, toy_bond, toy_potential

from ase_hmlp.errors import ConfigError, DataError
from ase_hmlp.geometry import GeometryTracker
from ase_hmlp.levels import OrientationLevel, PairLevel
from ase_hmlp.model_io import load_model
from ase_hmlp.potential import Potential
from ase_hmlp.training.bond import fit_bond, projected_forces
from ase_hmlp.training.config import read_config
from ase_hmlp.training.evaluate import error_table, evaluate_files, predict
from ase_hmlp.training.fit import HierarchicalPotential, LevelSpec
from ase_hmlp.training.frames import frame_from_atoms, read_frames
from ase_hmlp.training.train import _folds, train_from_config
from ase_hmlp.training.weights import Weights

TRUTH = toy_potential(stretch_width=0.0)
PAIR = LevelSpec(
    tuple(f for f in PAIR_BASIS.functions if f.kind != "born_mayer"),
    PAIR_BASIS.cutoff,
    PAIR_BASIS.inner,
    PAIR_BASIS.outer,
    n_representatives=60,
    tolerance=1e-6,
)
ORIENTATION = LevelSpec(
    ORIENTATION_BASIS.functions,
    ORIENTATION_BASIS.cutoff,
    ORIENTATION_BASIS.inner,
    ORIENTATION_BASIS.outer,
    n_representatives=80,
)


def label(atoms, group, potential=TRUTH):
    frame_free = atoms.copy()
    tracker = potential.tracker()
    molecules = np.arange(len(atoms)).reshape(-1, 2).astype(np.intc)
    result = potential.evaluate(
        tracker.update(frame_free.positions, frame_free.cell.array, frame_free.pbc, molecules)
    )
    frame_free.calc = SinglePointCalculator(
        frame_free,
        energy=result.energies.sum(),
        forces=result.forces,
        stress=result.virials.sum(axis=0) / frame_free.get_volume(),
    )
    frame_free.info["group"] = group
    return frame_free


def structures(n, seed=0):
    rng = np.random.default_rng(seed)
    for k in range(n):
        volume = rng.uniform(2.2, 4.5)
        if k % 2:
            atoms = hcp(volume, (2, 1, 1), seed=1000 * seed + k, bond_spread=0.02)
        else:
            atoms = pa3(volume)
        atoms.rattle(0.04, rng=rng)
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        yield label(atoms, ("pa3", "hcp", "pa3-b", "hcp-b")[k % 4])


@pytest.fixture(scope="module")
def atoms():
    return list(structures(60))


@pytest.fixture(scope="module")
def frames(atoms):
    return [frame_from_atoms(a, f"Frame {k}") for k, a in enumerate(atoms)]


@pytest.fixture(scope="module")
def fitted(frames):
    return HierarchicalPotential(
        PAIR, ORIENTATION, bond="quartic", weights=Weights(0.0005, 0.01, 0.1, 0.0)
    ).fit(frames)


def test_fit_learns_a_potential_of_its_own_form(fitted, frames):
    unseen = [frame_from_atoms(a, "unseen") for a in structures(12, seed=5)]
    labels = np.concatenate([f.forces.ravel() for f in unseen])
    spread = np.abs(labels - labels.mean()).mean()
    rows = {stage: error_table(predict(p, unseen))[-1] for stage, p in fitted.stages_.items()}
    # Each level must earn its place, and what is left be a small part of the forces.
    assert rows["pair"].force_mae < 0.7 * rows["bond"].force_mae
    assert rows["orientation"].force_mae < 0.97 * rows["pair"].force_mae
    assert rows["all"].force_mae < 0.85 * rows["orientation"].force_mae
    assert rows["all"].force_mae < 0.05 * 1e3 * spread
    assert rows["all"].energy_mae < 3.0
    assert rows["all"].pressure_mae < 1.0


def test_rows_times_coefficients_are_what_the_calculator_returns(fitted, frames):
    """The contract between training and use, for the levels as fitted."""
    potential = fitted.potential_
    for frame in frames[:4]:
        geometry = frame.geometry(PAIR.cutoff, ORIENTATION.cutoff)
        total = potential.evaluate(geometry)
        expected = np.concatenate(
            [[total.energies.sum()], -total.forces.ravel(), total.virials.sum(axis=0)]
        )
        bond = Potential(0.0, potential.bond).evaluate(geometry)
        got = np.concatenate(
            [[bond.energies.sum()], -bond.forces.ravel(), bond.virials.sum(axis=0)]
        )
        got[0] += potential.e0 * frame.n_atoms
        for name in ("pair", "orientation"):
            level = getattr(potential, name)
            design = _design_of(level)
            coefficients = np.concatenate(
                [
                    level.regressor.linear[design.free],
                    *([level.regressor.linear_stretch[design.free]] * design.sees_bond),
                    level.regressor.alpha,
                ]
            )
            got += coefficients @ design.rows(geometry)
        # Sums of thousands of terms of up to 1e3 eV: 1e-10 is round-off.
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-9)


def _design_of(level):
    from ase_hmlp.fingerprints import is_real_channel
    from ase_hmlp.training.rows import LevelDesign

    names = level.names(level.basis)
    return LevelDesign(type(level), level.basis, level.regressor, is_real_channel(names))


def test_estimator_conventions(frames):
    estimator = HierarchicalPotential(PAIR, None, variance=False)
    copy = clone(estimator).set_params(bond="harmonic")
    assert estimator.bond == "auto" and copy.pair == PAIR
    copy.fit(frames[:20])
    assert copy.potential_.orientation is None
    assert not hasattr(estimator, "potential_")
    assert copy.predict(frames[:3]).shape == (3,)


def test_grid_search_over_frames_by_family(frames):
    groups = [f.group for f in frames]
    search = GridSearchCV(
        HierarchicalPotential(PAIR, None, variance=False),
        {"bond": ["harmonic", "quartic"]},
        cv=GroupKFold(2),
        error_score="raise",
    ).fit(frames, groups=groups)
    # The truth is a quartic.
    assert search.best_params_ == {"bond": "quartic"}


def test_bond_level_recovers_the_curve(frames):
    truth = toy_bond()
    r = np.linspace(0.68, 0.80, 50)
    free = []
    for frame in frames:
        bonds = frame.bond_vectors()
        lengths = np.linalg.norm(bonds, axis=1)
        slope = truth.energy(lengths)[1]
        forces = np.zeros_like(frame.forces)
        a, b = frame.molecules.T
        forces[a] = slope[:, None] * bonds / lengths[:, None]
        forces[b] = -forces[a]
        free.append(replace(frame, forces=forces))
    length, slope, _ = projected_forces(free, Weights())
    np.testing.assert_allclose(slope, truth.energy(length)[1], atol=1e-10)
    bond, scores = fit_bond(free, "auto", Weights())
    assert scores["quartic"] < 1e-3 < scores["harmonic"]
    assert bond.r0 == pytest.approx(0.74, abs=1e-4)
    np.testing.assert_allclose(bond.energy(r)[1], truth.energy(r)[1], atol=0.02)


def test_bond_families_must_exist(frames):
    estimator = HierarchicalPotential(None, None, bond="quartic", bond_groups=("gas",))
    with pytest.raises(DataError, match="gas"):
        estimator.fit(frames)


def test_projected_force_has_the_sign_of_a_stretched_bond():
    stretched = label(pa3(30.0), "toy", Potential(0.0, toy_bond()))
    stretched.set_cell(stretched.cell, scale_atoms=False)
    positions = stretched.positions.reshape(-1, 2, 3)
    middle = positions.mean(axis=1, keepdims=True)
    stretched.positions = (middle + 1.1 * (positions - middle)).reshape(-1, 3)
    frame = frame_from_atoms(label(stretched, "toy", Potential(0.0, toy_bond())), "Frame 0")
    r, slope, _ = projected_forces([frame], Weights())
    assert (r > 0.8).all() and (slope > 0).all()


def test_repulsive_baseline_is_positive(fitted):
    pair = fitted.potential_.pair
    k = [f.kind for f in pair.basis.functions].index("born_mayer")
    assert pair.regressor.linear[k] > 0
    assert not pair.regressor.transform[:, k].any()


def test_deviations_grow_away_from_the_data(fitted, frames):
    tracker = GeometryTracker(PAIR.cutoff, ORIENTATION.cutoff)
    seen = np.concatenate(
        [fitted.potential_.deviations(f.geometry(PAIR.cutoff, ORIENTATION.cutoff)) for f in frames]
    )
    odd = hcp(1.5, (2, 1, 1), seed=9)
    molecules = np.arange(len(odd)).reshape(-1, 2).astype(np.intc)
    far = fitted.potential_.deviations(
        tracker.update(odd.positions, odd.cell.array, odd.pbc, molecules)
    )
    assert far.min() > 3 * np.median(seen)


def test_levels_share_names(fitted):
    names = OrientationLevel.names(fitted.potential_.orientation.basis)
    assert names.count("fp_EQQ") == 1
    assert len(PairLevel.names(fitted.potential_.pair.basis)) == PAIR_BASIS.table.channels


# ---------------------------------------------------------------- a whole run

CONFIG = """
name = "toy"
[data]
files = ["toy.extxyz"]
[bond]
form = "quartic"
[pair]
gaussians = [0.9, 1.4, 2.2, 3.0]
damped_sines = [[1.5, 1.2]]
cutoff = 4.5
inner = 0.9
outer = 1.2
representatives = 20
[orientation]
gaussians = [1.6, 2.5]
cutoff = 4.0
inner = 1.1
outer = 1.5
representatives = 20
[fit]
learning_curve = 2
"""


@pytest.fixture(scope="module")
def run(atoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write(folder / "toy.extxyz", atoms)
    (folder / "toy.toml").write_text(CONFIG)
    stages = set()
    result = train_from_config(
        folder / "toy.toml", folder / "out", progress=lambda s, done, total: stages.add(s)
    )
    assert {"held-out families", "design matrix"} <= stages
    return folder, result


def test_run_leaves_model_card_and_plot(run):
    folder, result = run
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["toy.joblib", "toy.md", "toy.png"]
    model = load_model(result.model_path)
    assert model.training["frames"] == 60
    assert model.errors["scheme"] == "leave-one-family-out"
    card = result.card_path.read_text()
    row = model.errors["levels"]["all"][-1]
    assert f"| **all** | 60 | {row['energy_mae']:.2f}" in card
    assert [c["frames"] for c in model.errors["learning_curve"]] == [22, 45]


def test_evaluate_prints_the_errors_of_the_fit(run):
    folder, result = run
    table = evaluate_files(result.model_path, [folder / "toy.extxyz"])
    assert table.frames == table.seen == 60
    again = error_table(predict(result.model.potential, read_frames(folder / "toy.extxyz")))
    assert [r.to_dict() for r in table.rows] == [r.to_dict() for r in again]
    # Errors by hand, over all frames.
    frames = read_frames(folder / "toy.extxyz")
    tracker = result.model.potential.tracker()
    energy, force = [], []
    for f in frames:
        p = result.model.potential.evaluate(tracker.update(f.positions, f.cell, f.pbc, f.molecules))
        energy.append(abs(p.energies.sum() - f.energy) / f.n_atoms)
        force.append(np.abs(p.forces - f.forces).ravel())
    assert table.rows[-1].energy_mae == pytest.approx(1e3 * np.mean(energy), rel=1e-9)
    assert table.rows[-1].force_mae == pytest.approx(1e3 * np.concatenate(force).mean(), rel=1e-9)


def test_held_out_families_are_not_trained_on(run, atoms, monkeypatch):
    """Every frame is predicted once, by a fit that has not seen its family."""
    folder, result = run
    held_out = result.held_out["all"]
    assert sorted(held_out.group.tolist()) == sorted(a.info["group"] for a in atoms)
    config = read_config(folder / "toy.toml")
    frames = read_frames(folder / "toy.extxyz")
    family = "hcp"
    estimator = config.estimator().set_params(variance=False)
    estimator.fit([f for f in frames if f.group != family])
    mine = error_table(predict(estimator.potential_, [f for f in frames if f.group == family]))
    stored = next(r for r in result.model.errors["levels"]["all"] if r["group"] == family)
    assert stored["force_mae"] == pytest.approx(mine[-1].force_mae, rel=1e-6)


def test_killed_run_resumes_with_its_finished_folds(atoms, tmp_path, monkeypatch):
    write(tmp_path / "toy.extxyz", atoms)
    (tmp_path / "toy.toml").write_text(CONFIG)
    from ase_hmlp.training import train

    original, calls = train._predict_fold, []

    def dying(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(train, "_predict_fold", dying)
    with pytest.raises(KeyboardInterrupt):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert not (tmp_path / "out" / "toy.joblib").exists()
    monkeypatch.setattr(train, "_predict_fold", lambda *a: calls.append(1) or original(*a))
    train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert len(calls) == 4  # four families, none computed twice
    assert (tmp_path / "out" / "toy.joblib").exists()


def test_existing_model_is_not_replaced_unasked(run):
    folder, result = run
    before = result.model_path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        train_from_config(folder / "toy.toml", folder / "out")
    assert result.model_path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "toy"', 'name = "toy"\ncolour = "red"', "unknown key 'colour'"),
        ("cutoff = 4.5", "cutof = 4.5", "'pair.cutoff'|'pair.cutof'"),
        ("cutoff = 4.5", "cutoff = -4.5", r"key 'pair.cutoff'"),
        ("[data]", "[data", "is not TOML"),
        ('form = "quartic"', 'form = "spring"', "key 'bond.form'"),
        ("[fit]", '[split]\nscheme = "families"\ntest = ["gas"]\n[fit]', "names families"),
        ("[fit]", '[split]\nscheme = "families"\n[fit]', "some of the families"),
    ],
)
def test_bad_configurations(atoms, tmp_path, old, new, message):
    write(tmp_path / "toy.extxyz", atoms[:12])
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        train_from_config(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_config(tmp_path / "none.toml")


def test_unreadable_data_leaves_nothing_behind(tmp_path):
    (tmp_path / "toy.extxyz").write_text("2\nnonsense\nH 0 0\n")
    (tmp_path / "toy.toml").write_text(CONFIG)
    with pytest.raises(DataError, match="Frame 0"):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_made_from_held_out_ones_are_held_out_too(atoms, tmp_path):
    """A family that is always trained on leaves out what came from the test family."""
    copies = [a.copy() for a in atoms]
    for k, (copy, a) in enumerate(zip(copies, atoms, strict=True)):
        copy.calc = SinglePointCalculator(copy, **a.calc.results)
        copy.info["source"] = f"frame/{k}"
    children = []
    for k in (1, 5, 2):  # two from family hcp, one from pa3-b
        child = label(atoms[k].copy(), "pushed")
        child.info |= {"source": f"child/{k}", "parent": f"frame/{k}"}
        children.append(child)
    write(tmp_path / "toy.extxyz", copies + children)
    text = CONFIG.replace("[bond]", 'always = ["pushed"]\n[bond]', 1)
    (tmp_path / "toy.toml").write_text(text)
    config = read_config(tmp_path / "toy.toml")
    frames = read_frames(tmp_path / "toy.extxyz")
    folds = {name: (train, test) for name, train, test in _folds(frames, config)}
    assert set(folds) == {"hcp", "hcp-b", "pa3", "pa3-b"}
    for name, (train, test) in folds.items():
        assert {frames[i].group for i in test} == {name}
        assert not set(train) & set(test)
        inside = {frames[i].source for i in train if frames[i].group == "pushed"}
        assert inside == {
            "hcp": {"child/2"},
            "pa3-b": {"child/1", "child/5"},
        }.get(name, {"child/1", "child/2", "child/5"})


def test_family_split(atoms, tmp_path):
    write(tmp_path / "toy.extxyz", atoms)
    split = '[split]\nscheme = "families"\ntest = ["hcp"]\n[fit]'
    (tmp_path / "toy.toml").write_text(CONFIG.replace("[fit]", split))
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert result.model.training["frames"] == 45
    assert set(result.held_out["all"].group.tolist()) == {"hcp"}
    table = evaluate_files(result.model, [tmp_path / "toy.extxyz"])
    assert (table.frames, table.seen) == (60, 45)
