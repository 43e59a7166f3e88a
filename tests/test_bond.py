"""The bond level against NumPy polynomials and the Morse formula."""

import numpy as np
import oracle
import pytest
from toy_models import molecule, toy_bond, toy_potential

from ase_hmlp.levels import BondLevel

FORMS = {"polynomial": toy_bond(), "morse": toy_bond("morse")}


@pytest.mark.parametrize("level", FORMS.values(), ids=FORMS)
def test_energy_matches_oracle(level):
    r = np.linspace(0.4, 1.3, 91)
    energy, _ = level.energy(r)
    # A handful of operations on numbers up to 20: 1e-13.
    np.testing.assert_allclose(
        energy, [oracle.bond_energy(level, x) for x in r], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("level", FORMS.values(), ids=FORMS)
def test_slope_is_the_derivative(level):
    r = np.linspace(0.4123, 1.3, 91)
    _, slope = level.energy(r)
    numerical = oracle.derivative(lambda h: level.energy(r + h)[0], 1e-4)
    # Round-off 20 * 1e-16 / 1e-4; no joint lies within a stencil.
    np.testing.assert_allclose(slope, numerical, rtol=0, atol=1e-9)


def test_morse_by_hand():
    energy, slope = toy_bond("morse").energy([0.74, 1.2])
    e = np.exp(-2.0 * 0.46)
    np.testing.assert_allclose(energy, [0.0, 4.5 * (1 - e) ** 2], atol=1e-15)
    np.testing.assert_allclose(slope, [0.0, 2 * 4.5 * 2.0 * (1 - e) * e], atol=1e-14)


@pytest.mark.parametrize("edge", ["lower", "upper"])
def test_polynomial_continues_with_two_derivatives(edge):
    """Beyond the edge: the polynomial's value, slope and curvature, and a wall, 100 eV/Å³ x³."""
    level = toy_bond()
    at = getattr(level, edge)
    inside, outside = (1, -1) if edge == "lower" else (-1, 1)
    p = np.polynomial.Polynomial(level.parameters)
    value, slope, curvature = (
        p.deriv(k)(at - level.r0) if k else p(at - level.r0) for k in range(3)
    )
    delta = np.array([1e-6, 1e-3, 0.1, 0.3])
    energy_out, slope_out = level.energy(at + outside * delta)
    np.testing.assert_allclose(
        slope_out, slope + outside * (curvature * delta + 300.0 * delta**2), atol=1e-11
    )
    np.testing.assert_allclose(
        energy_out,
        value + slope * outside * delta + curvature * delta**2 / 2 + 100.0 * delta**3,
        atol=1e-11,
    )
    _, slope_in = level.energy(at + inside * delta[:2])
    # Inside, the difference is the third derivative: |p'''| < 400 eV/Å^3 there.
    assert (np.abs(slope_in - slope - curvature * inside * delta[:2]) <= 200 * delta[:2] ** 2).all()


def test_bond_rises_beyond_its_domain():
    level = toy_bond()
    far, near = np.linspace(0.95, 3.0, 50), np.linspace(0.6, 0.05, 50)
    assert (np.diff(level.energy(far)[0]) > 0).all()
    assert (np.diff(level.energy(near)[0]) > 0).all()


def test_harmonic_is_a_polynomial():
    level = BondLevel("polynomial", (0.0, 0.0, 18.0), 0.74, 0.6, 0.9)
    r = np.linspace(0.6, 0.9, 30)
    np.testing.assert_allclose(level.energy(r)[0], 18.0 * (r - 0.74) ** 2, atol=1e-13)


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="unknown bond form 'spring'"):
        BondLevel("spring", (1.0,), 0.74, 0.6, 0.9)


def test_too_many_coefficients_are_refused():
    with pytest.raises(ValueError, match="at most 12 coefficients"):
        BondLevel("polynomial", (0.0,) * 13, 0.74, 0.6, 0.9).curve  # noqa: B018


@pytest.mark.parametrize("level", FORMS.values(), ids=FORMS)
def test_bond_survives_plain_data(level):
    assert BondLevel.from_dict(level.to_dict()).to_dict() == level.to_dict()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [0.55, 0.74, 0.8, 1.05])
def test_molecule_in_vacuum(form, length):
    potential = toy_potential(bond=form)
    atoms = molecule(length)
    evaluation = potential.evaluate(
        potential.tracker().update(
            atoms.positions, np.eye(3), (False,) * 3, np.array([[0, 1]], dtype=np.intc)
        )
    )
    energy, slope = toy_bond(form).energy(length)
    axis = np.array([0.0, 0.6, 0.8])
    # Nothing but the bond; the length is known to one unit in its last place.
    assert evaluation.levels["pair"] == 0.0
    assert evaluation.levels["orientation"] == 0.0
    assert evaluation.energies.sum() - 2 * potential.e0 == pytest.approx(energy[0], abs=1e-13)
    np.testing.assert_allclose(
        evaluation.forces, slope[0] * np.array([axis, -axis]), rtol=0, atol=1e-12
    )
