"""Predicted deviations: scaled to the errors of unseen frames, reported, and warned of."""

import dataclasses
import warnings

import numpy as np
import pytest
from ase.io import write
from test_training import CONFIG, TESTS, structures, with_tests
from toy_calculator import toy_model
from toy_models import hcp, toy_potential

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning
from ase_hmlp.model_io import load_model, save_model
from ase_hmlp.training.card import reliability_lines
from ase_hmlp.training.config import read_config
from ase_hmlp.training.evaluate import Predictions, predict
from ase_hmlp.training.frames import frame_from_atoms, read_frames
from ase_hmlp.training.reliability import GROUPS, TAIL, Reliability
from ase_hmlp.training.train import _parts, train_from_config


def drawn(scale=1.0, frames=400, atoms=4, seed=0, power=1.0):
    """Errors that are normal with the deviations said, or `scale` times those to a power."""
    rng = np.random.default_rng(seed)
    deviation = rng.uniform(1e-3, 1e-2, frames)
    of_atoms = rng.uniform(0.01, 0.1, frames * atoms)
    return Reliability(
        np.abs(scale * deviation**power * rng.normal(size=frames)),
        np.abs(of_atoms * rng.normal(size=frames * atoms)),
        np.repeat(deviation, atoms),
        np.repeat(np.arange(frames), atoms),
    )


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_factor_is_that_of_the_errors(scale):
    """Four hundred frames say it to 1 / sqrt(800), three times that is allowed."""
    seen = drawn(scale)
    assert seen.factor == pytest.approx(scale, rel=3 / np.sqrt(800) * 1.2)
    assert seen.calibrated(seen.factor).factor == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("power", [0.6, 1.0, 2.5])
def test_exponent_is_that_of_the_errors(power):
    """Logarithms of uniform deviations from 1 to 10 spread by 0.59, each error tells that of its
    deviation to sqrt(1/2): a standard error of sqrt(1/2) / (0.59 sqrt(400)) = 0.06, three times
    that is allowed.
    """
    seen = drawn(30.0, power=power)
    assert seen.exponent == pytest.approx(power, abs=0.18)
    factor, exponent = seen.calibration
    assert (exponent == 1.0) == (power == 1.0)
    found = seen.calibrated(factor, exponent)
    assert found.factor == pytest.approx(1.0, rel=1e-12) and found.exponent == 1.0
    np.testing.assert_allclose(found.atom_deviation, factor * seen.atom_deviation**exponent)


def test_few_frames_tell_of_no_exponent():
    assert drawn(frames=8, power=1.5).exponent == 1.0
    nothing = dataclasses.replace(drawn(), atom_deviation=np.zeros(1600))
    assert nothing.exponent == 1.0 and np.isfinite(nothing.calibration).all()


def test_scaling_touches_deviations_only():
    seen, twice = drawn(), drawn().calibrated(2.0)
    np.testing.assert_array_equal(twice.frame_deviation, 2.0 * seen.frame_deviation)
    np.testing.assert_array_equal(twice.atom_deviation, 2.0 * seen.atom_deviation)
    np.testing.assert_array_equal(twice.energy_error, seen.energy_error)
    np.testing.assert_array_equal(twice.force_error, seen.force_error)
    assert twice.threshold == pytest.approx(2.0 * seen.threshold)


def test_threshold_leaves_the_tail_above():
    """Ten of ten thousand atoms that all differ."""
    deviations = 1e-6 * np.random.default_rng(0).permutation(10_000)
    seen = dataclasses.replace(drawn(), atom_deviation=deviations)
    assert TAIL == 0.001 and (deviations > seen.threshold).sum() == 10


def test_table_puts_equally_many_in_order_into_groups():
    seen = drawn()
    table = seen.table()
    assert {len(column) for column in table.values()} == {GROUPS}
    assert (np.diff(table["frame_deviation"]) > 0).all()
    # Errors were drawn with these deviations: groups of 50 show it within 3 / sqrt(100).
    np.testing.assert_allclose(table["energy_error"], table["frame_deviation"], rtol=0.35)
    order = np.argsort(seen.frame_deviation)
    first = seen.frame_deviation[order[:50]], seen.energy_error[order[:50]]
    for name, values in zip(("frame_deviation", "energy_error"), first, strict=True):
        assert table[name][0] == pytest.approx(np.sqrt((values**2).mean()))


def test_few_frames_are_a_group_each():
    table = drawn(frames=3, atoms=1).table()
    assert {len(column) for column in table.values()} == {3}


def test_parts_are_put_together():
    parts = [drawn(seed=k, frames=5) for k in range(3)]
    whole = Reliability.concatenate(parts)
    for name in ("energy_error", "frame_deviation", "force_error", "atom_deviation"):
        np.testing.assert_array_equal(
            getattr(whole, name), np.concatenate([getattr(p, name) for p in parts])
        )
    np.testing.assert_array_equal(whole.frame, np.repeat(np.arange(15), 4))


def test_what_a_potential_expected_of_frames():
    """Errors from predictions, deviations from the potential, frame by frame."""
    frames = [frame_from_atoms(a, "Frame") for a in structures(5, seed=8)]
    potential = toy_potential(seed=4)
    made = predict(potential, frames)
    assert isinstance(made, Predictions)
    seen = Reliability.of(potential, frames, made)
    n = sum(f.n_atoms for f in frames)
    assert seen.energy_error.shape == seen.frame_deviation.shape == (5,)
    assert seen.force_error.shape == seen.atom_deviation.shape == (n,)
    first = 0
    for k, frame in enumerate(frames):
        geometry = frame.geometry(potential.cutoff)
        result = potential.evaluate(geometry)
        mine = slice(first, first + frame.n_atoms)
        error = abs(result.energies.sum() - frame.energy) / frame.n_atoms
        assert seen.energy_error[k] == pytest.approx(error)
        sigma = potential.deviations(geometry)
        assert seen.frame_deviation[k] == pytest.approx(sigma.mean())
        np.testing.assert_array_equal(seen.atom_deviation[mine], sigma)
        lengths = np.linalg.norm(result.forces - frame.forces, axis=1)
        np.testing.assert_allclose(seen.force_error[mine], lengths, rtol=1e-9)
        first += frame.n_atoms


# ---------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run with a test split."""
    folder = tmp_path_factory.mktemp("reliability")
    write(folder / "toy.extxyz", with_tests(list(structures(40)), TESTS))
    (folder / "toy.toml").write_text(CONFIG.replace("learning_curve = 2", "learning_curve = 1"))
    return folder, train_from_config(folder / "toy.toml", folder / "out")


def test_shipped_deviations_are_as_large_as_errors_of_held_out_families(run):
    """By hand: solved once without each family, asked about it, and scaled."""
    folder, result = run
    config = read_config(folder / "toy.toml")
    frames = [f for f in read_frames(folder / "toy.extxyz") if f.split != "test"]
    prepared = config.estimator().prepare(frames, _parts(frames, config))
    seen = []
    for family in sorted({f.group for f in frames}):
        inside = [f for f in frames if f.group == family]
        estimator = config.estimator().solve(
            prepared, [part for part in prepared.parts if part[0] != family]
        )
        potential = estimator.potential_
        seen.append(Reliability.of(potential, inside, predict(potential, inside)))
    together = Reliability.concatenate(seen)
    record = result.model.errors["reliability"]
    calibration = record["factor"], record["exponent"]
    assert calibration == pytest.approx(together.calibration, rel=1e-6)
    scaled = together.calibrated(*together.calibration)
    assert record["threshold"] == pytest.approx(scaled.threshold, rel=1e-6)
    assert result.model.uncertainty_threshold == record["threshold"]
    for name, column in scaled.table().items():
        assert record["unseen"][name] == pytest.approx(column, rel=1e-6)
    # The shipped potential says the same to that power, and energies as before.
    whole = config.estimator().solve(prepared).potential_
    geometry = frames[3].geometry(whole.cutoff)
    shipped = result.model.potential
    np.testing.assert_allclose(
        shipped.deviations(geometry),
        record["factor"] * whole.deviations(geometry) ** record["exponent"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        shipped.evaluate(geometry).forces, whole.evaluate(geometry).forces, rtol=0, atol=1e-9
    )


def test_the_test_split_is_judged_by_the_same_scale(run):
    folder, result = run
    tests = [f for f in read_frames(folder / "toy.extxyz") if f.split == "test"]
    potential = result.model.potential
    expected = Reliability.of(potential, tests, predict(potential, tests)).table()
    found = result.model.errors["reliability"]["test_split"]
    for name, column in expected.items():
        assert found[name] == pytest.approx(column, rel=1e-6)


def test_card_shows_deviations_against_errors(run):
    _, result = run
    card = result.card_path.read_text()
    record = result.model.errors["reliability"]
    assert f"above {1e3 * record['threshold']:.1f} meV" in card
    held_out, tests = card.split("Held-out families:")[1].split("Test split:")
    for text, table in ((held_out, record["unseen"]), (tests, record["test_split"])):
        row = [f"{1e3 * column[0]:.1f}" for column in table.values()]
        assert sorted(row) == sorted(text.split("| 1 | ")[1].split(" |\n")[0].split(" | "))


@pytest.mark.parametrize(
    "record, words",
    [
        ({"exponent": 2.5}, "scaled as a whole, to the power of 2.5, so that"),
        ({"exponent": 1.0}, "scaled as a whole, so that"),
        ({}, "scaled as a whole, so that"),  # as in models from before there were exponents
    ],
)
def test_card_says_the_power(record, words):
    assert words in "\n".join(reliability_lines({"threshold": 0.004, **record}))


def test_without_variances_there_is_no_threshold(tmp_path):
    write(tmp_path / "toy.extxyz", list(structures(24)))
    text = CONFIG.replace("learning_curve = 2", "learning_curve = 1\nvariance = false")
    (tmp_path / "toy.toml").write_text(text)
    result = train_from_config(tmp_path / "toy.toml", tmp_path / "out")
    assert result.model.errors["reliability"] == {}
    assert result.model.uncertainty_threshold is None
    assert not result.model.has_deviations
    assert "Predicted deviations" not in result.card_path.read_text()


# ---------------------------------------------------------------- the calculator


def judged(threshold):
    """The toy model with a threshold on record."""
    model = toy_model()
    reliability = {"factor": 1.0, "threshold": threshold, "unseen": {}}
    return dataclasses.replace(model, errors=model.errors | {"reliability": reliability})


def test_calculator_warns_once_of_the_least_certain_atom(tmp_path):
    atoms = hcp(3.0, (2, 2, 1), seed=1, bond_spread=0.01)
    sigma = HMLP(toy_model(), threads=1).uncertainties(atoms)
    limit = 0.5 * (sigma.max() + np.sort(sigma)[-3])
    # The threshold is in the file.
    calc = HMLP(save_model(judged(float(limit)), tmp_path / "toy.joblib"), threads=1)
    assert load_model(tmp_path / "toy.joblib").uncertainty_threshold == limit
    sentence = (
        rf"atom {sigma.argmax()} is {1e3 * sigma.max():.1f} meV, above the {1e3 * limit:.1f} meV"
    )
    with pytest.warns(DomainWarning, match=sentence) as caught:
        np.testing.assert_allclose(calc.uncertainties(atoms), sigma, rtol=1e-12)
    assert [w.message.kind for w in caught if w.category is DomainWarning] == ["uncertainty"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        calc.uncertainties(atoms)


def test_calculator_is_silent_below_the_threshold_and_without_one():
    atoms = hcp(3.0, (2, 2, 1), seed=1, bond_spread=0.01)
    sigma = HMLP(toy_model(), threads=1).uncertainties(atoms)
    for model in (judged(1.001 * float(sigma.max())), toy_model()):
        with warnings.catch_warnings():
            warnings.simplefilter("error", DomainWarning)
            HMLP(model, threads=1).uncertainties(atoms)
    assert toy_model().uncertainty_threshold is None
