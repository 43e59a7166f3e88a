"""Runs in folders: killed and continued, full disks, bad input, what they leave."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms
from ase.io import Trajectory, read, write
from click.testing import CliRunner
from killed_runs import in_a_child
from killed_runs import same as compare
from toy_calculator import toy_model
from toy_models import from_molecules, hcp

from ase_hmlp.analysis import trajectory as analysis
from ase_hmlp.cli import main
from ase_hmlp.errors import (
    BrokenBondError,
    ConfigError,
    OutputExistsError,
    RunError,
    TwoPartnersError,
)
from ase_hmlp.files import lock, write_whole
from ase_hmlp.model_io import save_model
from ase_hmlp.molecules import BROKEN_BOND
from ase_hmlp.simulate import run as run_module
from ase_hmlp.simulate import run_folder
from ase_hmlp.simulate.observables import read_log, shortest_contact
from ase_hmlp.simulate.run import Run, read_events
from ase_hmlp.simulate.run_config import RunConfig

GROWING = (run_folder.LOG, run_folder.TRAJECTORY, run_folder.EVENTS)

#: Every ensemble, thermostat and barostat, ramps of both; none ends where a checkpoint is.
STAGES = [
    {"ensemble": "npt", "steps": 11, "temperature": [200, 300], "pressure": 40},
    {"ensemble": "npt", "steps": 8, "temperature": 300, "pressure": [40, 45], "cell": "iso"},
    {"ensemble": "npt", "steps": 8, "temperature": 300, "pressure": 45, "thermostat": "langevin"},
    {"ensemble": "nvt", "steps": 8, "temperature": 300},
    {"ensemble": "nvt", "steps": 8, "temperature": 300, "thermostat": "langevin"},
    {"ensemble": "nvt", "steps": 8, "temperature": [300, 100], "thermostat": "bussi"},
    {"ensemble": "nve", "steps": 7},
]
STEPS = 58
WRITE = {
    "sample_interval": 3,
    "frame_interval": 2,
    "checkpoint_interval": 5,
    "deviation_interval": 6,
    # In the middle of what the toy model predicts: crossed now and then.
    "deviation_threshold": 6.2,
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.joblib"
    return save_model(toy_model(contact=0.6, contact_limit=0.4), path)


def settings(model, **more):
    return RunConfig(**{"model": str(model), "threads": 1, "stage": STAGES, "write": WRITE} | more)


def crystal():
    return hcp(3.0, (2, 2, 1), seed=1)


def start(model, folder, **more):
    return Run(settings(model, **more), folder, atoms=crystal())


@pytest.fixture(scope="module")
def whole(model_file, tmp_path_factory):
    """A run that was never interrupted."""
    run = start(model_file, tmp_path_factory.mktemp("whole") / "run")
    return run.folder, run.run()


def same(one, other):
    """Whether the growing files of two folders are equal, byte for byte."""
    compare(one, other, GROWING)


def test_bonds_of_a_hot_start_are_as_stated(model_file, tmp_path):
    """An atom between its partner and one that is as near; so are some of a liquid at 1500 K."""
    centres = np.array([[4.0, 4.0, 4.0], [4.0 - 0.74 - 0.742, 4.0, 4.0]])
    atoms = from_molecules(centres, np.eye(3)[[0, 0]], 0.74, 8.0 * np.eye(3))
    stages = [{"ensemble": "nvt", "steps": 4, "temperature": 300}]
    config = settings(model_file, stage=stages)
    with pytest.raises(TwoPartnersError):
        Run(config, tmp_path / "found", atoms=atoms).run()
    atoms.set_array("partner", np.array([1, 0, 3, 2]))
    summary = Run(config, tmp_path / "stated", atoms=atoms).run()
    assert (summary["status"], summary["steps"]) == ("finished", 4)
    # Analyses know them from the trajectory: its frames alone would not tell.
    frames = analysis.Trajectory(tmp_path / "stated", continuous=True)
    assert frames.molecules.tolist() == [[0, 1], [2, 3]]
    assert [len(frame.bonds) for frame in frames] == [2, 2, 2]
    assert frames.longest == BROKEN_BOND
    with pytest.raises(BrokenBondError, match=r"more than 0\.7 Å"):
        list(analysis.Trajectory(tmp_path / "stated", longest=0.7))
    # So does a run that starts from it; of a supercell no two copies move alike.
    onward = {"file": "stated", "index": 0, "repeat": [2, 1, 1]}
    config = settings(model_file, stage=stages, structure=onward)
    run = Run(config, tmp_path / "onward", base=tmp_path)
    assert run.run()["status"] == "finished"
    start = read(tmp_path / "onward" / "initial.extxyz")
    assert start.arrays["partner"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert not np.allclose(start.get_velocities()[:4], start.get_velocities()[4:])


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------- killed and continued


def test_killed_again_and_again_it_ends_as_if_it_never_was(model_file, whole, tmp_path):
    """SIGKILL during steps of every ensemble; each process gets a few steps farther."""
    folder = tmp_path / "run"
    for step in (4, 6, 13, 19, 28, 33, 41, 51, 58):

        def work(step=step):
            run = start(model_file, folder)
            run.attach(lambda dynamics: dynamics.step == step and kill_me())
            run.run()

        assert os.WTERMSIG(in_a_child(work)) == signal.SIGKILL, step
    assert start(model_file, folder).run()["status"] == "finished"
    same(folder, whole[0])
    sessions = json.loads((folder / run_folder.RUN).read_text())["sessions"]
    assert [s["from_step"] for s in sessions][:5] == [0, 0, 5, 10, 15]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_it_saves(model_file, whole, tmp_path, moment, monkeypatch):
    """At several of the times a file is put in its place, before and after that happens."""
    folder = tmp_path / "run"
    replace = os.replace

    def dying(count):
        def replace_and_die(*names):
            nonlocal count
            count -= 1
            if count == 0 and moment == "before":
                kill_me()
            replace(*names)
            if count == 0:
                kill_me()

        return replace_and_die

    for count in (1, 3, 6):
        monkeypatch.setattr(os, "replace", dying(count))
        assert os.WTERMSIG(in_a_child(lambda: start(model_file, folder).run())) == signal.SIGKILL
    monkeypatch.setattr(os, "replace", replace)
    start(model_file, folder).run()
    same(folder, whole[0])


def test_killed_in_the_middle_of_a_frame(model_file, whole, tmp_path, monkeypatch):
    """Arrays of the frame are in the file, its place in the table of frames is not."""
    from ase.io.ulm import Writer

    folder = tmp_path / "run"
    sync = Writer.sync
    for frames in (2, 8):
        left = [frames]

        def dying(self, left=left):
            left[0] -= 1
            if left[0] == 0:
                self.fd.flush()
                kill_me()
            sync(self)

        monkeypatch.setattr(Writer, "sync", dying)
        assert os.WTERMSIG(in_a_child(lambda: start(model_file, folder).run())) == signal.SIGKILL
    monkeypatch.setattr(Writer, "sync", sync)
    start(model_file, folder).run()
    same(folder, whole[0])


def test_the_command_killed_from_outside(model_file, tmp_path):
    """`hmlp run` in a process of its own, at moments nobody chose, ends as in this one."""
    write(tmp_path / "start.extxyz", crystal())
    stage = '[[stage]]\nensemble = "npt"\nsteps = 120\ntemperature = 200\npressure = 40\n'
    config = tmp_path / "cold.toml"
    config.write_text(
        f'model = "{model_file}"\nthreads = 1\n[structure]\nfile = "start.extxyz"\n{stage}'
        "[write]\nframe_interval = 5\ncheckpoint_interval = 10\n"
    )
    command = [sys.executable, "-m", "ase_hmlp.cli", "run", str(config)]
    log = tmp_path / "cold" / run_folder.LOG
    for rows in (3, 7):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path
        )
        while process.poll() is None and (
            not log.exists() or len(log.read_bytes().splitlines()) < rows
        ):
            time.sleep(0.01)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
    for folder in ((), ("-o", tmp_path / "once")):
        result = CliRunner().invoke(main, ["run", str(config), *map(str, folder)])
        assert result.exit_code == 0, result.output
    same(tmp_path / "cold", tmp_path / "once")
    assert (tmp_path / "cold" / run_folder.CONFIG).read_text() == config.read_text()
    assert "temperature, K" in result.stdout and "pressure, GPa" in result.stdout


def test_a_full_disk_leaves_the_last_checkpoint_whole(model_file, whole, tmp_path):
    """Files may not grow beyond a size: writing fails with an error of the system."""
    folder = tmp_path / "run"

    def short_of_space(size):
        def work():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            with pytest.raises(RunError, match=r"(?s)cannot be written.*checkpoint of step \d+"):
                start(model_file, folder).run()

        return work

    full = (whole[0] / run_folder.TRAJECTORY).stat().st_size
    steps = []
    for size in (full // 3, full // 2, full - 100):
        assert in_a_child(short_of_space(size)) == 0
        with np.load(folder / run_folder.CHECKPOINT) as checkpoint:
            steps.append(int(checkpoint["state.step"]))
    assert 0 < steps[0] < steps[1] < steps[2] < STEPS
    assert not (folder / run_folder.SUMMARY).exists()

    def no_space(path, words):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
        with pytest.raises(RunError, match=words):
            start(model_file, path).run()

    words = f"stopped at step {steps[2]}. Its checkpoint of step {steps[2]} is whole"
    assert in_a_child(lambda: no_space(folder, words)) == 0
    assert in_a_child(lambda: no_space(tmp_path / "new", "the run has no checkpoint yet")) == 0
    start(model_file, folder).run()
    same(folder, whole[0])


def test_a_disk_without_space_is_said_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failure:
        write_whole(tmp_path / "table.csv", "1,2")
    assert failure.value.filename == str(tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_files_cut_behind_its_back_are_noticed(model_file, tmp_path):
    folder = tmp_path / "run"
    interrupted(model_file, folder, 20)
    log = folder / run_folder.LOG
    log.write_bytes(log.read_bytes()[:100])
    with pytest.raises(RunError, match="shorter than its checkpoint"):
        start(model_file, folder).run()
    log.unlink()
    with pytest.raises(RunError, match=r"log\.csv is gone"):
        start(model_file, folder).run()


def interrupted(model_file, folder, step):
    """Ctrl-C at a step."""

    def interrupt(dynamics):
        if dynamics.step == step:
            raise KeyboardInterrupt

    run = start(model_file, folder)
    run.attach(interrupt, step)
    with pytest.raises(KeyboardInterrupt):
        run.run()


# ---------------------------------------------------------------- what it leaves


def test_log_and_frames_agree(whole):
    folder, summary = whole
    log = read_log(folder / run_folder.LOG)
    assert list(log["step"]) == list(range(0, STEPS + 1, 3))
    frames = read(folder / run_folder.TRAJECTORY, ":")
    assert [f.info["step"] for f in frames] == list(range(0, STEPS + 1, 2))
    assert [f.info["time_fs"] for f in frames] == [0.5 * f.info["step"] for f in frames]
    molecules = np.arange(len(frames[0])).reshape(-1, 2)
    for frame in frames[::3]:
        row = log[log["step"] == frame.info["step"]][0]
        n = len(frame)
        assert frame.get_temperature() == pytest.approx(row["temperature_K"])
        assert frame.get_potential_energy() / n == pytest.approx(row["potential_eV_per_atom"])
        assert frame.get_volume() / n == pytest.approx(row["volume_A3_per_atom"])
        stress = frame.get_stress(include_ideal_gas=True) / units.GPa
        np.testing.assert_allclose([row[f"s{c}_GPa"] for c in STRESS], stress, atol=1e-6)
        assert row["pressure_GPa"] == pytest.approx(-stress[:3].mean())
        assert shortest_contact(frame, molecules) == pytest.approx(row["contact_A"])
        lengths = np.linalg.norm(frame.get_distances(0, [1], mic=True, vector=True))
        assert row["bond_min_A"] - 1e-9 <= lengths <= row["bond_max_A"] + 1e-9
        assert row["density_g_per_cm3"] == pytest.approx(
            frame.get_masses().sum() * 1.66053907 / frame.get_volume()
        )
    names = ("zero", "bond", "pair", "orientation", "environment")
    levels = sum(log[f"{name}_eV_per_atom"] for name in names)
    np.testing.assert_allclose(levels, log["potential_eV_per_atom"], atol=1e-8)
    assert summary["steps"] == STEPS and summary["atoms"] == 16


STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")


def test_log_says_targets_and_stages(whole):
    log = read_log(whole[0] / run_folder.LOG)
    assert list(log["stage"][[0, 3, 4, -1]]) == [1, 1, 2, len(STAGES)]
    row = log[log["step"] == 6][0]
    assert row["target_K"] == pytest.approx(200 + 100 * 6 / 11) and row["target_GPa"] == 40
    assert np.isnan(log["target_K"][-1]) and np.isnan(log["target_GPa"][-1])
    assert not np.isnan(log["deviation_meV_per_atom"][::2]).any()
    assert np.isnan(log["deviation_meV_per_atom"][1::2]).all()


def test_trajectory_says_its_timestep_as_ases_own_do(whole):
    with Trajectory(whole[0] / run_folder.TRAJECTORY) as frames:
        assert frames.description["type"] == "molecular-dynamics"
        assert frames.description["timestep"] == pytest.approx(0.5 * units.fs)
        assert frames.description["interval"] == 2


def test_crossings_of_the_deviation_threshold_are_events(whole):
    folder, summary = whole
    log, events = read_log(folder / run_folder.LOG), read_events(folder / run_folder.EVENTS)
    known = log[~np.isnan(log["deviation_meV_per_atom"])]
    above = known["deviation_meV_per_atom"] > 6.2
    rises = known["step"][above & ~np.concatenate([[False], above[:-1]])]
    assert 0 < len(rises) < len(known)
    crossings = [e["step"] for e in events if e["kind"] == "deviation"]
    assert crossings == list(rises)
    assert summary["events"]["deviation"]["count"] == len(rises)
    assert summary["samples"]["deviation"] == above.sum()
    assert "above 6.2" in summary["events"]["deviation"]["message"]


def test_summary_averages_the_log(whole):
    folder, summary = whole
    log = read_log(folder / run_folder.LOG)
    rows = log[log["stage"] == 1]
    rows = rows[len(rows) // 4 :]
    mean = summary["stages"][0]["averages"]["pressure_GPa"]["mean"]
    assert mean == pytest.approx(rows["pressure_GPa"].mean())
    assert summary["extremes"]["contact_A"] == log["contact_A"].min()
    assert len(summary["model"]["sha256"]) == 64
    assert set(summary["versions"]) >= {"ase_hmlp", "ase", "numpy", "python"}


def test_warnings_of_the_calculator_are_events(model_file, tmp_path):
    """A bond a little outside what was labelled, between rows of the log too."""
    narrow = save_model(
        toy_model(contact=0.6, contact_limit=0.4, bond_length=(0.70, 0.78)), tmp_path / "n.joblib"
    )
    summary = start(narrow, tmp_path / "run", stage=STAGES[-2:]).run()
    events = read_events(tmp_path / "run" / run_folder.EVENTS)
    bonds = [e for e in events if e["kind"] == "bond_length"]
    # A new calculator every five steps warns anew.
    assert len(bonds) > 1 and len({e["step"] for e in bonds}) == len(bonds)
    assert any(e["step"] % 3 for e in bonds)
    assert all("training data" in e["message"] for e in bonds)
    assert summary["samples"]["bond_length"] > 0


def test_a_cell_that_loses_its_shape_is_an_event(model_file, tmp_path, monkeypatch):
    """Once, whether the run was interrupted or not."""
    monkeypatch.setattr(run_module, "HALF", 0.95)
    stage = {"ensemble": "npt", "steps": 60, "temperature": 300, "pressure": 200}
    more = {"stage": [stage], "dynamics": {"barostat_time": 100.0}}
    once = start(model_file, tmp_path / "once", **more)
    summary = once.run()
    (event,) = [e for e in read_events(once.folder / run_folder.EVENTS) if e["kind"] == "cell"]
    assert "Opposite faces of the cell have come within" in event["message"]
    assert summary["events"]["cell"]["first_step"] == event["step"] > 5
    log = read_log(once.folder / run_folder.LOG)
    thinnest = np.min(
        [
            log[f"{name}_A"] * np.sin(np.radians(log[f"{angle}_deg"]))
            for name, angle in zip("abc", ("gamma", "alpha", "beta"), strict=True)
        ],
        axis=0,
    )
    assert event["step"] == log["step"][thinnest < 0.95 * thinnest[0]][0]
    for step in (event["step"] - 3, event["step"] + 3, 57):
        run = start(model_file, tmp_path / "often", **more)
        run.attach(lambda dynamics, step=step: dynamics.step == step and stop())
        with pytest.raises(KeyboardInterrupt):
            run.run()
    start(model_file, tmp_path / "often", **more).run()
    same(tmp_path / "often", once.folder)


def stop():
    raise KeyboardInterrupt


def test_a_run_that_fails_says_where_and_keeps_the_structure(model_file, tmp_path):
    weak = save_model(
        toy_model(
            contact=0.6, contact_limit=0.4, bond_length=(0.72, 0.76), bond_limits=(0.71, 0.77)
        ),
        tmp_path / "weak.joblib",
    )
    hot = [{"ensemble": "nve", "steps": 40}]
    run = Run(settings(weak, stage=hot), tmp_path / "run", atoms=hot_crystal())
    with pytest.raises(RunError, match=r"failed at step (\d+): The bond between atoms") as failure:
        run.run()
    summary = run.summary
    assert summary["status"] == "failed" and f"step {summary['steps']}:" in str(failure.value)
    assert 0 < summary["steps"] < 40
    frame = read(tmp_path / "run" / run_folder.FAILED)
    lengths = [frame.get_distance(i, i + 1, mic=True) for i in range(0, len(frame), 2)]
    assert min(lengths) < 0.71 or max(lengths) > 0.77
    assert summary["events"]["failed"]["first_step"] == summary["steps"]
    with pytest.raises(RunError) as again:  # tried again, from the last checkpoint, to the same end
        run.run()
    assert str(again.value) == str(failure.value)
    events = read_events(tmp_path / "run" / run_folder.EVENTS)
    assert sum(e["kind"] == "failed" for e in events) == 1


def hot_crystal():
    from ase_hmlp.simulate.dynamics import draw_momenta

    atoms = crystal()
    draw_momenta(atoms, 600.0, np.random.default_rng(0))
    return atoms


def test_observers_see_every_step_they_asked_for(model_file, tmp_path):
    run = start(model_file, tmp_path / "run", stage=STAGES[-1:], structure=None)
    run._given = hot_crystal()
    seen = []
    run.attach(lambda dynamics: seen.append((dynamics.step, len(dynamics.atoms))), 2)
    rows = []
    run.run(progress=lambda step, steps, row: rows.append((step, steps, bool(row))))
    assert seen == [(k, 16) for k in (0, 2, 4, 6)]
    assert rows == [(0, 7, False), (3, 7, True), (6, 7, True)]


def test_masses_and_results_asked_for_are_in_the_trajectory(model_file, tmp_path):
    structure = {"phase": "P21c-8", "atoms": 16, "isotope": "HD", "relax": "none"}
    stage = [{"ensemble": "nvt", "steps": 4, "temperature": 100}]
    output = {"frame_interval": 2, "properties": ["forces"]}
    config = settings(model_file, structure=structure, stage=stage, write=output)
    Run(config, tmp_path / "run").run()
    frames = read(tmp_path / "run" / run_folder.TRAJECTORY, ":")
    assert len(frames) == 3
    assert sorted(set(frames[-1].get_masses())) == pytest.approx([1.008, 2.014102])
    assert set(frames[-1].calc.results) == {"forces"}
    assert frames[-1].has("momenta")


# ---------------------------------------------------------------- whose folder it is


def test_a_finished_run_is_left_alone(model_file, whole):
    folder, summary = whole
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in visible(folder)}
    assert start(model_file, folder).run() == summary
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in visible(folder)} == before


def visible(folder):
    return [p for p in folder.iterdir() if not p.name.startswith(".")]


def test_a_folder_of_another_run_is_refused(model_file, whole, tmp_path):
    folder = whole[0]
    before = {p.name: p.read_bytes() for p in visible(folder)}
    stage = [{**STAGES[0], "temperature": [200, 310]}, *STAGES[1:]]
    with pytest.raises(
        OutputExistsError, match=r"stage 1.temperature 2 is 300.0, not 310.0\. Name another"
    ):
        start(model_file, folder, stage=stage).run()
    with pytest.raises(OutputExistsError, match="seed is 0, not 1"):
        start(model_file, folder, seed=1).run()
    other = crystal()
    other.rattle(1e-6)
    with pytest.raises(OutputExistsError, match="structure_sha256"):
        Run(settings(model_file), folder, atoms=other).run()
    retrained = save_model(toy_model(contact=0.7, contact_limit=0.4), tmp_path / "toy.joblib")
    with pytest.raises(OutputExistsError, match=r"config|model"):
        start(retrained, folder).run()
    assert {p.name: p.read_bytes() for p in visible(folder)} == before


def test_another_model_of_the_same_name_is_refused(tmp_path):
    model = save_model(toy_model(contact=0.6, contact_limit=0.4), tmp_path / "toy.joblib")
    interrupted(model, tmp_path / "run", 6)
    save_model(toy_model(contact=0.7, contact_limit=0.4), model)
    with pytest.raises(OutputExistsError, match="model_sha256"):
        start(model, tmp_path / "run").run()


def test_files_of_the_same_content_may_move(tmp_path):
    model = save_model(toy_model(), tmp_path / "toy.joblib")
    write(tmp_path / "start.extxyz", crystal())
    folder, stage = tmp_path / "run", STAGES[3:4]

    def run(model, file):
        structure = {"file": str(file), "relax": "none"}
        return Run(settings(model, stage=stage, structure=structure), folder)

    run(model, tmp_path / "start.extxyz").run()
    model = model.rename(tmp_path / "other.joblib")
    file = (tmp_path / "start.extxyz").rename(tmp_path / "moved.extxyz")
    assert run(model, file).run()["status"] == "finished"
    write(file, crystal().repeat((1, 1, 2)))
    with pytest.raises(OutputExistsError, match="structure_sha256"):
        run(model, file).run()


def test_what_a_killed_write_left_is_removed(model_file, tmp_path):
    folder = tmp_path / "run"
    interrupted(model_file, folder, 6)
    part = folder / f".{run_folder.CHECKPOINT}.1.part"
    part.write_bytes(b"PK")
    assert start(model_file, folder).summary is None
    assert part.exists()  # only looked at
    start(model_file, folder).run()
    assert not list(folder.glob(".*.part"))


def test_settings_may_change_until_the_structure_is_made(model_file, tmp_path):
    structure = {"phase": "P21c-8", "atoms": 8}
    with pytest.raises(ConfigError, match=r"structure\.pressure"):
        Run(settings(model_file, stage=STAGES[3:4], structure=structure), tmp_path / "run").run()
    structure["relax"] = "none"
    config = settings(model_file, stage=STAGES[3:4], structure=structure)
    assert Run(config, tmp_path / "run").run()["status"] == "finished"


def test_threads_and_folder_may_change(model_file, whole, tmp_path):
    folder = tmp_path / "run"
    interrupted(model_file, folder, 20)
    start(model_file, folder, threads=2, output="elsewhere").run()
    same(folder, whole[0])


def test_a_folder_of_something_else_is_refused(model_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputExistsError, match=r"holds thesis\.tex and no run"):
        start(model_file, tmp_path).run()
    with pytest.raises(OutputExistsError, match="is a file"):
        start(model_file, tmp_path / "thesis.tex").run()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"a": 1}')
    with pytest.raises(OutputExistsError, match="is not of a run"):
        start(model_file, tmp_path / "run").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "thesis.tex"]


def test_two_processes_cannot_write_to_one_folder(model_file, tmp_path):
    interrupted(model_file, tmp_path / "run", 6)
    with (tmp_path / "run" / run_folder.LOCK).open("w") as stream:
        lock(stream, "it")
        with pytest.raises(OutputExistsError, match="being written by another run"):
            start(model_file, tmp_path / "run").run()


# ---------------------------------------------------------------- bad input

GOOD = """
model = "{model}"
threads = 1
[structure]
phase = "P21c-8"
atoms = 8
[[stage]]
ensemble = "nvt"
steps = 2
temperature = 100
"""


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("threads = 1", "thread = 1", "unknown key 'thread'"),
        ("atoms = 8", "atmos = 8", "unknown key 'structure.atmos'"),
        ('phase = "P21c-8"', 'phase = "Cmca-4"', "no 'Cmca-4', but hcp, liquid"),
        ('phase = "P21c-8"\natoms = 8', 'file = "gone.cif"', "structure.file: there is no"),
        ('phase = "P21c-8"', "", "either phase or file"),
        (
            'phase = "P21c-8"',
            'file = "a.extxyz"',
            "atoms is for phases, not for a structure from a",
        ),
        (
            'phase = "P21c-8"\natoms = 8',
            'file = "a.extxyz"\npressure = 9.0',
            "pressure is what relax brings",
        ),
        ("steps = 2", "", "either steps or time"),
        ("steps = 2", "steps = 2\ntime = 1.0", "either steps or time"),
        ("steps = 2", "steps = 0", "'stage 1.steps'"),
        ("temperature = 100", "", "nvt needs a temperature"),
        ("temperature = 100", "temperature = [100, 0]", "'stage 1.temperature 2': Input should be"),
        ("temperature = 100", "temperature = -1", "'stage 1.temperature'"),
        ("temperature = 100", "temperature = 100\npressure = 3", "nvt has no pressure"),
        ('"nvt"', '"npt"', "npt needs a pressure"),
        ('"nvt"', '"nph"', "'stage 1.ensemble'"),
        (
            'ensemble = "nvt"',
            'ensemble = "npt"\npressure = 9\nthermostat = "bussi"',
            "bussi is a thermostat for nvt",
        ),
        ("[[stage]]", '[dynamics]\nthermostat = "berendsen"\n[[stage]]', "dynamics.thermostat"),
        (
            "[[stage]]",
            "[write]\nsample_interval = 7\n[[stage]]",
            "deviation_interval must be a multiple",
        ),
        ('model = "{model}"', 'model = "h3"', "no model"),
        ("atoms = 8", "atoms = 8\nrelax = 'full'", "structure.pressure: it is needed"),
        ('phase = "P21c-8"\natoms = 8', 'file = "bad.toml"', "bad.toml has no format that ASE"),
        (
            'phase = "P21c-8"\natoms = 8',
            'file = "bad.xyz"',
            "bad.xyz cannot be read as a structure",
        ),
    ],
)
def test_bad_configurations_are_one_sentence(model_file, tmp_path, old, new, words):
    assert old in GOOD
    config = tmp_path / "bad.toml"
    (tmp_path / "bad.xyz").write_text("no number of atoms\n")
    config.write_text(GOOD.replace(old, new).format(model=model_file))
    result = CliRunner().invoke(main, ["run", str(config)])
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: ") and words in lines[0]


def test_nve_needs_momenta(model_file, tmp_path):
    nve = settings(model_file, stage=STAGES[-1:])
    with pytest.raises(ConfigError, match="atoms with momenta"):
        Run(nve, tmp_path / "run", atoms=crystal()).run()
    for structure in ({"phase": "P21c-8"}, {"file": "cold.xyz"}):
        write(tmp_path / "cold.xyz", crystal())
        structure |= {"pressure": 30.0, "relax": "full"}
        config = settings(model_file, stage=STAGES[-1:], structure=structure)
        made = []
        with pytest.raises(ConfigError, match=r"structure\.temperature"):
            Run(config, tmp_path / "b", base=tmp_path).run(preparing=made.append)
        assert not made  # nothing was relaxed in vain
    structure = {"phase": "P21c-8", "atoms": 8, "relax": "none", "temperature": 200.0}
    summary = Run(
        settings(model_file, stage=STAGES[-1:], structure=structure), tmp_path / "c"
    ).run()
    assert summary["status"] == "finished"


def test_constraints_are_refused(model_file, tmp_path):
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 1]))
    with pytest.raises(ConfigError, match=r"The structure has constraints \(FixAtoms\)"):
        Run(settings(model_file), tmp_path / "run", atoms=atoms)
    write(tmp_path / "held.traj", atoms)
    config = settings(model_file, structure={"file": "held.traj"})
    with pytest.raises(ConfigError, match=r"held\.traj has constraints \(FixAtoms\)"):
        Run(config, tmp_path / "run", base=tmp_path).run()


def test_npt_needs_a_structure_periodic_in_all_directions(model_file, tmp_path):
    layer = crystal()
    layer.pbc = (True, True, False)
    with pytest.raises(ConfigError, match="The structure is not periodic in all three"):
        Run(settings(model_file), tmp_path / "run", atoms=layer)
    write(tmp_path / "layer.extxyz", layer)
    stage = [STAGES[3], STAGES[1]]
    structure = {"file": "layer.extxyz", "relax": "full", "pressure": 30.0}
    config = settings(model_file, stage=stage, structure=structure)
    made = []
    with pytest.raises(ConfigError, match=r"layer\.extxyz is not periodic in all three"):
        Run(config, tmp_path / "run", base=tmp_path).run(preparing=made.append)
    assert not made
    config = settings(model_file, stage=stage[:1], structure=structure)
    with pytest.raises(ConfigError, match=r"structure\.relax: .*layer\.extxyz is not periodic"):
        Run(config, tmp_path / "run", base=tmp_path).run()
    config = settings(model_file, stage=stage[:1], structure={"file": "layer.extxyz"})
    assert Run(config, tmp_path / "run", base=tmp_path).run()["status"] == "finished"


@pytest.mark.parametrize(
    "structure, cell",
    [("hcp", "full"), ("P21c-8", "full"), ("liquid", "iso"), ("slab", "iso"), (None, "full")],
)
def test_what_moves_in_npt_suits_the_structure(structure, cell):
    """As it is recorded, too: a crystal's run of an earlier version is the same run."""
    structure = {"file": "a.traj"} if structure is None else {"phase": structure}
    npt, nvt = dict(STAGES[0]), STAGES[3]
    config = RunConfig(structure=structure, stage=[npt, nvt])
    assert [s.method.cell for s in config.stages] == [cell, "full"]
    assert [s["cell"] for s in config.record["stage"]] == [cell, "full"]
    for given in ("full", "iso"):
        config = RunConfig(structure=structure, stage=[npt | {"cell": given}])
        assert config.stages[0].method.cell == config.record["stage"][0]["cell"] == given


def test_a_run_needs_exactly_one_structure(model_file, tmp_path):
    with pytest.raises(ConfigError, match="needs a structure"):
        Run(settings(model_file), tmp_path / "run")
    structure = {"phase": "hcp"}
    with pytest.raises(ConfigError, match="needs a structure"):
        Run(settings(model_file, structure=structure), tmp_path / "run", atoms=crystal())


def test_momenta_of_a_file_are_kept(model_file, tmp_path):
    atoms = hot_crystal()
    with Trajectory(tmp_path / "hot.traj", "w") as frames:
        frames.write(crystal())
        frames.write(atoms)
    structure = {"file": "hot.traj", "isotope": "D2"}
    config = settings(model_file, stage=STAGES[-1:], structure=structure)
    Run(config, tmp_path / "run", base=tmp_path).run()
    first = read(tmp_path / "run" / run_folder.TRAJECTORY, 0)
    assert first.get_temperature() == pytest.approx(atoms.get_temperature())
    np.testing.assert_allclose(first.get_masses(), 2.014102)
    assert Path(tmp_path / "run" / run_folder.INITIAL).exists()
