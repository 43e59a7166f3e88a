"""Taking ASE's integrators apart and putting them together again; stages and ramps."""

import numpy as np
import pytest
from ase import units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet
from toy_calculator import toy_model
from toy_models import hcp

from ase_hmlp import HMLP
from ase_hmlp.molecules import find_molecules
from ase_hmlp.simulate.dynamics import RAMP_INTERVAL, Dynamics, Stage, draw_momenta, stops
from ase_hmlp.simulate.integrators import Method, Target, Times, conserved_energy, make, take

MODEL = toy_model(volume=(1.0, 12.0), contact=0.6, contact_limit=0.4)
TIMES = Times(0.5, 20.0, 100.0)
#: A long step for all but the bonds, as accurate.
SHORT = Times(1.0, 20.0, 100.0, bond_steps=4)
both = pytest.mark.parametrize("times", [TIMES, SHORT], ids=["one step", "short steps"])
METHODS = {
    "nve": Method("nve"),
    "nvt-nose-hoover": Method("nvt"),
    "nvt-langevin": Method("nvt", "langevin"),
    "nvt-bussi": Method("nvt", "bussi"),
    "npt-full": Method("npt"),
    "npt-iso": Method("npt", cell="iso"),
    "npt-langevin-full": Method("npt", "langevin"),
    "npt-langevin-iso": Method("npt", "langevin", "iso"),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def target(method, temperature=300.0, pressure=40.0):
    return Target(
        temperature if method.ensemble != "nve" else float("nan"),
        pressure if method.ensemble == "npt" else float("nan"),
    )


def calculator(molecules=None):
    return HMLP(MODEL, bonds=molecules, threads=1)


def moving(temperature=300.0):
    atoms = hcp(3.0, (2, 2, 1), seed=1)
    atoms.calc = calculator(find_molecules(atoms.positions, atoms.cell.array, atoms.pbc))
    atoms.set_masses(atoms.get_masses())
    draw_momenta(atoms, temperature, np.random.default_rng(0))
    return atoms


def dynamics(stages, seed=5, times=TIMES):
    return Dynamics(moving(), stages, times, np.random.default_rng(seed))


def numbers(thing, path=""):
    """Every number and array in an integrator and what ASE put into it, by where it is."""
    found = {}
    for name, value in vars(thing).items():
        here = f"{path}.{name}"
        if isinstance(value, (bool, int, float, np.ndarray, np.floating)):
            found[here] = np.asarray(value, dtype=float)
        elif type(value).__module__.startswith("ase.md"):
            found |= numbers(value, here)
    return found


#: What an integrator may know that another made for the same atoms does not: how far it is, the
#: cell it measures strains from, and what every step of it computes anew before use.
OWN = {".nsteps", ".max_steps", "._cell0", "._volume0", "._eps", ".gamma_mod"}


@both
@methods
def test_an_integrator_put_together_again_lacks_nothing(method, times):
    """Whatever ASE adds to its integrators must be carried too, or this fails."""
    atoms, goal, rng = moving(), target(method), np.random.default_rng(1)
    before = make(atoms, method, times, goal, rng)
    before.run(25)
    after = make(atoms, method, times, goal, rng, take(before, goal))
    old, new = numbers(before), numbers(after)
    assert old.keys() == new.keys()
    for name in old.keys() - OWN:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-12, atol=1e-12, err_msg=name)


@both
@methods
def test_state_and_restored_change_nothing(method, times):
    """Interrupted every seven steps or never: equal but for the order of sums."""
    stage = Stage(method, 60, target(method), target(method))
    ends = []
    for every in (60, 7):
        run = dynamics([stage], times=times)
        for step in range(every, 61, every):
            run.advance(step)
            run = Dynamics.restored(
                run.state(), [stage], times, calculator(run.atoms.calc.molecules)
            )
        run.advance(60)
        ends.append(run)
    one, other = ends
    # Rounding grows by a factor of e in some ten steps of these collisions.
    np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=1e-10)
    np.testing.assert_allclose(one.atoms.cell.array, other.atoms.cell.array, atol=1e-10)
    np.testing.assert_allclose(one.atoms.get_momenta(), other.atoms.get_momenta(), atol=1e-9)


@both
@methods
def test_conserved_quantity_is_conserved_across_stages_and_ramps(method, times):
    steps = 60
    cold, hot = target(method, 200.0, 35.0), target(method, 400.0, 45.0)
    stages = [
        Stage(method, steps, cold, cold),
        Stage(method, steps, cold, hot),
        Stage(method, steps, hot, hot),
    ]
    run = dynamics(stages, times=times)
    change, kinetic = [], []
    for step in range(5, 3 * steps + 1, 5):
        run.advance(step)
        change.append(run.conserved())
        kinetic.append(run.atoms.get_kinetic_energy())
    if method.integrator is LangevinBAOAB:
        assert np.isnan(change).all()
        return
    # Integrators of second order: the energy that is exchanged, times (omega dt)^2 / 8 of the
    # vibron (0.02), is what they are off by at most.
    assert np.ptp(change) < 0.05 * np.ptp(kinetic)
    assert np.ptp(change) > 0.0


def test_velocity_verlet_error_is_of_second_order():
    """The independent check of `conserved_energy`: it halves to a quarter with the step."""
    spread = []
    for step in (0.5, 0.25):
        atoms = moving()
        integrator = make(atoms, Method("nve"), Times(step), Target(), np.random.default_rng(0))
        assert isinstance(integrator, VelocityVerlet)
        values = []
        for _ in range(40):
            integrator.run(round(1.0 / step))
            values.append(conserved_energy(integrator))
        spread.append(np.std(values))
    assert 3.0 < spread[0] / spread[1] < 5.5


@pytest.mark.parametrize("thermostat", ["langevin", "bussi", "nose-hoover"])
def test_thermostat_reaches_the_target_of_a_ramp(thermostat):
    method = Method("nvt", thermostat)
    cold, hot = Target(100.0), Target(600.0)
    stages = [Stage(method, 150, cold, hot), Stage(method, 250, hot, hot)]
    run = dynamics(stages)
    temperatures = []
    for step in range(10, 401, 10):
        run.advance(step)
        temperatures.append(run.atoms.get_temperature())
    # 48 degrees of freedom: 20 % each; 100 fs of 20 fs of memory: five independent ones.
    assert np.mean(temperatures[-20:]) == pytest.approx(600.0, rel=4 * 0.2 / np.sqrt(5))
    assert np.mean(temperatures[:5]) < 400.0


@pytest.mark.parametrize(
    "method", [METHODS["npt-iso"], METHODS["npt-langevin-iso"]], ids=["mtk", "langevin"]
)
def test_barostat_follows_a_ramp_of_pressure(method):
    low, high = Target(200.0, 20.0), Target(200.0, 50.0)
    stages = [Stage(method, 250, low, high), Stage(method, 200, high, high)]
    run = dynamics(stages)
    pressures, volumes = [], []
    for step in range(10, 451, 10):
        run.advance(step)
        stress = run.atoms.get_stress(include_ideal_gas=True)
        pressures.append(-stress[:3].mean() / units.GPa)
        volumes.append(run.atoms.get_volume())
    # A period of the barostat; the pressure of 16 atoms fluctuates by some GPa.
    assert np.mean(pressures[-20:]) == pytest.approx(50.0, abs=5.0)
    assert np.mean(volumes[-20:]) < 0.9 * np.mean(volumes[:10])


def test_targets_of_a_ramp():
    stage = Stage(Method("npt"), 200, Target(100.0, 10.0), Target(300.0, 50.0))
    assert stage.at(0) == Target(100.0, 10.0)
    assert stage.at(100) == Target(200.0, 30.0)
    assert stage.at(200) == stage.at(500) == Target(300.0, 50.0)
    run = dynamics([Stage(Method("nve"), 5, Target(), Target()), stage])
    assert np.isnan(run.target.temperature)
    run.advance(105)
    assert run.stage_number == 2
    assert run.target == Target(200.0, 30.0)


def test_a_ramp_does_not_depend_on_where_it_is_looked_at():
    method = METHODS["nvt-nose-hoover"]
    stage = Stage(method, 55, Target(100.0), Target(600.0))
    ends = []
    for looks in ([55], [3, RAMP_INTERVAL, 17, 18, 44, 55]):
        run = dynamics([stage])
        for step in looks:
            run.advance(step)
            run.atoms.get_stress()
        ends.append(run.atoms.positions)
    np.testing.assert_array_equal(*ends)


def test_where_a_thermostat_changes_it_starts_at_rest():
    goal = Target(300.0)
    stages = [Stage(METHODS[k], 20, goal, goal) for k in ("nvt-nose-hoover", "nvt-bussi")]
    run = dynamics(stages)
    run.advance(40)
    assert set(run.state()) >= {"carried.transferred_energy"}
    assert not any("_eta" in name for name in run.state())


def test_random_numbers_go_on_where_they_were():
    goal = Target(300.0)
    run = dynamics([Stage(METHODS["nvt-langevin"], 10, goal, goal)])
    run.advance(5)
    other = Dynamics.restored(run.state(), run.stages, TIMES, calculator())
    assert other.rng is not run.rng
    np.testing.assert_array_equal(other.rng.normal(size=5), run.rng.normal(size=5))


@pytest.mark.parametrize("after", ["nve", "nvt-nose-hoover", "nvt-bussi"])
def test_what_follows_langevin_dynamics_finds_the_centre_of_mass_at_rest(after):
    """Also if it was continued in between, which is the same."""
    goal, ends = Target(300.0), []
    stages = [Stage(METHODS["nvt-langevin"], 20, goal, goal)]
    stages.append(Stage(METHODS[after], 20, goal, goal))
    for stop in (20, 25):
        run = dynamics(stages)
        run.advance(20)
        assert abs(run.atoms.get_momenta().sum(axis=0)).max() > 0.1
        run.advance(stop)
        run = Dynamics.restored(run.state(), stages, TIMES, calculator())
        run.advance(40)
        np.testing.assert_allclose(run.atoms.get_momenta().sum(axis=0), 0.0, atol=1e-9)
        ends.append(run.atoms.positions)
    np.testing.assert_allclose(*ends, atol=1e-9)


def test_bussi_has_no_barostat():
    with pytest.raises(ValueError, match="barostat"):
        assert Method("npt", "bussi").integrator


def test_stops():
    assert list(stops(0, 10, [4, 3])) == [3, 4, 6, 8, 9, 10]
    assert list(stops(8, 10, [4, 3])) == [9, 10]
    assert list(stops(10, 10, [4])) == []
    assert list(stops(0, 3, [100])) == [3]


def test_momenta_are_of_the_temperature():
    atoms = hcp(3.0, (4, 4, 3), seed=1)
    atoms.set_masses([1.008, 2.014] * (len(atoms) // 2))
    draw_momenta(atoms, 250.0, np.random.default_rng(3))
    # 3 n degrees of freedom, 384 here: 7 %; within three of those.
    assert atoms.get_temperature() == pytest.approx(250.0, rel=3 * np.sqrt(2 / (3 * len(atoms))))
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
