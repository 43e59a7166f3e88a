"""The fit of the hierarchy and a whole training run, on labels whose truth is known."""

import itertools
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from toy_models import (
    ENVIRONMENT_BASIS,
    ORIENTATION_BASIS,
    OVERLAP_BASIS,
    PAIR_BASIS,
    hcp,
    pa3,
    toy_bond,
    toy_potential,
)

from ase_hmlp import HMLP
from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, DataError, ForeignModelError
from ase_hmlp.levels import Stretch
from ase_hmlp.model_io import Model, load_model
from ase_hmlp.potential import Potential
from ase_hmlp.simulate.build import scale_centres
from ase_hmlp.training import fit
from ase_hmlp.training.bond import fit_bond, projected_forces
from ase_hmlp.training.config import PairSection, read_config
from ase_hmlp.training.evaluate import error_table, evaluate_files, predict
from ase_hmlp.training.fit import HierarchicalPotential, KernelSpec, LevelSpec
from ase_hmlp.training.frames import file_digest, frame_from_atoms, read_frames
from ase_hmlp.training.kernel_ridge import NormalEquations, gram
from ase_hmlp.training.rows import NUGGET, EnvironmentDesign, LinearDesign
from ase_hmlp.training.train import (
    _folds,
    _parts,
    fitted_frames,
    split_off_tests,
    train_from_config,
    training_domain,
)
from ase_hmlp.training.weights import Weights

# Bonds are held where none of the structures below has one, as the fit will find.
TRUTH = replace(toy_potential(stretch_width=0.0), stretch=Stretch(0.74, 0.4, 1.2, 0.1))
PAIR = LevelSpec(
    tuple(f for f in PAIR_BASIS.functions if f.kind != "born_mayer"),
    PAIR_BASIS.cutoff,
    PAIR_BASIS.inner,
    PAIR_BASIS.outer,
)
ORIENTATION = LevelSpec(
    ORIENTATION_BASIS.functions,
    ORIENTATION_BASIS.cutoff,
    ORIENTATION_BASIS.inner,
    ORIENTATION_BASIS.outer,
)
ENVIRONMENT = KernelSpec(
    ENVIRONMENT_BASIS.functions,
    ENVIRONMENT_BASIS.cutoff,
    ENVIRONMENT_BASIS.inner,
    ENVIRONMENT_BASIS.outer,
    n_representatives=120,
    stretch_width=0.1,
    inputs={"density": 1.0, "axial": 1.0, "S": 1.0, "vector": 0.5, "tensor": 0.5, "shell": 0.5},
    overlap=OVERLAP_BASIS,
)
BONDS = Potential(0.0, toy_bond())
STAGES = ["bond", "pair", "orientation", "environment", "all"]
WEIGHTS = Weights(0.0005, 0.01, 0.1, 0.0)


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
        PAIR, ORIENTATION, ENVIRONMENT, bond="quartic", weights=WEIGHTS
    ).fit(frames)


def test_fit_learns_a_potential_of_its_own_form(fitted, frames):
    unseen = [frame_from_atoms(a, "unseen") for a in structures(12, seed=5)]
    labels = np.concatenate([f.forces.ravel() for f in unseen])
    spread = np.abs(labels - labels.mean()).mean()
    rows = {stage: error_table(predict(p, unseen))[-1] for stage, p in fitted.stages_.items()}
    # Each level must earn its place, and what is left be a small part of the forces.
    assert rows["pair"].force_mae < 0.65 * rows["bond"].force_mae
    assert rows["orientation"].force_mae < 0.85 * rows["pair"].force_mae
    assert rows["environment"].energy_mae < 0.62 * rows["orientation"].energy_mae
    assert rows["environment"].force_mae < 0.75 * rows["orientation"].force_mae
    assert rows["all"].force_mae < 0.66 * rows["environment"].force_mae
    assert rows["all"].force_mae < 0.03 * 1e3 * spread
    assert rows["all"].energy_mae < 1.0
    assert rows["all"].pressure_mae < 0.4
    assert list(fitted.stages_) == STAGES
    assert rows["all"].force_mae < 0.05 * 1e3 * spread
    assert rows["all"].energy_mae < 3.0
    assert rows["all"].pressure_mae < 1.0


def test_rows_times_coefficients_are_what_the_calculator_returns(fitted, frames):
    """The contract between training and use, for the levels as fitted."""
    potential = fitted.potential_
    for frame in frames[:4]:
        geometry = frame.geometry(potential.cutoff)
        total = potential.evaluate(geometry)
        expected = np.concatenate(
            [[total.energies.sum()], -total.forces.ravel(), total.virials.sum(axis=0)]
        )
        bond = Potential(0.0, potential.bond).evaluate(geometry)
        got = np.concatenate(
            [[bond.energies.sum()], -bond.forces.ravel(), bond.virials.sum(axis=0)]
        )
        got[0] += potential.e0 * frame.n_atoms
        for design, coefficients in _designs_of(potential):
            got += coefficients @ design.rows(geometry)
        # Sums of thousands of terms of up to 1e3 eV: 1e-10 is round-off.
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-8)


def _designs_of(potential):
    for level in (potential.pair, potential.orientation):
        c = level.coefficients
        free = np.ones_like(c, dtype=bool)
        empty = replace(level, coefficients=np.zeros_like(c))
        yield LinearDesign(potential.stretch, empty, free, np.ones_like(c)), c.ravel()
    level = potential.environment
    g = level.regressor
    design = EnvironmentDesign(
        potential.stretch, level.basis, g, np.ones(len(g.linear)), overlap=level.overlap
    )
    assert design.sees_bond
    overlaps = slice(33, 89)  # none of them with the stretch
    assert not g.linear_stretch[overlaps].any()
    kernel = np.linalg.cholesky(gram(g) + NUGGET * np.eye(len(g.alpha))).T @ g.alpha
    yield design, np.concatenate([g.linear, np.delete(g.linear_stretch, overlaps), kernel])


# ---------------------------------------------------------------- parts


def garbled(frame):
    """The same structure with labels that have nothing to do with it."""
    rng = np.random.default_rng(frame.digest % 2**32)
    return replace(
        frame,
        energy=frame.energy + 10.0 * rng.normal(),
        forces=frame.forces + rng.normal(size=frame.forces.shape),
        stress=frame.stress + 0.1 * rng.normal(size=6),
    )


def assert_same_predictions(a, b, frames, tolerance=1e-7):
    """Every stage of two estimators predicts the same."""
    assert list(a.stages_) == list(b.stages_)
    for stage in a.stages_:
        one, two = (predict(e.stages_[stage], frames) for e in (a, b))
        np.testing.assert_allclose(one.energy[1], two.energy[1], rtol=0, atol=tolerance)
        np.testing.assert_allclose(one.forces[1], two.forces[1], rtol=0, atol=tolerance)
        np.testing.assert_allclose(one.stress[1], two.stress[1], rtol=0, atol=100 * tolerance)


def partial(**changes):
    """An estimator whose bond and baseline come from a family that no test leaves out."""
    families = {"bond_groups": ("pa3",), "baseline_groups": ("pa3",)}
    settings = families | {"bond": "quartic", "weights": WEIGHTS, "variance": False} | changes
    environment = replace(ENVIRONMENT, n_representatives=20)
    return HierarchicalPotential(PAIR, ORIENTATION, environment, **settings)


@pytest.fixture(scope="module")
def by_family(frames):
    """Prepared with the families as parts."""
    return partial().prepare(frames, [f.group for f in frames])


def test_all_parts_are_the_whole(by_family, frames):
    """However frames are divided: the sums are the same."""
    assert set(by_family.parts) == {"pa3", "hcp", "pa3-b", "hcp-b"}
    whole, solved = partial().fit(frames), partial().solve(by_family)
    assert_same_predictions(whole, solved, frames[:8])
    assert whole.report_["observations"] == solved.report_["observations"]
    for stage, zeros in whole.zeros_.items():
        assert zeros == pytest.approx(solved.zeros_[stage], abs=1e-10)


def test_left_out_labels_do_not_matter(by_family, frames):
    """A fit without a part is the same whatever the labels of that part say."""
    without = [part for part in by_family.parts if part != "hcp"]
    changed = [garbled(f) if f.group == "hcp" else f for f in frames]
    other = partial().prepare(changed, [f.group for f in changed])
    one, two = partial().solve(by_family, without), partial().solve(other, without)
    assert_same_predictions(one, two, frames[:8], tolerance=1e-12)
    # They do matter where they are not left out.
    force = [
        predict(partial().solve(p).potential_, frames[:8]).forces[1] for p in (by_family, other)
    ]
    assert np.abs(force[0] - force[1]).max() > 1e-2


def test_threads_make_no_difference(by_family, frames, monkeypatch):
    """To the last bit: labels are added up in the order of the frames."""
    groups = [f.group for f in frames]
    monkeypatch.setattr(fit, "default_threads", lambda: 3)
    monkeypatch.setattr(fit, "BATCH", 5)
    calls, all_three = itertools.count(), threading.Barrier(3)
    observations = HierarchicalPotential._observations

    def together(self, *arguments):
        if next(calls) < 3:
            all_three.wait(60)
        return observations(self, *arguments)

    monkeypatch.setattr(HierarchicalPotential, "_observations", together)
    by_threads = partial().prepare(frames, groups)
    for part, equations in by_family.parts.items():
        assert np.array_equal(equations.matrix, by_threads.parts[part].matrix)
        assert np.array_equal(equations.vector, by_threads.parts[part].vector)


def test_leaving_parts_out_is_fitting_without_them(by_family, frames):
    """The same representatives and the labels of the rest, added up by hand."""
    kept = [f for f in frames if f.group not in ("hcp", "pa3-b")]
    estimator = partial()
    n = sum(d.n_coefficients for d in by_family.designs.values()) + 1
    equations, rest = NormalEquations.zeros(n), []
    for frame in kept:
        observations = estimator._observations(
            frame, by_family.potential, by_family.designs, by_family.sources, WEIGHTS
        )
        equations.add(*observations)
        left = estimator._residual(
            frame,
            by_family.potential.__class__(
                0.0, by_family.potential.bond, by_family.potential.stretch
            ),
        )[0]
        rest.append(("", left / frame.n_atoms))
    by_hand = estimator.solve(replace(by_family, parts={"": equations}, rest={"": rest}))
    solved = partial().solve(by_family, ["pa3", "hcp-b"])
    assert solved.report_["observations"] == sum(7 + 3 * f.n_atoms for f in kept)
    assert_same_predictions(by_hand, solved, frames[:8])
    # Not by chance: with everything the potential is another one.
    whole = partial().solve(by_family)
    a, b = (predict(e.potential_, frames[:8]).forces[1] for e in (whole, solved))
    assert np.abs(a - b).max() > 1e-4


def test_solutions_do_not_wear_out_what_was_prepared(by_family, frames):
    first = partial().solve(by_family)
    partial().solve(by_family, ["pa3"])
    again = partial().solve(by_family)
    assert_same_predictions(first, again, frames[:4], tolerance=0.0)


def test_stretch_holds_what_few_bonds_reach(fitted, frames):
    """Bonds of all but one in a thousand at either end are seen as they are, nearly."""
    held = fitted.potential_.stretch
    lengths = np.concatenate([np.linalg.norm(f.bond_vectors(), axis=1) for f in frames])
    assert held.low <= np.quantile(lengths, 0.001) < np.quantile(lengths, 0.999) <= held.high
    assert held.r0 == fitted.potential_.bond.r0
    assert 0 < 2 * held.margin <= held.high - held.low
    assert fitted.report_["stretch"] == {"low": held.low, "high": held.high}


def test_estimator_conventions(frames):
    estimator = HierarchicalPotential(PAIR, variance=False)
    copy = clone(estimator).set_params(bond="quartic")
    assert estimator.bond == "auto" and copy.pair == PAIR
    copy.fit(frames[:20])
    assert copy.potential_.orientation is None
    assert copy.potential_.environment is None
    assert list(copy.stages_) == ["bond", "pair", "all"]
    assert not hasattr(estimator, "potential_")
    assert copy.predict(frames[:3]).shape == (3,)


def test_grid_search_over_frames_by_family(atoms):
    chosen = [frame_from_atoms(label(f, f.info["group"], BONDS), "Frame") for f in atoms]
    groups = [f.group for f in chosen]
    search = GridSearchCV(
        HierarchicalPotential(variance=False),
        {"bond": ["harmonic", "quartic"]},
        cv=GroupKFold(2),
        error_score="raise",
    ).fit(chosen, groups=groups)
    # The truth is a quartic, and nothing else.
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
    estimator = HierarchicalPotential(bond="quartic", bond_groups=("gas",))
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
    """And a function of the distance alone, which no later stage changes."""
    k = [f.kind for f in fitted.potential_.pair.basis.functions].index("born_mayer")
    strengths = {stage: p.pair.coefficients[:, k] for stage, p in fitted.stages_.items() if p.pair}
    assert list(strengths) == STAGES[1:]
    for found in strengths.values():
        assert found[0] == fitted.report_["baseline"]["strength"] > 0
        assert not found[1:].any()


def test_baseline_families_must_exist(frames):
    estimator = HierarchicalPotential(PAIR, bond="quartic", baseline_groups=("gas",))
    with pytest.raises(DataError, match="gas"):
        estimator.fit(frames)


def far_apart(frames):
    """The same frames, their molecules out of each other's reach."""
    out = []
    for f in frames:
        a = Atoms(f"H{f.n_atoms}", f.positions, cell=f.cell, pbc=True)
        out.append(frame_from_atoms(label(scale_centres(a, 4.0), "far"), "Frame"))
    return out


def test_a_baseline_needs_contacts(frames):
    """Few are enough, whatever else is among the families it is fitted to."""
    estimator = HierarchicalPotential(PAIR, bond="quartic", baseline_groups=("far",))
    with pytest.raises(DataError, match=r"within 2\.5 Å: see pair\.baseline_groups"):
        estimator.fit([*frames[:20], *far_apart(frames[:4])])
    closest = sorted(frames, key=lambda f: f.shortest_contact)
    near = [replace(f, group="far") for f in closest[:2]]
    alone = far_apart(frames[:1])[0]
    estimator.fit([*frames[:20], *near, *150 * [alone]])
    assert estimator.report_["baseline"]["strength"] > 0


def test_a_baseline_that_attracts_is_refused(frames):
    """As labels with the wrong sign do, but for the bonds."""
    estimator = HierarchicalPotential(PAIR, bond="quartic", weights=WEIGHTS)
    bond, _ = fit_bond(frames, "quartic", WEIGHTS)
    alone = Potential(0.0, bond)
    turned = []
    for f in frames:
        own = alone.evaluate(f.geometry(PAIR.cutoff)).forces
        turned.append(replace(f, forces=2.0 * own - f.forces))
    with pytest.raises(DataError, match="molecules attract each other"):
        estimator.fit(turned)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_fit_without_a_solution_is_said_in_a_sentence(frames):
    estimator = HierarchicalPotential(PAIR, bond="quartic", weights=Weights(1e-200, 0.01))
    with pytest.raises(DataError, match="equations of the fit are not finite"):
        estimator.fit(frames[:20])


def test_deviations_grow_away_from_the_data(fitted, frames):
    potential = fitted.potential_
    seen = np.concatenate([potential.deviations(f.geometry(potential.cutoff)) for f in frames])
    odd = hcp(1.5, (2, 1, 1), seed=9)
    molecules = np.arange(len(odd)).reshape(-1, 2).astype(np.intc)
    far = potential.deviations(
        potential.tracker().update(odd.positions, odd.cell.array, odd.pbc, molecules)
    )
    assert far.min() > 3 * np.median(seen)


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        ({"axial": 1.0, "S": 0.3}, [*range(4, 8), *range(16, 21)]),
        ({"shell": 1.0, "axial-cRb": 0.5}, [*range(12, 16), *range(21, 29)]),
        ({"density": 1.0, "tensor-axis": 1.0}, [*range(4), *range(255, 265)]),
        ({"stretched": 1.0, "vector-axis": 0.2}, [*range(29, 33), *range(245, 255)]),
        ({"vector": 1.0}, [*range(89, 167)]),
        ({"tensor": 1.0}, [*range(167, 245)]),
    ],
)
def test_only_chosen_families_of_fingerprints_enter_the_kernel(frames, inputs, seen):
    """What is no input has a linear coefficient, and no place in the Gaussian."""
    spec = replace(ENVIRONMENT, inputs=inputs, n_representatives=10)
    estimator = HierarchicalPotential(PAIR, ORIENTATION, spec, bond="quartic", weights=WEIGHTS)
    level = estimator.fit(frames[:20]).potential_.environment
    used = np.abs(level.regressor.transform).max(axis=0) > 0
    assert np.flatnonzero(used).tolist() == seen
    assert (level.regressor.linear != 0).all()
    assert len(level.regressor.alpha) == 10


def test_fp_eqq_is_among_the_fitted(fitted):
    level = fitted.potential_.orientation
    assert level.names.count("fp_EQQ") == 1
    assert level.coefficients.ravel()[level.names.index("fp_EQQ")] != 0


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
[orientation]
gaussians = [1.6, 2.5]
cutoff = 4.0
inner = 1.1
outer = 1.5
[environment]
gaussians = [1.4, 2.0, 2.6, 3.2]
aligned = 2.4
shells = [1.3, 1.6, 1.9, 2.2, 2.5, 2.8, 3.1, 3.4]
shell_width = 0.45
cutoff = 4.2
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
    assert model.errors["test_split"] == []
    assert "test split" not in card
    assert list(model.errors["levels"]) == STAGES


def test_learning_curve(run):
    """Fits to half the frames and to all, both without the family they are tested on."""
    folder, result = run
    config = read_config(folder / "toy.toml")
    frames = read_frames(folder / "toy.extxyz")
    parts = _parts(frames, config)
    prepared = config.estimator().prepare(frames, parts)
    test = [f for f in frames if f.group == "hcp"]
    expected = []
    for shell in (1, 0):
        inner = {part for part in parts if part[0] != "hcp" and part[2] >= shell}
        estimator = config.estimator().set_params(variance=False)
        row = error_table(predict(estimator.solve(prepared, inner).potential_, test))[-1]
        expected.append((sum(part in inner for part in parts), row.force_mae, row.energy_mae))
    found = result.model.errors["learning_curve"]
    assert [c["frames"] for c in found] == [n for n, *_ in expected]
    assert expected[1][0] == 45
    assert 15 <= expected[0][0] <= 30
    for point, (_, force, energy) in zip(found, expected, strict=True):
        assert point["force_mae"] == pytest.approx(force, rel=1e-6)
        assert point["energy_mae"] == pytest.approx(energy, rel=1e-6)
    assert found[0]["force_mae"] != pytest.approx(found[1]["force_mae"], rel=1e-3)


@pytest.mark.parametrize("points", [1, 2, 4])
def test_shells_of_the_learning_curve(atoms, tmp_path, points):
    """Each point has half the frames of the next; those never held out are in all of them."""
    write(tmp_path / "toy.extxyz", atoms)
    text = CONFIG.replace("learning_curve = 2", f"learning_curve = {points}")
    text = text.replace("[bond]", 'always = ["pa3"]\n[bond]', 1)
    (tmp_path / "toy.toml").write_text(text)
    config = read_config(tmp_path / "toy.toml")
    frames = read_frames(tmp_path / "toy.extxyz")
    parts = _parts(frames, config)
    assert [part[0] for part in parts] == [f.group for f in frames]
    shells = np.array([part[2] for part in parts])
    always = np.array([f.group == "pa3" for f in frames])
    assert (shells[always] == points - 1).all()
    sizes = [int((shells[~always] >= k).sum()) for k in range(points)]
    assert sizes == [45, 22, 11, 5][:points]
    # Drawn by the seed, and not in the order of the file.
    assert parts == _parts(frames, config)
    if points > 1:
        assert np.ptp(np.flatnonzero((shells == 0) & ~always)) > 25
        other = config.model_copy(update={"fit": config.fit.model_copy(update={"random_state": 1})})
        assert _parts(frames, other) != parts


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


def test_held_out_families_are_not_trained_on(run, atoms):
    """Every frame is predicted once, by a fit that has not seen its family's labels."""
    folder, result = run
    held_out = result.held_out["all"]
    assert sorted(held_out.group.tolist()) == sorted(a.info["group"] for a in atoms)
    config = read_config(folder / "toy.toml")
    frames = read_frames(folder / "toy.extxyz")
    for family in ("hcp", "pa3-b"):
        prepared = config.estimator().prepare(frames, [f.group == family for f in frames])
        estimator = config.estimator().set_params(variance=False).solve(prepared, [False])
        for stage, potential in estimator.stages_.items():
            mine = error_table(predict(potential, [f for f in frames if f.group == family]))
            rows = result.model.errors["levels"][stage]
            stored = next(r for r in rows if r["group"] == family)
            assert stored["force_mae"] == pytest.approx(mine[-1].force_mae, rel=1e-6)
            assert stored["energy_mae"] == pytest.approx(mine[-1].energy_mae, rel=1e-6)


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


def _never(*_):
    raise AssertionError("nothing is predicted again")


@pytest.mark.parametrize("stage", ["write_card", "save_model"])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_while_it_writes_goes_on(atoms, tmp_path, monkeypatch, stage, before):
    """Whatever is there of card and model: there is no model without its card."""
    from ase_hmlp.training import train

    write(tmp_path / "toy.extxyz", atoms)
    (tmp_path / "toy.toml").write_text(quick())
    original = getattr(train, stage)

    def dying(*arguments):
        if not before:
            original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, stage, dying)
    with pytest.raises(KeyboardInterrupt):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert not (tmp_path / "out" / "toy.joblib").exists()
    monkeypatch.undo()
    monkeypatch.setattr(train, "_predict_fold", _never)
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["toy.joblib", "toy.md", "toy.png"]
    assert f"`{file_digest(result.model_path)}`" in result.card_path.read_text()


@pytest.mark.parametrize("name", ["toy.md", "toy.png"])
def test_files_of_others_are_not_replaced_unasked(atoms, tmp_path, name):
    """Said before the fit."""
    write(tmp_path / "toy.extxyz", atoms)
    (tmp_path / "toy.toml").write_text(quick())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name} exists already"):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out", progress=None)
    assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["mine"]
    train_from_config(tmp_path / "toy.toml", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / name).read_bytes() != b"mine"


def test_files_beside_the_model_are_left_alone(atoms, tmp_path):
    write(tmp_path / "toy.extxyz", atoms)
    (tmp_path / "toy.toml").write_text(quick())
    for name in ("folds/0.joblib", ".toy.folds/mine.joblib"):
        (tmp_path / "out" / name).parent.mkdir(parents=True)
        (tmp_path / "out" / name).write_text("mine")
    train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    files = {str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("out/**/*.joblib")}
    assert files == {"folds/0.joblib", ".toy.folds/mine.joblib", "toy.joblib"}


REACH = """
[environment.overlap]
support = 4.0
widths = [0.5, 0.7, 0.9]
inner = 1.0
reach = {}
[fit]"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "toy"', 'name = "toy"\ncolour = "red"', "unknown key 'colour'"),
        ("cutoff = 4.5", "cutof = 4.5", "'pair.cutoff'|'pair.cutof'"),
        ("cutoff = 4.5", "cutoff = -4.5", r"key 'pair.cutoff'"),
        ("[data]", "[data", "is not TOML"),
        ('form = "quartic"', 'form = "spring"', "key 'bond.form'"),
        ("[1.4, 2.0, 2.6, 3.2]", "[1.4, 2.0, 2.6]", "there must be 4 radial functions"),
        ("aligned = 2.4\n", "", r"key 'environment\.aligned'"),
        (
            "aligned",
            "inputs = { charge = 1 }\naligned",
            r"inputs\.charge': .* 'density', .*'shell'",
        ),
        ("aligned", "inputs = { shell = 0 }\naligned", r"inputs\.shell': .* greater than"),
        ("aligned", "inputs = { shell = inf }\naligned", r"inputs\.shell': .* finite"),
        ("aligned", "inputs = {}\naligned", r"key 'environment\.inputs': .* at least 1"),
        ("aligned", 'inputs = ["shell"]\naligned', r"key 'environment\.inputs': .* dictionary"),
        ("shells = [1.3, ", "shells = [", r"key 'environment\.shells': .* at least 8"),
        ("shells = [1.3, ", "shells = [0, 1.3, ", r"key 'environment\.shells"),
        ("shells = [1.3, ", "shells = [-1.3, ", r"key 'environment\.shells 1': .* greater than 0"),
        ("shell_width = 0.45\n", "", r"missing key 'environment\.shell_width'"),
        ("shell_width = 0.45", "shell_width = 0", r"'environment\.shell_width': .* greater than 0"),
        ("inner = 0.9", "inner = 5", "key 'pair': inner = 5, outer = 1.2 and cutoff = 4.5 are not"),
        ("outer = 1.5", "outer = 9", r"key 'orientation': .* outer = 9 .* in ascending order"),
        ("cutoff = 4.5", "cutoff = 100", r"key 'pair': .* cutoff = 100 .* up to 50 Å"),
        ("cutoff = 4.2", "cutoff = 1.5", r"key 'environment': .* in ascending order"),
        ("[fit]", REACH.format(20.5), r"environment\.overlap': reach = 20\.5 is more than 20 Å"),
        ("[fit]", '[split]\nscheme = "families"\ntest = ["gas"]\n[fit]', "names families"),
        ("[fit]", '[split]\nscheme = "families"\n[fit]', "some of the families"),
        ("[fit]", '[split]\nfitted = ["gas"]\n[fit]', "split.fitted names families"),
        ("[fit]", "[fit]\nrandom_state = -1", r"fit\.random_state': .* equal to 0"),
        ("[fit]", "[weights]\nenergy = 1e-200\n[fit]", r"weights\.energy': .* greater than"),
        ("[fit]", "[weights]\nrelative = inf\n[fit]", r"weights\.relative': .* finite"),
        ("aligned", "prior = 1e-200\naligned", r"environment\.prior': .* greater than"),
        ("aligned", "linear_prior = 1e200\naligned", r"environment\.linear_prior': .* less than"),
        ("aligned", "prior = inf\naligned", r"environment\.prior': .* finite"),
        ("aligned", "stretch_width = inf\naligned", r"environment\.stretch_width': .* finite"),
        ("aligned", "tolerance = 1e300\naligned", r"environment\.tolerance': .* less than 1"),
        ("gaussians = [0.9, ", "gaussians = [nan, ", r"pair\.gaussians 1': .* finite"),
    ],
)
def test_bad_configurations(atoms, tmp_path, old, new, message):
    write(tmp_path / "toy.extxyz", atoms[:12])
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        train_from_config(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_radial_ranges_are_what_a_model_file_takes(run):
    """What the configuration lets through can be saved, and the other way round."""
    _, result = run
    for inner, outer, cutoff in ((0.9, 0.9, 4.5), (0.9, 1.2, 50.0), (1.3, 1.2, 4.5), (1, 2, 50.1)):
        data = result.model.to_dict()
        data["potential"]["pair"]["basis"] |= {"inner": inner, "outer": outer, "cutoff": cutoff}
        read = []
        for check in (
            lambda data=data: Model.from_dict(data),
            lambda keys=(inner, outer, cutoff): PairSection(
                **dict(zip(("inner", "outer", "cutoff"), keys, strict=True))
            ),
        ):
            try:
                check()
                read.append(True)
            except (ValueError, ForeignModelError):
                read.append(False)
        assert read == [inner <= outer < cutoff <= 50.0] * 2


def without_stress(atoms):
    """The same frames with energies and forces only."""
    for a in atoms:
        b = a.copy()
        b.calc = SinglePointCalculator(
            b, energy=a.get_potential_energy(), forces=a.get_forces(apply_constraint=False)
        )
        yield b


def quick(text=CONFIG, test="pa3-b"):
    """One fold, no learning curve."""
    text = text.replace("learning_curve = 2", "learning_curve = 1")
    return text.replace("[fit]", f'[split]\nscheme = "families"\ntest = ["{test}"]\n[fit]')


def test_a_model_without_stress_labels_claims_no_pressure(atoms, tmp_path, recwarn):
    write(tmp_path / "toy.extxyz", list(without_stress(atoms)))
    (tmp_path / "toy.toml").write_text(quick())
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    card = result.card_path.read_text()
    assert "pressure not labelled" in card and "500" not in card.split("## Domain")[1][:200]
    assert "no labels | no labels |" in card
    assert not [w for w in recwarn if "All-NaN" in str(w.message)]
    model = load_model(result.model_path)
    assert model.training["pressure"] == "not labelled"
    printed = CliRunner().invoke(main, ["info", str(result.model_path)]).output
    assert re.search(r"^pressure +not labelled", printed, re.M)
    calculated = atoms[0].copy()
    calculated.calc = HMLP(model, threads=1)
    assert np.isfinite(calculated.get_stress()).all()


def test_a_model_with_stress_labels_says_nothing_new(run):
    _, result = run
    assert "pressure" not in result.model.training
    low, high = result.model.domain.pressure
    assert f"pressure {low:.0f} to {high:.0f} GPa" in result.card_path.read_text()


def test_a_model_without_representatives_has_no_deviations(atoms, tmp_path):
    write(tmp_path / "toy.extxyz", atoms)
    text = quick().replace("representatives = 20", "representatives = 0")
    (tmp_path / "toy.toml").write_text(text)
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    model = load_model(result.model_path)
    assert not model.has_deviations and model.errors["reliability"] == {}
    assert len(model.potential.environment.regressor.alpha) == 0


def test_frames_of_one_volume_are_refused_before_the_fit(tmp_path):
    same = [
        label(hcp(3.0, (2, 1, 1), seed=k, bond_spread=0.02), ("hcp", "pa3-b")[k % 2])
        for k in range(12)
    ]
    write(tmp_path / "toy.extxyz", same)
    (tmp_path / "toy.toml").write_text(quick())
    with pytest.raises(DataError, match="volume must be finite, the lower first"):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_without_families_are_told_where_families_come_from(atoms, tmp_path):
    nameless = [a.copy() for a in atoms[:12]]
    for a, b in zip(nameless, atoms, strict=False):
        del a.info["group"]
        a.calc = b.calc
    write(tmp_path / "toy.extxyz", nameless)
    (tmp_path / "toy.toml").write_text(CONFIG)
    message = r"all frames are of 'unnamed': families .*info\[\"group\"\]"
    with pytest.raises(ConfigError, match=message):
        train_from_config(tmp_path / "toy.toml", tmp_path / "out")


def test_changes_replace_values_and_leave_the_rest_of_their_tables(tmp_path):
    """A value may be a table itself."""
    path = tmp_path / "toy.toml"
    text = CONFIG.replace("representatives", "inputs = { axial = 0.5, S = 0.2 }\nrepresentatives")
    path.write_text(text.replace("[fit]", REACH.format(3.0)))
    before = read_config(path)
    after = read_config(
        path,
        [
            "environment.inputs = { shell = 1.0 }",
            "environment.overlap.ridge = 0.1",
            "environment = { prior = 2.0 }",
            'data = { files = ["a"] }',
        ],
    )
    assert after.environment.inputs == {"shell": 1.0}
    expected = before.environment.overlap.model_copy(update={"ridge": 0.1})
    assert after.environment.overlap == expected
    assert (after.environment.prior, after.environment.representatives) == (2.0, 20)
    assert after.data == before.data.model_copy(update={"files": ["a"]})
    # A table that the file does not have.
    path.write_text(CONFIG)
    assert read_config(path, ["weights.force = 30.0"]).weights.force == 30.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("environment.inputs.shell = 2", "environment.inputs is one value, to be given as a whole"),
        ("data.source.weight = 2", "data.source is one value"),
        ("pair.cutoff.x = 2", "pair.cutoff is one value"),
        ("colour.x = 2", "unknown key 'colour'"),
        ("environment.colour.x = 2", "unknown key 'environment.colour'"),
    ],
)
def test_parts_of_values_cannot_be_changed(tmp_path, change, message):
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=message):
        read_config(path, [change])


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
    folds = {fold.name: (fold.train, fold.test) for fold in _folds(frames, config)}
    parts = _parts(frames, config)
    assert [p[1] for p in parts if p[0] == "pushed"] == ["hcp", "hcp", "pa3-b"]
    assert {p[1] for p in parts if p[0] != "pushed"} == {""}
    assert set(folds) == {"hcp", "hcp-b", "pa3", "pa3-b"}
    for name, (train, test) in folds.items():
        assert {frames[i].group for i in test} == {name}
        assert not set(train) & set(test)
        inside = {frames[i].source for i in train if frames[i].group == "pushed"}
        assert inside == {
            "hcp": {"child/2"},
            "pa3-b": {"child/1", "child/5"},
        }.get(name, {"child/1", "child/2", "child/5"})


def test_families_that_every_fit_uses(atoms, tmp_path):
    """Not held out, not counted in the learning curve, but part of what the model is good for."""
    write(tmp_path / "toy.extxyz", atoms)
    text = CONFIG.replace("[fit]", '[split]\nfitted = ["pa3"]\n[fit]')
    (tmp_path / "toy.toml").write_text(text)
    config = read_config(tmp_path / "toy.toml")
    frames = read_frames(tmp_path / "toy.extxyz")
    folds = _folds(frames, config)
    mine = {i for i, f in enumerate(frames) if f.group == "pa3"}
    assert [fold.name for fold in folds] == ["hcp", "hcp-b", "pa3-b"]
    for fold in folds:
        assert mine < set(fold.train) and not mine & set(fold.test)
    assert all(k == 1 for group, _, k in _parts(frames, config) if group == "pa3")
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert result.model.training["frames"] == len(frames)
    assert set(result.held_out["all"].group.tolist()) == {"hcp", "hcp-b", "pa3-b"}
    whole = training_domain(frames)
    assert result.model.domain == whole != training_domain(frames, ["pa3"])


def test_family_split(atoms, tmp_path):
    write(tmp_path / "toy.extxyz", atoms)
    split = '[split]\nscheme = "families"\ntest = ["hcp"]\n[fit]'
    (tmp_path / "toy.toml").write_text(CONFIG.replace("[fit]", split))
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert result.model.training["frames"] == 45
    assert set(result.held_out["all"].group.tolist()) == {"hcp"}
    table = evaluate_files(result.model, [tmp_path / "toy.extxyz"])
    assert (table.frames, table.seen) == (60, 45)


# ---------------------------------------------------------------- the test split


def with_tests(atoms, tests):
    """Copies of labelled atoms, those of index in `tests` labelled as tests, all with a source."""
    out = []
    for k, a in enumerate(atoms):
        copy = a.copy()
        copy.calc = SinglePointCalculator(copy, **a.calc.results)
        copy.info["source"] = f"frame/{k}"
        if k in tests:
            copy.info["split"] = "test"
        out.append(copy)
    return out


TESTS = {3, 7, 10, 20, 21}


@pytest.fixture(scope="module")
def tested(atoms, tmp_path_factory):
    """A training run on frames of which some are labelled as tests."""
    folder = tmp_path_factory.mktemp("tested")
    write(folder / "toy.extxyz", with_tests(atoms, TESTS))
    (folder / "toy.toml").write_text(CONFIG)
    return folder, train_from_config(folder / "toy.toml", folder / "out")


def test_frames_of_the_test_split_are_read_as_such(tested):
    frames = read_frames(tested[0] / "toy.extxyz")
    assert {k for k, f in enumerate(frames) if f.split == "test"} == TESTS
    usable, tests = split_off_tests(frames)
    assert len(usable) == 55 and len(tests) == 5
    config = read_config(tested[0] / "toy.toml")
    assert {f.source for f in fitted_frames(frames, config)} == {f.source for f in usable}


def test_no_fit_sees_the_test_split(tested, atoms, tmp_path):
    """The model is the one that the other frames alone give, to the last bit."""
    folder, result = tested
    training = result.model.training
    assert training["frames"] == 55
    assert sum(training["groups"].values()) == 55
    frames = read_frames(folder / "toy.extxyz")
    digests = set(training["frame_digests"].tolist())
    assert digests == {f.digest for f in frames if f.split != "test"}
    assert len(result.held_out["all"].group) == 55
    others = [a for k, a in enumerate(with_tests(atoms, TESTS)) if k not in TESTS]
    write(tmp_path / "toy.extxyz", others)
    (tmp_path / "toy.toml").write_text(CONFIG)
    alone = train_from_config(tmp_path / "toy.toml", tmp_path / "out").model
    for key in ("levels", "learning_curve"):
        assert alone.errors[key] == result.model.errors[key]
    a, b = (predict(m.potential, frames) for m in (alone, result.model))
    np.testing.assert_array_equal(a.forces, b.forces)
    table = evaluate_files(result.model, [folder / "toy.extxyz"])
    assert (table.frames, table.seen) == (60, 55)


def test_errors_on_the_test_split_are_reported(tested):
    folder, result = tested
    tests = [f for f in read_frames(folder / "toy.extxyz") if f.split == "test"]
    expected = [r.to_dict() for r in error_table(predict(result.model.potential, tests))]
    found = result.model.errors["test_split"]
    assert [r["group"] for r in found] == [r["group"] for r in expected]
    assert found[-1]["frames"] == 5
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs)
    card = result.card_path.read_text()
    _, after = card.split("On the test split, whole trajectories that no fit has ever seen:")
    row = expected[-1]
    line = f"| **all** | 5 | {row['energy_mae']:.2f} ({row['energy_rmse']:.2f}) "
    assert line in after
    assert line not in card[: card.index("On the test split")]


def test_what_was_made_from_a_test_frame_is_not_fitted_either(atoms, tmp_path):
    """A frame stays on its parent's side of any split."""
    frames = with_tests(atoms[:20], {4})
    for k in (4, 5):
        child = label(frames[k].copy(), "pushed")
        child.info |= {"source": f"child/{k}", "parent": f"frame/{k}"}
        child.info.pop("split", None)
        frames.append(child)
    write(tmp_path / "toy.extxyz", frames)
    (tmp_path / "toy.toml").write_text(CONFIG)
    read = read_frames(tmp_path / "toy.extxyz")
    fitted = fitted_frames(read, read_config(tmp_path / "toy.toml"))
    sources = {f.source for f in fitted}
    assert "child/5" in sources
    assert not {"frame/4", "child/4"} & sources
