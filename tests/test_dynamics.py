"""Energy conservation as a property, and ASE's own drivers on the shipped potential."""

import warnings

import numpy as np
import pytest
from ase import units
from ase.filters import FrechetCellFilter
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from toy_models import hcp, pa3

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning
from ase_hmlp.simulate.build import phase

CALCULATOR = HMLP("h2-pbe", threads=1)


@pytest.fixture(autouse=True)
def fresh():
    CALCULATOR.reset()


def settled(atoms, seed, temperature):
    """Relaxed a little, so that dynamics starts within the domain, with velocities."""
    atoms.calc = CALCULATOR
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=60)
    rng = np.random.default_rng(seed)
    thermalize_momenta(atoms, temperature_K=2 * temperature, rng=rng)
    Stationary(atoms)
    return atoms


def total_energies(atoms, step, time):
    """Total energy (eV) at common times (every 2 fs) of a run of `time` fs."""
    atoms = atoms.copy()
    atoms.calc = CALCULATOR
    every = round(2.0 / step)
    dynamics = VelocityVerlet(atoms, step * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=every)
    dynamics.run(round(time / step))
    return np.array(energies)


@settings(max_examples=6)
@given(seeds, st.floats(1.8, 5.0), st.floats(50, 1200), st.sampled_from(["hcp", "pa3", "liquid"]))
def test_energy_error_is_bounded_and_of_second_order(seed, volume, temperature, kind):
    if kind == "pa3":
        atoms = pa3(volume) * (2, 1, 1)
    else:
        atoms = hcp(volume, (2, 2, 1), seed=seed)
    if kind == "liquid":
        atoms.rattle(0.15, seed=seed % 1000)
        molecules = atoms.positions.reshape(-1, 2, 3)
        middle = molecules.mean(axis=1, keepdims=True)
        axis = molecules - middle
        axis *= 0.37 / np.linalg.norm(axis, axis=2, keepdims=True)
        atoms.positions = (middle + axis).reshape(-1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        atoms = settled(atoms, seed, temperature)
        errors = []
        for step in (0.25, 0.125):
            energy = total_energies(atoms, step, 120.0)
            errors.append(np.std(energy) / len(atoms))
    # Velocity Verlet follows a shadow Hamiltonian: the error goes with the square of the step
    # (a factor of 4). Averaging over 60 samples of a chaotic run leaves a third of leeway.
    assert 2.7 < errors[0] / errors[1] < 6.0
    # (omega dt)^2 / 8 of the vibron's share, 1/2 kT per atom: 0.5 % of kT at 0.25 fs; ten times
    # that bounds runs that heat up while they melt.
    assert errors[0] < 0.05 * units.kB * max(temperature, 300.0)


def test_no_drift_over_a_longer_run():
    atoms = settled(pa3(2.6) * (2, 1, 1), 3, 300.0)
    energy = total_energies(atoms, 0.25, 1500.0)
    half = len(energy) // 2
    drift = abs(energy[half:].mean() - energy[:half].mean()) / len(atoms) / 0.75
    # meV/atom/ps; the means of the halves scatter by less than the standard deviation.
    assert 1e3 * drift < 0.05
    assert 1e3 * np.std(energy) / len(atoms) < 0.2


def phase_two(repeat=(1, 1, 1)):
    atoms = phase("P21c-8") * repeat
    atoms.calc = CALCULATOR
    return atoms


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_cell_relaxation_reaches_its_pressure(optimizer):
    atoms = phase_two()
    pressure = 100 * units.GPa
    optimizer(FrechetCellFilter(atoms, scalar_pressure=pressure), logfile=None).run(
        fmax=0.003, steps=800
    )
    stress = atoms.get_stress()
    # The filter's force on the cell is volume x (stress + pressure) / number of atoms.
    tolerance = 0.003 * len(atoms) / atoms.get_volume()
    np.testing.assert_allclose(stress[:3], -pressure, atol=tolerance)
    np.testing.assert_allclose(stress[3:], 0, atol=tolerance)
    assert np.abs(atoms.get_forces()).max() < 0.003


def test_mtk_npt_holds_pressure_and_temperature():
    atoms = phase_two((2, 2, 2))
    thermalize_momenta(atoms, temperature_K=150, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = MTKNPT(
        atoms,
        0.5 * units.fs,
        temperature_K=150,
        pressure_au=100 * units.GPa,
        tdamp=50 * units.fs,
        pdamp=500 * units.fs,
    )
    conserved, pressure = [], []

    def observe():
        conserved.append(dynamics.get_conserved_energy())
        pressure.append(-atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa)

    dynamics.attach(observe, interval=5)
    dynamics.run(800)
    assert 1e3 * np.ptp(conserved[20:]) / len(atoms) < 3.0
    # Fluctuations of 64 atoms are of the order of 5 GPa; the mean must be near the target.
    assert abs(np.mean(pressure[40:]) - 100) < 4.0


def test_langevin_baoab_thermalises():
    atoms = phase_two((2, 2, 2))
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    dynamics = LangevinBAOAB(
        atoms, 0.5 * units.fs, temperature_K=300, T_tau=20 * units.fs, rng=np.random.default_rng(2)
    )
    temperatures = []
    dynamics.attach(lambda: temperatures.append(atoms.get_temperature()), interval=5)
    dynamics.run(1000)
    # 192 degrees of freedom: 10 % each, correlated over 20 fs; 180 samples of 2.5 fs.
    assert abs(np.mean(temperatures[20:]) - 300) < 300 * 3 * 0.1 * np.sqrt(20 / 450)


def test_phonons_of_a_relaxed_crystal(tmp_path):
    atoms = phase_two()
    BFGS(FrechetCellFilter(atoms, scalar_pressure=100 * units.GPa), logfile=None).run(
        fmax=0.002, steps=500
    )
    phonons = Phonons(atoms, CALCULATOR, supercell=(2, 2, 2), delta=0.01, name=tmp_path / "ph")
    phonons.run()
    phonons.read(acoustic=True)
    gamma = np.sort(phonons.band_structure([[0, 0, 0]], verbose=False)[0].real) / units.invcm
    assert np.abs(gamma[:3]).max() < 15  # acoustic modes: the sum rule to finite differences
    # Four stretching modes near the vibron, all others far below.
    assert (gamma[-4:] > 3500).all() and (gamma[-4:] < 5200).all()
    assert gamma[-5] < 3000
    # A minimum with respect to everything that keeps the cell (imaginary ones are negative).
    assert gamma[3] > 100
