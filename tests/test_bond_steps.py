"""Short time steps for the bonds: the same dynamics with fewer evaluations of all the rest."""

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet
from test_integrators import METHODS, moving, target

from ase_hmlp.simulate.bond_steps import BondForces, ase_kind, with_bond_steps
from ase_hmlp.simulate.integrators import Method, Target, Times, conserved_energy, make
from ase_hmlp.simulate.run_config import RunConfig

#: For which one short step a step is ASE's own: the others share a step out differently.
SAME = ("nve", "nvt-nose-hoover", "nvt-bussi")


def verlet(atoms, step, count=1):
    return make(
        atoms, Method("nve"), Times(step, bond_steps=count), Target(), np.random.default_rng(0)
    )


def test_forces_of_the_bonds_are_the_derivative_of_their_energy():
    atoms = moving()
    bonds = BondForces(atoms)
    level, cell = atoms.calc.model.potential.bond, atoms.cell.array

    def energy(positions):
        lengths = bonds._bonds(positions, cell)[1]
        return level.energy(lengths)[0].sum() - bonds.tension * lengths.sum()

    forces, step = bonds(atoms.positions, cell), 1e-5
    for atom, axis in ((0, 0), (3, 1), (10, 2)):
        ends = []
        for sign in (1, -1):
            positions = atoms.positions.copy()
            positions[atom, axis] += sign * step
            ends.append(energy(positions))
        # The third derivative of a bond's energy, some 300 eV/Å³, times the step squared, by 6.
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_across_the_boundary_a_bond_stays_the_same():
    atoms = moving()
    before = BondForces(atoms)(atoms.positions, atoms.cell.array)
    atoms.positions[5] += atoms.cell.array[0] - atoms.cell.array[2]
    after = BondForces(atoms)(atoms.positions, atoms.cell.array)
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_tension_is_what_is_left_along_the_bonds():
    """What the long steps have to do along a bond is nothing on average."""
    atoms = moving()
    bonds = BondForces(atoms)
    left = atoms.get_forces() - bonds(atoms.positions, atoms.cell.array)
    axes, lengths = bonds._bonds(atoms.positions, atoms.cell.array)
    first, second = atoms.calc.molecules.T
    along = np.einsum("mk,mk->m", left[second] - left[first], axes) / lengths
    assert abs(along.mean()) < 1e-10
    assert abs(bonds.tension) > 0.01
    assert BondForces(atoms, 0.25).tension == 0.25


@pytest.mark.parametrize("name", SAME)
def test_with_one_short_step_it_is_ase(name):
    ends = []
    for short in (False, True):
        atoms, method = moving(), METHODS[name]
        run = make(atoms, method, Times(0.5, 20.0), target(method), np.random.default_rng(3))
        if short:
            kind, options = with_bond_steps(type(run)), {}
            if name != "nve":
                options["temperature_K"] = 300.0
            if name == "nvt-nose-hoover":
                options["tdamp"] = 20.0 * units.fs
            if name == "nvt-bussi":
                options |= {"taut": 20.0 * units.fs, "rng": np.random.default_rng(3)}
            run = kind(atoms, 0.5 * units.fs, bond_steps=1, **options)
        run.run(20)
        ends.append(atoms)
    np.testing.assert_allclose(ends[1].positions, ends[0].positions, atol=1e-10)
    np.testing.assert_allclose(ends[1].get_momenta(), ends[0].get_momenta(), atol=1e-9)


def test_it_runs_backwards():
    atoms = moving()
    start = atoms.positions.copy()
    run = verlet(atoms, 1.25, 5)
    run.run(20)
    assert np.abs(atoms.positions - start).max() > 0.1
    atoms.set_momenta(-atoms.get_momenta())
    run.run(20)
    np.testing.assert_allclose(atoms.positions, start, atol=1e-8)


def test_it_goes_where_small_steps_go():
    """Against Verlet of a tenth of the step; and nearer than Verlet of the same step."""
    ends = {}
    for step, count in ((0.1, 1), (1.0, 1), (1.0, 4)):
        atoms = moving()
        verlet(atoms, step, count).run(round(12.0 / step))
        ends[step, count] = atoms.positions
    truth = ends.pop((0.1, 1))
    plain, short = (np.sqrt(((x - truth) ** 2).mean()) for x in ends.values())
    assert short < 0.001
    assert short < 0.4 * plain


def test_energy_error_is_of_second_order_in_the_long_step():
    spread = []
    for step in (1.0, 0.5):
        run = verlet(moving(), step, 8)
        values = []
        for _ in range(40):
            run.run(round(1.0 / step))
            values.append(conserved_energy(run))
        spread.append(np.std(values))
    assert 2.5 < spread[0] / spread[1] < 6.0


def test_every_integrator_has_one():
    for method in METHODS.values():
        kind = with_bond_steps(method.integrator)
        assert issubclass(kind, method.integrator) and kind is not method.integrator
        assert ase_kind(kind) is method.integrator is ase_kind(method.integrator)
    assert ase_kind(VelocityVerlet) is VelocityVerlet


def test_lammps_has_none():
    given = {
        "engine": "lammps",
        "structure": {"phase": "hcp", "pressure": 10.0},
        "stage": [{"ensemble": "nve", "steps": 10}],
    }
    RunConfig.model_validate(given)
    with pytest.raises(ValueError, match="need engine ase"):
        RunConfig.model_validate(given | {"dynamics": {"bond_steps": 4}})
