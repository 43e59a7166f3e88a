"""Runs with engine lammps: the same as engine ase's, killed and continued, what cannot be done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.io import read, write
from click.testing import CliRunner
from killed_runs import in_a_child
from killed_runs import same as compare
from lammps_runs import PATIENT
from toy_calculator import toy_model
from toy_models import hcp

from ase_hmlp import HMLP
from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, OutputExistsError, PluginError, RunError
from ase_hmlp.lammps import plugin, program
from ase_hmlp.lammps.dump import read_snapshot
from ase_hmlp.model_io import save_model
from ase_hmlp.simulate import lammps_dynamics, run_folder
from ase_hmlp.simulate.dynamics import draw_momenta
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.run import Run, read_events
from ase_hmlp.simulate.run_config import RunConfig
from ase_hmlp.simulate.sweep import POINTS, SweepConfig, run_sweep

try:
    plugin.build()
    MISSING = ""
except PluginError as error:
    MISSING = str(error)

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"pair style hmlp: {MISSING}")

GROWING = (run_folder.LOG, run_folder.TRAJECTORY, run_folder.EVENTS)

#: What LAMMPS can do, ramps of both targets; stages end between checkpoints.
STAGES = [
    {"ensemble": "npt", "steps": 25, "temperature": [200, 300], "pressure": 40},
    {"ensemble": "npt", "steps": 13, "temperature": 300, "pressure": [40, 45], "cell": "iso"},
    {"ensemble": "nvt", "steps": 8, "temperature": 300},
    {"ensemble": "nvt", "steps": 8, "temperature": [300, 100], "thermostat": "bussi"},
    {"ensemble": "nvt", "steps": 8, "temperature": 300, "thermostat": "langevin"},
    {"ensemble": "nve", "steps": 8},
]
STEPS = 70
WRITE = {
    "sample_interval": 4,
    "frame_interval": 2,
    "checkpoint_interval": 20,
    "deviation_interval": 12,
    "properties": ["energy", "energies", "forces", "stress", "stresses"],
}


@pytest.fixture(autouse=True, scope="module")
def patient():
    """MPI processes that wait let others run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PATIENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.joblib"
    return save_model(toy_model(contact=0.6, contact_limit=0.4), path)


def settings(model, engine="lammps", **more):
    given = {"model": str(model), "threads": 1, "engine": engine, "stage": STAGES, "write": WRITE}
    return RunConfig(**given | more)


def crystal(temperature=300.0, size=(2, 2, 1)):
    """A triclinic, left-handed cell of H2, D2 and HD, its atoms outside it; with momenta."""
    atoms = hcp(3.0, size, seed=1)
    rng = np.random.default_rng(2)
    cell = atoms.cell.array @ (np.eye(3) + rng.uniform(-0.06, 0.06, (3, 3)))
    atoms.set_cell(cell[[1, 0, 2]], scale_atoms=True)
    atoms.positions += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    atoms.set_masses(rng.choice([1.008, 2.014102], len(atoms)))
    draw_momenta(atoms, temperature, rng)
    return atoms


def start(model, folder, atoms=None, **more):
    return Run(settings(model, **more), folder, atoms=crystal() if atoms is None else atoms)


@pytest.fixture(scope="module")
def whole(model_file, tmp_path_factory):
    """A run that was never interrupted."""
    run = start(model_file, tmp_path_factory.mktemp("whole") / "run")
    return run.folder, run.run()


def same(one, other):
    """Whether the growing files of two folders are equal, byte for byte."""
    compare(one, other, GROWING)


# ---------------------------------------------------------------- the same as engine ase


def both(model, folder, atoms, **more):
    """Logs and last frames of the same run with both engines."""
    results = {}
    for engine in ("ase", "lammps"):
        run = start(model, folder / engine, atoms, engine=engine, **more)
        assert run.run()["status"] == "finished"
        log = read_log(folder / engine / run_folder.LOG)
        results[engine] = log, read(folder / engine / run_folder.TRAJECTORY, ":")
    return results["ase"], results["lammps"]


def test_nve_is_ases(model_file, tmp_path):
    """Two hundred steps. LAMMPS's constants make its time another by half the difference."""
    steps = 200
    atoms = crystal()
    (ase, ase_frames), (lammps, frames) = both(
        model_file, tmp_path, atoms, stage=[{"ensemble": "nve", "steps": steps}]
    )
    assert ase.dtype.names == lammps.dtype.names
    # u (Å/ps)² in eV: LAMMPS's, and what follows from ASE's units.
    scale = abs(1.0364269e-4 / (units._amu * 1e4 / units._e) - 1.0)
    assert 1e-9 < scale < 1e-6
    lag = 0.5 * scale * 0.5 * steps * units.fs
    speed = abs(atoms.get_velocities()).max()
    force = max(abs(f.get_forces()).max() for f in ase_frames)
    position = 10.0 * lag * speed  # ten, because neighbours of a trajectory move apart
    energy = 10.0 * (lag * speed * force + scale * 0.1) + 1e-9  # eV/atom; the log has ten digits
    assert position < 1e-5 and energy < 1e-5
    for name in ("potential_eV_per_atom", "kinetic_eV_per_atom"):
        np.testing.assert_allclose(lammps[name], ase[name], rtol=0, atol=energy)
    total = [log["potential_eV_per_atom"] + log["kinetic_eV_per_atom"] for log in (ase, lammps)]
    np.testing.assert_allclose(*total, rtol=0, atol=energy)
    np.testing.assert_allclose(
        lammps["conserved_meV_per_atom"], ase["conserved_meV_per_atom"], rtol=0, atol=1e3 * energy
    )
    for name in ("step", "time_ps", "stage", "density_g_per_cm3", "a_A", "gamma_deg"):
        np.testing.assert_allclose(lammps[name], ase[name], rtol=1e-9)
    for name in ("bond_length_A", "contact_A", "alignment"):
        np.testing.assert_allclose(lammps[name], ase[name], rtol=0, atol=1e2 * position)
    for name in ("pressure_GPa", "sxy_GPa", "syz_GPa"):
        np.testing.assert_allclose(lammps[name], ase[name], rtol=0, atol=1e-3)
    assert len(frames) == len(ase_frames) == 1 + steps // WRITE["frame_interval"]
    for one, other in zip(ase_frames, frames, strict=True):
        assert one.info == other.info
        # Not wrapped, in the order and orientation of the start.
        np.testing.assert_allclose(other.positions, one.positions, rtol=0, atol=position)
        np.testing.assert_array_equal(other.get_masses(), one.get_masses())
    # Levels come with deviations, from the calculator.
    known = ~np.isnan(lammps["deviation_meV_per_atom"])
    assert list(lammps["step"][known]) == list(range(0, steps + 1, WRITE["deviation_interval"]))
    sums = {f"{name}_eV_per_atom" for name in ("potential", "kinetic", "enthalpy")}
    levels = [n for n in ase.dtype.names if n.endswith("_eV_per_atom") and n not in sums]
    assert {"bond_eV_per_atom", "pair_eV_per_atom"} < set(levels)
    for name in ("deviation_meV_per_atom", *levels):
        np.testing.assert_allclose(lammps[name][known], ase[name][known], rtol=0, atol=1e-3)
        assert np.isnan(lammps[name][~known]).all()


@pytest.mark.parametrize(
    "stage",
    [
        {"ensemble": "nvt", "temperature": 150},
        {"ensemble": "nvt", "temperature": [300, 1200]},
        {"ensemble": "npt", "temperature": 150, "pressure": 32, "cell": "iso"},
        {"ensemble": "npt", "temperature": 150, "pressure": 32, "cell": "full"},
    ],
    ids=["nvt", "ramp", "iso", "full"],
)
def test_thermostat_and_barostat_are_ases(model_file, tmp_path, stage):
    """Far from their targets, with short characteristic times, the same response.

    The barostat's own thermostats differ in mass: 1.7 % of the response, at whatever time step.
    Ramps go on through checkpoints, in ASE's engine in steps of temperature.
    """
    pushed = stage["ensemble"] == "npt"
    (ase, _), (lammps, _) = both(
        model_file,
        tmp_path,
        crystal(),
        # To where the volume turns: coming back it has been damped for longer.
        stage=[stage | {"steps": 48 if pushed else 80}],
        dynamics={"timestep": 0.25, "thermostat_time": 20.0, "barostat_time": 60.0},
    )
    name, share = ("volume_A3_per_atom", 0.03) if pushed else ("temperature_K", 0.02)
    moved = abs(ase[name] - ase[name][0]).max()
    assert moved > 0.05 * ase[name][0]
    np.testing.assert_allclose(lammps[name], ase[name], rtol=0, atol=share * moved)
    if stage["temperature"] == 150:
        conserved = [abs(log["conserved_meV_per_atom"]).max() for log in (lammps, ase)]
        assert conserved[0] < 1.5 * conserved[1]


# ---------------------------------------------------------------- what it leaves


def test_frames_are_what_the_calculator_says(whole, model_file):
    """Energies, forces, stresses of every ensemble's frames, in the order they are in."""
    folder, summary = whole
    frames = read(folder / run_folder.TRAJECTORY, ":")
    assert [f.info["step"] for f in frames] == list(range(0, STEPS + 1, 2))
    molecules = np.arange(len(frames[0])).reshape(-1, 2)
    calculator = HMLP(model_file, bonds=molecules, threads=1)
    for frame in frames[::3]:
        found, n = frame.calc.results, len(frame)
        again = frame.copy()
        again.calc = calculator
        assert found["energy"] / n == pytest.approx(again.get_potential_energy() / n, abs=1e-10)
        np.testing.assert_allclose(found["energies"], again.get_potential_energies(), atol=1e-10)
        np.testing.assert_allclose(found["forces"], again.get_forces(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(found["stress"], again.get_stress(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["stresses"], again.get_stresses(), rtol=0, atol=1e-10)
    assert summary["steps"] == STEPS and summary["atoms"] == 16
    versions = summary["versions"]
    assert len(versions["lammps"]) > 6
    run = json.loads((folder / run_folder.RUN).read_text())
    assert run["sessions"][0]["versions"] == versions
    assert run["record"]["config"]["engine"] == "lammps"


def test_log_and_frames_agree(whole):
    folder, _ = whole
    log, frames = read_log(folder / run_folder.LOG), read(folder / run_folder.TRAJECTORY, ":")
    assert list(log["step"]) == list(range(0, STEPS + 1, 4))
    for frame in frames[::4]:
        row = log[log["step"] == frame.info["step"]][0]
        stress = frame.get_stress(include_ideal_gas=True) / units.GPa
        assert row["pressure_GPa"] == pytest.approx(-stress[:3].mean())
        assert row["temperature_K"] == pytest.approx(frame.get_temperature())
        assert row["volume_A3_per_atom"] == pytest.approx(frame.get_volume() / len(frame))
        np.testing.assert_allclose(
            [row[f"{name}_A"] for name in "abc"], frame.cell.lengths(), rtol=1e-9
        )


def test_stages_move_what_they_should(whole):
    log = read_log(whole[0] / run_folder.LOG)
    stage = log["stage"]
    assert sorted(set(stage)) == [1, 2, 3, 4, 5, 6]
    shape = log["a_A"] / log["b_A"]
    volume = log["volume_A3_per_atom"]
    assert np.ptp(shape[stage == 1]) > 1e-6
    assert np.ptp(shape[stage == 2]) < 1e-9 and np.ptp(volume[stage == 2]) > 1e-6
    assert np.ptp(volume[stage > 2]) == 0.0
    row = log[log["step"] == 12][0]
    assert row["target_K"] == pytest.approx(200 + 100 * 12 / 25) and row["target_GPa"] == 40
    conserved = log["conserved_meV_per_atom"]
    for number, known in {1: False, 2: False, 3: True, 4: False, 5: False, 6: True}.items():
        rows = conserved[(stage == number) & (log["step"] > 0)]
        assert (~np.isnan(rows) if known else np.isnan(rows)).all(), number


def test_what_langevin_dynamics_gave_the_centre_of_mass_is_taken_away(whole):
    frames = read(whole[0] / run_folder.TRAJECTORY, ":")
    total = [abs(frame.get_momenta().sum(axis=0)).max() for frame in frames]
    last = STAGES[-1]["steps"] // WRITE["frame_interval"]
    assert total[-last - 1] > 0.1
    assert max(total[-last:]) < 1e-6


def test_analyses_read_it(whole):
    folder, _ = whole
    trajectory = str(folder / run_folder.TRAJECTORY)
    result = CliRunner().invoke(
        main, ["analyse", "bonds", trajectory, "-o", str(folder.parent / "bonds")]
    )
    assert result.exit_code == 0, result.output


def test_ranks_do_not_matter(model_file, tmp_path):
    """Two processes from a checkpoint of one: rounding."""
    stage = [{"ensemble": "npt", "steps": 40, "temperature": 300, "pressure": 40}]
    atoms = crystal(size=(3, 3, 2))
    for ranks, folder in ((1, "one"), (2, "two")):
        run = start(model_file, tmp_path / folder, atoms, stage=stage, lammps={"ranks": 1})
        interrupt(run, 28)
        run = start(model_file, tmp_path / folder, atoms, stage=stage, lammps={"ranks": ranks})
        assert run.run()["status"] == "finished"
    one, two = (read_log(tmp_path / name / run_folder.LOG) for name in ("one", "two"))
    for name in ("potential_eV_per_atom", "temperature_K", "volume_A3_per_atom"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-8)
    for name, ranks in (("one", 1), ("two", 2)):
        log = (tmp_path / name / run_folder.LAMMPS / "log.lammps").read_text()
        assert f"on {ranks} procs" in log


# ---------------------------------------------------------------- killed and continued


def interrupt(run, step):
    """Ctrl-C at a step."""

    def at(dynamics):
        if dynamics.step == step:
            raise KeyboardInterrupt

    run.attach(at, 2)
    with pytest.raises(KeyboardInterrupt):
        run.run()


def test_killed_again_and_again_it_ends_as_if_it_never_was(model_file, whole, tmp_path):
    folder = tmp_path / "run"
    for step in (6, 30, 58):

        def work(step=step):
            run = start(model_file, folder)
            run.attach(
                lambda dynamics: dynamics.step == step and os.kill(os.getpid(), signal.SIGKILL), 2
            )
            run.run()

        assert os.WTERMSIG(in_a_child(work)) == signal.SIGKILL, step
    assert start(model_file, folder).run()["status"] == "finished"
    same(folder, whole[0])
    sessions = json.loads((folder / run_folder.RUN).read_text())["sessions"]
    assert [s["from_step"] for s in sessions] == [0, 0, 20, 40]
    assert sorted(p.name for p in (folder / run_folder.LAMMPS).glob("*")) == sorted(
        ["70.restart", "in.lammps", "log.lammps", "model.hmlp", "start.data"]
    )


@pytest.mark.parametrize("count", [2, 5, 7])
def test_killed_while_it_saves(model_file, whole, tmp_path, count, monkeypatch):
    """Before a file is put in its place: checkpoints, restart files, the model."""
    folder, replace = tmp_path / "run", os.replace

    def dying(*names):
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        assert os.WTERMSIG(in_a_child(lambda: start(model_file, folder).run())) == signal.SIGKILL
    start(model_file, folder).run()
    same(folder, whole[0])


def workers(folder):
    """Processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append(int(process.name))
        except OSError:
            pass
    return found


def killed_from_outside(words, folder, rows):
    """Start the command, kill it when its log has so many rows, and see LAMMPS end too."""
    log, deadline = folder / run_folder.LOG, time.monotonic() + 120
    process = subprocess.Popen(
        [sys.executable, "-m", "ase_hmlp.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder.parent,  # not the source folder, which has no compiled core
    )
    try:
        while not log.exists() or len(log.read_bytes().splitlines()) < rows + 1:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        assert workers(folder)
    finally:
        process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    while workers(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def configuration(folder, model_file, steps, checkpoint_interval):
    """A file for the command; engine and ranks are its options."""
    write(folder / "start.extxyz", crystal(size=(3, 3, 2)))
    path = folder / "cold.toml"
    path.write_text(
        f'model = "{model_file}"\nthreads = 1\n[structure]\nfile = "start.extxyz"\n'
        f'[[stage]]\nensemble = "npt"\nsteps = {steps}\ntemperature = 200\npressure = 40\n'
        f"[write]\nframe_interval = 10\ncheckpoint_interval = {checkpoint_interval}\n"
    )
    return path


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
def test_the_command_killed_from_outside(model_file, tmp_path):
    """At a moment nobody chose; the command goes on to the same end."""
    config = configuration(tmp_path, model_file, 600, 300)
    words = ["run", str(config), "--engine", "lammps"]
    killed_from_outside(words, tmp_path / "cold", 35)
    for folder in ((), ("-o", tmp_path / "once")):
        result = CliRunner().invoke(main, [*words, *map(str, folder)])
        assert result.exit_code == 0, result.output
    same(tmp_path / "cold", tmp_path / "once")


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
def test_all_ranks_end_with_the_command(model_file, tmp_path):
    config = configuration(tmp_path, model_file, 10**6, 10**6)
    words = ["run", str(config), "--engine", "lammps", "--ranks", "2"]
    killed_from_outside(words, tmp_path / "cold", 2)


def test_interrupted_it_leaves_no_process(model_file, tmp_path):
    run = start(model_file, tmp_path / "run", stage=[{"ensemble": "nve", "steps": 10000}])
    run = Run(
        run.config.model_copy(update={"write": run.config.write}), run.folder, atoms=crystal()
    )
    interrupt(run, 10)
    assert not list((run.folder / run_folder.LAMMPS).glob("work-*"))
    if Path("/proc/self/cwd").exists():
        assert not workers(run.folder)


def test_observers_see_what_they_asked_for(model_file, tmp_path):
    run = start(model_file, tmp_path / "run", stage=[{"ensemble": "nve", "steps": 9}])
    seen, rows = [], []
    run.attach(lambda dynamics: seen.append((dynamics.step, len(dynamics.atoms))), 3)
    run.run(progress=lambda step, steps, row: rows.append((step, steps, bool(row))))
    assert seen == [(k, 16) for k in (0, 3, 6, 9)]
    assert rows == [(0, 9, False), (4, 9, True), (8, 9, True)]


def test_volumes_outside_the_training_data_are_events(tmp_path):
    other = toy_model(contact=0.6, contact_limit=0.4, volume=(4.0, 5.0))
    model = save_model(other, tmp_path / "other.joblib")
    run = start(model, tmp_path / "run", stage=[{"ensemble": "nve", "steps": 9}])
    run.run()
    events = read_events(tmp_path / "run" / run_folder.EVENTS)
    messages = [e["message"] for e in events if e["kind"] == "volume"]
    assert messages and all("LAMMPS counts" not in message for message in messages)
    assert any("4.000 to 5.000 A^3. This is an extrapolation." in message for message in messages)


# ---------------------------------------------------------------- what cannot be done


def test_a_run_that_fails_says_where_and_keeps_the_structure(tmp_path):
    weak = save_model(
        toy_model(
            contact=0.6, contact_limit=0.4, bond_length=(0.71, 0.77), bond_limits=(0.7, 0.78)
        ),
        tmp_path / "weak.joblib",
    )
    run = start(weak, tmp_path / "run", crystal(900.0), stage=[{"ensemble": "nve", "steps": 200}])
    with pytest.raises(RunError, match=r"failed at step \d+: LAMMPS: The bond between atoms \d+"):
        run.run()
    assert run.summary["status"] == "failed"
    assert "LAMMPS counts atoms from 1" in run.summary["reason"]
    assert len(read(tmp_path / "run" / run_folder.FAILED)) == 16
    events = read_events(tmp_path / "run" / run_folder.EVENTS)
    assert {"bond_length", "failed"} <= {e["kind"] for e in events}
    assert any("LAMMPS counts" in e["message"] for e in events if e["kind"] == "bond_length")


@pytest.mark.parametrize(
    "more, words",
    [
        (
            {
                "stage": [
                    STAGES[-1],
                    {
                        "ensemble": "npt",
                        "steps": 5,
                        "temperature": 100,
                        "pressure": 9,
                        "thermostat": "langevin",
                    },
                ]
            },
            "Stage 2: engine lammps has npt with nose-hoover only, engine ase with langevin too",
        ),
        ({"lammps": {"command": ["no-such-lmp"]}}, "there is no program 'no-such-lmp'"),
    ],
)
def test_refused_before_anything_is_made(model_file, tmp_path, more, words):
    with pytest.raises((ConfigError, RunError), match=words):
        start(model_file, tmp_path / "run", **more).run()
    assert not (tmp_path / "run").exists() or not visible(tmp_path / "run")


def visible(folder):
    return [p for p in folder.iterdir() if not p.name.startswith(".")]


@pytest.mark.parametrize("missing, ranks", [("lmp", 1), ("mpirun", 2)])
def test_without_the_programs(model_file, tmp_path, monkeypatch, missing, ranks):
    find = program._find
    monkeypatch.setattr(program, "_find", lambda name: None if name == missing else find(name))
    with pytest.raises(RunError, match=f"no program {missing}"):
        start(model_file, tmp_path / "run", lammps={"ranks": ranks}).run()


def test_without_the_pair_style(model_file, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("HMLP_PLUGIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunError, match=r"did not start: pair style hmlp: there is no C\+\+"):
        start(model_file, tmp_path / "run").run()


def test_a_program_that_dies(model_file, tmp_path):
    with pytest.raises(RunError, match="ended after step 0 with status 1 and no word why"):
        start(model_file, tmp_path / "run", lammps={"command": ["false"]}).run()
    # It had nothing to do with the structure: the same run goes on where LAMMPS is well.
    summary = start(model_file, tmp_path / "run", stage=STAGES).run()
    assert summary["status"] == "finished"


def test_only_periodic_structures(model_file, tmp_path):
    atoms = hcp(3.0, (2, 2, 1), seed=1)
    draw_momenta(atoms, 100.0, np.random.default_rng(0))
    atoms.pbc = (True, True, False)
    with pytest.raises(ConfigError, match="periodic in three directions"):
        start(model_file, tmp_path / "run", atoms, stage=STAGES[-1:]).run()


def test_a_folder_of_the_other_engine_is_refused(model_file, whole):
    with pytest.raises(OutputExistsError, match='its engine is "lammps", not "ase"'):
        start(model_file, whole[0], engine="ase", stage=STAGES).run()


def test_a_restart_file_that_is_gone(model_file, tmp_path):
    run = start(model_file, tmp_path / "run")
    interrupt(run, 30)
    (tmp_path / "run" / run_folder.LAMMPS / "20.restart").unlink()
    with pytest.raises(RunError, match=r"20\.restart is gone"):
        start(model_file, tmp_path / "run").run()


def test_half_a_restart_file_is_noticed(model_file, tmp_path, monkeypatch):
    """It ends with a mark of its own; the checkpoint before it stays."""
    monkeypatch.setattr(lammps_dynamics, "RESTART_END", b"something else")
    with pytest.raises(RunError, match="half a restart file: is the disk full"):
        start(model_file, tmp_path / "run").run()
    with np.load(tmp_path / "run" / run_folder.CHECKPOINT) as checkpoint:
        assert int(checkpoint["state.step"]) == 0


def test_half_a_snapshot_is_noticed(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\xf6" + b"\xff" * 7 + b"DUMPCUSTOM\x01\0\0\0")
    with pytest.raises(RunError, match="no whole snapshot"):
        read_snapshot(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(b"ITEM: TIMESTEP\n0\n")
    with pytest.raises(RunError, match="no whole snapshot"):
        read_snapshot(tmp_path / "b.bin")


def test_ranks_or_a_command(model_file):
    with pytest.raises(ValueError, match="either ranks or command"):
        settings(model_file, lammps={"ranks": 2, "command": ["srun", "lmp"]})


def test_short_steps_for_bonds_are_ases(model_file, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text(
        f'model = "{model_file}"\n[structure]\nphase = "hcp"\n[dynamics]\nbond_steps = 4\n'
        '[[stage]]\nensemble = "nvt"\nsteps = 2\ntemperature = 100\n'
    )
    result = CliRunner().invoke(main, ["run", str(config), "--engine", "lammps"])
    assert result.exit_code == 2 and "need engine ase" in result.stderr
    assert not (tmp_path / "a").exists()
    ases = settings(model_file, engine="ase", dynamics={"bond_steps": 4})
    with pytest.raises(ConfigError, match="need engine ase"):
        Run(ases.model_copy(update={"engine": "lammps"}), tmp_path / "a", atoms=crystal())


def test_ranks_are_lammpss(model_file, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text(
        f'model = "{model_file}"\n[structure]\nphase = "hcp"\n'
        '[[stage]]\nensemble = "nvt"\nsteps = 2\ntemperature = 100\n'
    )
    result = CliRunner().invoke(main, ["run", str(config), "--ranks", "2"])
    assert result.exit_code == 2 and "Ranks are for engine lammps" in result.stderr
    assert not (tmp_path / "a").exists()


def test_a_sweep_goes_through_lammps(tmp_path, model_file):
    """Two points side by side, a LAMMPS of its own each."""
    sweep = SweepConfig.model_validate(
        {
            "grid": {"phase": ["hcp"], "pressure": [60.0, 80.0], "temperature": [150.0]},
            "run": {
                "engine": "lammps",
                "model": str(model_file),
                "structure": {"atoms": 16, "pressure": None, "relax": None},
                "stage": [{"ensemble": "npt", "steps": 20}],
                "write": {"sample_interval": 10},
            },
            "workers": {"workers": 2},
        }
    )
    result = run_sweep(sweep, tmp_path / "sweep")
    assert [row.status for row in result.rows] == ["finished", "finished"]
    for folder in (tmp_path / "sweep" / POINTS).iterdir():
        record = json.loads((folder / run_folder.RUN).read_text())
        assert "lammps" in record["sessions"][0]["versions"]
