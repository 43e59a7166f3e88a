"""Vibron spectra of bonds whose frequency is known; runs by ASE's velocity Verlet."""

from functools import partial

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.io import Trajectory as ASETrajectory
from ase.io.trajectory import TrajectoryWriter
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from motions import CoupledBonds, lattice, molecule_frames, run, wavenumber
from strategies import rotations, seeds
from toy_calculator import toy_model
from toy_models import BOND_LENGTH, from_molecules, random_axes, toy_bond

from ase_hmlp import HMLP
from ase_hmlp.analysis.source import VERLET
from ase_hmlp.analysis.spectra import verlet_seen
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.analysis.vibron import Vibron, reduced_masses, stretching
from ase_hmlp.errors import MissingVelocitiesError, TimestepError, TooFewFramesError
from ase_hmlp.levels import BondLevel
from ase_hmlp.potential import Potential
from ase_hmlp.simulate.integrators import Times
from ase_hmlp.simulate.run_folder import header

STIFFNESS = 36.0  # eV/Å², that of H2


def vibrating(n, rate, seed=0, masses=None):
    """n^3 molecules that stretch at the rates `rate` (Å/fs) and do not turn."""
    rng = np.random.default_rng(seed)
    centres, cell = lattice(n)
    axes = random_axes(len(centres), rng)
    atoms = from_molecules(centres + 0.5 * cell[0, 0] / n, axes, cell=cell)
    if masses is not None:
        atoms.set_masses(np.tile(masses, len(centres)))
    m = atoms.get_masses().reshape(-1, 2)
    share = m[:, ::-1] / m.sum(axis=1, keepdims=True) * [-1.0, 1.0]
    velocities = (share * np.broadcast_to(rate, len(axes))[:, None])[:, :, None] * axes[:, None]
    atoms.set_velocities(velocities.reshape(-1, 3) / units.fs)
    return atoms


def spectrum(source, **settings):
    (result,) = analyse(Trajectory(source), [Vibron(**settings)])
    return result


@pytest.mark.parametrize("masses", [(1.008, 1.008), (2.014, 2.014), (1.008, 2.014)])
def test_harmonic_molecules(masses):
    """The frequency is sqrt(k / mu), for H2, D2 and HD.

    At 0.5 fs velocity Verlet is 0.7 % (31 1/cm) off for H2; without that, what is left is the
    fiftieth of the resolution that a line's fit may miss: 1.6 1/cm, 0.03 to 0.05 %.
    """
    atoms = vibrating(1, 0.01, masses=masses)
    bond = BondLevel("polynomial", (0.0, 0.0, 0.5 * STIFFNESS), BOND_LENGTH, 0.5, 1.1)
    atoms.calc = HMLP(toy_model(Potential(0.0, bond), volume=(1.0, 1e4)), threads=1)
    mu = masses[0] * masses[1] / sum(masses)
    exact = wavenumber(STIFFNESS, mu)
    found = spectrum(run(atoms, 0.5, 6, 300), resolution=80.0, integrator_step=0.5)
    for name in ("in-phase (Raman)", "total"):
        assert found[f"{name} peak"].value == pytest.approx(verlet_seen(exact, 0.5), abs=1.6)
        assert found[f"{name} peak, zero step"].value == pytest.approx(exact, abs=1.6)
        assert found[f"{name} peak, zero step"].value == pytest.approx(exact, rel=1e-3)
    assert exact * 1e-3 < verlet_seen(exact, 0.5) - exact


def test_the_step_of_a_run_is_in_its_trajectory(tmp_path):
    """`hmlp run` writes it: of the bonds, where those have steps of their own."""
    atoms = vibrating(1, 0.01)
    bond = BondLevel("polynomial", (0.0, 0.0, 0.5 * STIFFNESS), BOND_LENGTH, 0.5, 1.1)
    atoms.calc = HMLP(toy_model(Potential(0.0, bond), volume=(1.0, 1e4)), threads=1)
    frames = list(run(atoms, 0.5, 6, 300))
    with TrajectoryWriter(tmp_path / "run.traj") as writer:
        times = Times(timestep=1.5, bond_steps=3)
        writer.set_description(header(times, 2, np.array([[0, 1]])))
        for frame in frames:
            writer.write(frame)
    told = spectrum(frames, resolution=80.0, integrator_step=0.5)
    found = spectrum(tmp_path / "run.traj", resolution=80.0)
    for name in ("in-phase (Raman)", "total"):
        zero = f"{name} peak, zero step"
        assert found[zero].value == pytest.approx(told[zero].value, abs=1e-6)


class Spring(Calculator):
    """Two atoms; barostats see no stress."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        vector = atoms.positions[1] - atoms.positions[0]
        length = np.linalg.norm(vector)
        force = STIFFNESS * (length - BOND_LENGTH) * vector / length
        self.results = {
            "energy": 0.5 * STIFFNESS * (length - BOND_LENGTH) ** 2,
            "forces": np.array([force, -force]),
            "stress": np.zeros(6),
        }


#: Thermostats and barostats so slow that they do nothing.
SLOW = 1e9 * units.fs
INTEGRATORS = {
    "VelocityVerlet": VelocityVerlet,
    "LangevinBAOAB": partial(LangevinBAOAB, T_tau=SLOW, temperature_K=1.0, rng=0),
    "NVTBerendsen": partial(NVTBerendsen, taut=SLOW, temperature_K=1.0),
    "MTKNPT": partial(MTKNPT, tdamp=SLOW, pdamp=SLOW, temperature_K=300.0, pressure_au=0.0),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_the_step_of_ases_own_integrators_is_in_their_trajectories(name, tmp_path):
    """All of the Verlet kind: at 1 fs a vibron is 138 1/cm too high."""
    atoms = vibrating(1, 0.01)
    atoms.calc = Spring()
    step, exact = 1.0, wavenumber(STIFFNESS, 0.504)
    path = str(tmp_path / "run.traj")
    with INTEGRATORS[name](atoms, step * units.fs, trajectory=path) as dynamics:
        dynamics.run(700)
    assert name in VERLET
    found = spectrum(path, resolution=80.0)
    assert found["total peak"].value == pytest.approx(verlet_seen(exact, step), abs=1.6)
    assert found["total peak, zero step"].value == pytest.approx(exact, abs=1.6)
    assert verlet_seen(exact, step) - exact > 100.0
    # Another integrator may see another frequency.
    with ASETrajectory(path) as frames, TrajectoryWriter(tmp_path / "other.traj") as writer:
        writer.set_description(frames.description | {"md-type": "Gear"})
        for frame in frames:
            writer.write(frame)
    other = spectrum(tmp_path / "other.traj", resolution=80.0)
    assert not any(quantity.name.endswith("zero step") for quantity in other.quantities)


def test_morse_molecules_vibrate_slower_the_more_energy_they_have():
    """A classical Morse oscillator: w = w0 sqrt(1 - E / D), w0 = a sqrt(2 D / mu).

    The correction for Verlet is the harmonic one: here 0.5 % of the frequency, and right to a
    share of the order of E / D of that.
    """
    depth, width = 4.5, 2.0
    atoms = vibrating(1, 0.12)
    energy = atoms.get_kinetic_energy()
    assert 0.05 < energy / depth < 0.15
    model = toy_model(Potential(0.0, toy_bond("morse")), volume=(1.0, 1e4), bond_limits=(0.3, 2.0))
    atoms.calc = HMLP(model, threads=1)
    harmonic = wavenumber(2.0 * depth * width**2, 0.504)
    exact = harmonic * np.sqrt(1.0 - energy / depth)
    found = spectrum(run(atoms, 0.4, 8, 200), resolution=80.0, integrator_step=0.4)
    assert found["total peak, zero step"].value == pytest.approx(exact, abs=1.6 + 5e-4 * exact)
    assert harmonic - exact > 50.0


def test_coupling_moves_the_in_phase_line_only():
    """The total spectrum has m - 1 of m modes at sqrt(k / mu), the sum is at sqrt((k + K) / mu)."""
    rng = np.random.default_rng(0)
    # 300 K of stretching energy; half of it will be potential.
    rate = rng.normal(size=27) * np.sqrt(2.0 * units.kB * 300.0 / 0.504) * units.fs
    atoms = vibrating(3, rate)
    atoms.calc = CoupledBonds(STIFFNESS, 3.0)
    found = spectrum(run(atoms, 0.5, 6, 300), resolution=80.0, integrator_step=0.5)
    assert found["total peak, zero step"].value == pytest.approx(
        wavenumber(STIFFNESS, 0.504), abs=1.6
    )
    assert found["in-phase (Raman) peak, zero step"].value == pytest.approx(
        wavenumber(STIFFNESS + 3.0, 0.504), abs=1.6
    )
    table = found.table("vibron")
    for name in ("total_cm", "in_phase_cm"):
        area = np.trapezoid(table[name], table["wavenumber_per_cm"])
        # Each mode keeps the energy that it was given.
        expected = 1.0 if name == "total_cm" else rate.sum() ** 2 / (rate**2).sum()
        assert area == pytest.approx(expected, rel=0.05)
    assert found["temperature of stretching"].value == pytest.approx(
        np.mean(0.504 * rate**2) / 2.0 / units.fs**2 / units.kB, rel=0.05
    )


# ---------------------------------------------------------------- symmetries


def wandering(seed, n=100, m=8, timestep=1.0):
    """Bonds and their velocities (n, m, 3) of molecules that vibrate and turn a little."""
    rng = np.random.default_rng(seed)
    times = timestep * np.arange(n)[:, None, None]
    axes = random_axes(m, rng)
    w = rng.uniform(0.6, 0.9, size=(m, 1))
    phase = rng.uniform(0.0, 6.0, size=(m, 1))
    side = 0.05 * random_axes(m, rng)
    bonds = 0.74 * axes + 0.03 * np.sin(w * times + phase) * axes + np.sin(0.02 * times) * side
    velocities = 0.03 * w * np.cos(w * times + phase) * axes + 0.02 * np.cos(0.02 * times) * side
    return bonds, velocities


@given(seeds)
def test_stretching_is_the_derivative_of_the_bond_length(seed):
    bonds, velocities = wandering(seed, n=3, timestep=1e-3)
    lengths = np.linalg.norm(bonds, axis=-1)
    slope = (lengths[2] - lengths[0]) / 2e-3
    assert stretching(bonds, velocities)[1] == pytest.approx(slope, abs=1e-7)
    assert stretching(-bonds, -velocities) == pytest.approx(stretching(bonds, velocities))


@settings(max_examples=3)
@given(seeds, rotations())
def test_spectra_do_not_change_by_rotation_or_repetition(seed, rotation):
    bonds, velocities = wandering(seed)
    plain = spectrum(molecule_frames(bonds, velocities, 1.0), resolution=600.0)

    def changed(change):
        out = []
        for atoms in molecule_frames(bonds, velocities, 1.0):
            time = atoms.info["time_fs"]
            out.append(change(atoms))
            out[-1].info["time_fs"] = time
        return spectrum(out, resolution=600.0)

    def turned(atoms):
        velocity = atoms.get_velocities() @ rotation
        atoms.set_cell(atoms.cell @ rotation)
        atoms.positions = atoms.positions @ rotation
        atoms.set_velocities(velocity)
        return atoms

    def wrapped(atoms):
        atoms.wrap()
        return atoms

    # Single precision.
    for other in (changed(turned), changed(wrapped)):
        for column in ("total_cm", "in_phase_cm"):
            a, b = plain.table("vibron")[column], other.table("vibron")[column]
            assert b == pytest.approx(a, abs=1e-4 * a.max())
    repeated = changed(lambda atoms: atoms.repeat((2, 1, 1)))
    a, b = plain.table("vibron"), repeated.table("vibron")
    assert b["total_cm"] == pytest.approx(a["total_cm"], abs=1e-4 * a["total_cm"].max())
    # The copies move in phase: their sum is twice, its square over the number of molecules too.
    assert b["in_phase_cm"] == pytest.approx(
        2.0 * a["in_phase_cm"], abs=2e-4 * a["in_phase_cm"].max()
    )


def test_reduced_masses():
    masses = [1.008, 2.014, 1.008, 1.008]
    found = reduced_masses(masses, np.array([[0, 1], [2, 3]]))
    assert found == pytest.approx([1.008 * 2.014 / 3.022, 0.504])


# ---------------------------------------------------------------- refusals


def moving(n=100, timestep=1.0):
    return list(molecule_frames(*wandering(0, n, timestep=timestep), timestep))


def test_frames_without_velocities():
    frames = moving()
    for atoms in frames:
        del atoms.arrays["momenta"]
    with pytest.raises(MissingVelocitiesError, match="which a vibron spectrum needs"):
        spectrum(frames)


def test_frames_too_far_apart_or_too_few():
    with pytest.raises(TimestepError, match=r"write a frame at least every 3\.3 fs"):
        spectrum(moving(10, timestep=4.0))
    # D2 is slower by sqrt(2).
    heavy = moving(10, timestep=4.0)
    for atoms in heavy:
        atoms.set_masses(np.full(16, 2.014))
    with pytest.raises(TooFewFramesError, match="at least 601 frames, and there are 10: run"):
        spectrum(heavy)


def test_uneven_frames():
    frames = moving()
    frames[7].info["time_fs"] += 0.5
    with pytest.raises(TimestepError, match="frames must be evenly spaced"):
        spectrum(frames)


def test_a_run_without_errors_says_how_long_it_would_have_to_be():
    found = spectrum(moving(260), resolution=300.0)
    assert np.isnan(found["total peak"].error)
    # One segment of 161 frames and seven more that overlap by half.
    assert any("they need 0.7 ps" in note for note in found.notes)
    long = spectrum(moving(161 + 7 * 80), resolution=300.0)
    assert np.isfinite(long["total peak"].error)
    assert not any("Too short" in note for note in long.notes)
