"""``hmlp analyse``: every command on a real file, what it leaves, and what it refuses."""

import json

import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner
from test_thermodynamics import write_log
from toy_calculator import toy_model
from toy_models import hcp

from ase_hmlp.analysis.commands import analyse
from ase_hmlp.cli import main
from ase_hmlp.model_io import save_model
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.run import Run
from ase_hmlp.simulate.run_config import RunConfig

#: Options that a command needs; None: it takes no trajectory.
OPTIONS = {
    "bonds": (),
    "eqq": (),
    "order": ("--reference", "{unit}"),
    "orientation": ("--pole", "a"),
    "rdf": ("--cutoff", 4.0),
    "fraction": (),
    "thermo": ("--pressure", 50.0),
    "fingerprints": ("--model", "{model}", "--threads", 1),
}


def hmlp(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A trajectory with energies, stresses and velocities; its unit cell; a model."""
    folder = tmp_path_factory.mktemp("run")
    unit = hcp(3.2, (1, 1, 1), seed=1)
    rng, frames = np.random.default_rng(0), []
    for k in range(30):
        atoms = unit.repeat((2, 2, 1))
        atoms.positions += 0.01 * rng.normal(size=atoms.positions.shape)
        atoms.set_momenta(np.sqrt(300 * units.kB) * rng.normal(size=atoms.positions.shape))
        atoms.info["time_fs"] = 20.0 * k
        energy = -15.0 * len(atoms) + 0.1 * rng.normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, stress=-0.3 * np.ones(6))
        frames.append(atoms)
    write(folder / "run.traj", frames)
    write(folder / "unit.extxyz", unit)
    model = save_model(toy_model(), folder / "toy.joblib")
    return {"trajectory": folder / "run.traj", "unit": folder / "unit.extxyz", "model": model}


def options(name, files):
    return [str(o).format(**files) for o in OPTIONS[name]]


def test_every_command_explains_itself():
    for name in analyse.commands:
        result = hmlp("analyse", name, "--help")
        assert result.exit_code == 0 and "--debug" in result.output


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_prints_and_writes(name, files, tmp_path):
    arguments = ("analyse", name, files["trajectory"], "-o", tmp_path / "out")
    result = hmlp(*arguments, "--start", 2, *options(name, files))
    assert result.exit_code == 0, result.output
    assert "± error" in result.output and "Written: " in result.output
    record = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert record["inputs"]["trajectory"]["frames"] == 28
    assert record["inputs"]["trajectory"]["timestep_fs"] == 20.0
    assert all(q["value"] is not None for q in record["quantities"])
    assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "out").glob(f"{name}*.csv"))
    before = (tmp_path / "out" / f"{name}.json").read_bytes()
    refused(hmlp(*arguments, *options(name, files)), "is there already", "--overwrite")
    assert (tmp_path / "out" / f"{name}.json").read_bytes() == before
    again = hmlp(*arguments, "--overwrite", "--json", *options(name, files))
    assert json.loads(again.stdout)["inputs"]["trajectory"]["frames"] == 30


def test_the_supercell_of_the_order_parameter_as_a_matrix(files, tmp_path):
    arguments = ("analyse", "order", files["trajectory"], "--reference", files["unit"])
    matrix = ("--matrix", 2, 0, 0, 0, 2, 0, 0, 0, 1)
    result = hmlp(*arguments, *matrix, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "order.json").read_text())
    assert record["inputs"]["settings"]["repeat"] == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
    both = hmlp(*arguments, *matrix, "--repeat", 2, 2, 1, "-o", tmp_path / "new")
    assert both.exit_code == 2 and "One of --repeat and --matrix" in both.stderr
    singular = hmlp(*arguments, "--matrix", *range(9), "-o", tmp_path / "new")
    refused(singular, "reference cells are 0, but")


def test_equation_of_state_of_runs(tmp_path):
    for pressure in (1, 2):
        folder = tmp_path / f"run{pressure}"
        folder.mkdir()
        write_log(folder / "log.csv", [100.0, 150.0], atoms=64)
    result = hmlp("analyse", "eos", tmp_path / "run1", tmp_path / "run2", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "run1 at 100 K: " in result.output and "(dH/dT)_P" in result.output
    record = json.loads((tmp_path / "out" / "eos.json").read_text())
    assert len(record["inputs"]["logs"]) == 2
    assert record["tables"]["eos"]["run"][3] == "run2 at 150 K"
    # H = 3 k T + P V, V constant but for noise; from the one temperature to the other.
    assert record["tables"]["isobars"]["heat_capacity_kB_per_atom"] == pytest.approx([3], abs=0.5)
    refused(hmlp("analyse", "eos", tmp_path / "run1", "-o", tmp_path / "out"), "is there already")
    refused(hmlp("analyse", "eos", tmp_path / "run3", "-o", tmp_path / "new"), "There is no log")
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def deuterium(tmp_path_factory):
    """A run of D₂ by `hmlp run`'s own hand: two pressures at one temperature, then NVE."""
    folder = tmp_path_factory.mktemp("deuterium")
    model = save_model(toy_model(contact=0.6, contact_limit=0.4), folder / "toy.joblib")
    atoms = hcp(3.0, (2, 2, 1), seed=1)
    atoms.set_masses([2.014] * len(atoms))
    held = {"ensemble": "npt", "cell": "iso", "steps": 60, "temperature": 100}
    stages = [held | {"pressure": 40}, held | {"pressure": 60}, {"ensemble": "nve", "steps": 40}]
    config = {"model": str(model), "threads": 1, "stage": stages}
    config["write"] = {"sample_interval": 2, "frame_interval": 20}
    run = Run(RunConfig(**config), folder / "points" / "run", atoms=atoms)
    run.run()
    return folder


def test_equation_of_state_of_a_run(deuterium, tmp_path):
    """Its log has empty fields: targets where there is none, deviations in most rows."""
    run = deuterium / "points" / "run"
    assert ",," in (run / "log.csv").read_text()
    result = hmlp("analyse", "eos", run, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    eos = json.loads((tmp_path / "out" / "eos.json").read_text())["tables"]["eos"]
    at = "run at 100 K at"
    assert eos["run"] == [f"{at} 40 GPa", f"{at} 60 GPa", "run"]
    assert eos["ensemble"] == ["npt", "npt", "nve"]
    assert eos["isobar_GPa"][:2] == [40.0, 60.0]  # what was asked for, not what came out
    log = read_log(run / "log.csv")
    for k, rows in enumerate((slice(7, 30), slice(37, 60), slice(65, None))):
        state = {name: eos[name][k] for name in ("density_g_per_cm3", "volume_A3_per_atom")}
        for name, value in state.items():
            assert value == pytest.approx(log[name][rows].mean(), rel=0.01)
        mass = state["density_g_per_cm3"] * state["volume_A3_per_atom"] / 1.66054
        assert mass == pytest.approx(2.014, rel=0.01)  # of means


def test_equation_of_state_of_a_sweep(deuterium, tmp_path):
    result = hmlp("analyse", "eos", deuterium, "-o", tmp_path / "out", "--json")
    assert len(json.loads(result.stdout)["inputs"]["logs"]) == 1


def test_a_run_folder_is_a_trajectory(deuterium, tmp_path):
    result = hmlp("analyse", "bonds", deuterium / "points" / "run", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    refused(hmlp("analyse", "bonds", tmp_path, "-o", tmp_path / "new"), "There is no trajectory")
    arguments = (deuterium / "points" / "run", "--longest-bond", 0.7, "-o", tmp_path / "new")
    refused(hmlp("analyse", "bonds", *arguments), "more than 0.7 Å: it broke")


def test_refusals_leave_nothing_behind(files, tmp_path):
    out, trajectory = tmp_path / "out", files["trajectory"]
    settings = tmp_path / "run.toml"
    settings.write_text("seed = 1\n")
    cases = (
        (("bonds", tmp_path / "nowhere.traj"), "There is no trajectory"),
        (("bonds", settings), "run.toml is of no format that ASE knows"),
        (("bonds", trajectory, "--start", 30), "has no frame 30"),
        (("bonds", trajectory, "--start", 5, "--stop", 5), "are none"),
        (("eqq", trajectory, "--cutoff", 1.0), "beyond the cutoff"),
        (("order", trajectory, "--reference", "Cmca"), "There is no reference 'Cmca'"),
        (("order", trajectory, "--reference", "P21c-24-a"), "is no multiple of"),
        (("fingerprints", trajectory, "--model", "nowhere"), "nowhere"),
        (("thermo", trajectory, "--stop", 1), "needs at least 2"),
        (("thermo", trajectory, "--ensemble", "npt"), "the volume is constant, which is not npt"),
    )
    for arguments, sentence in cases:
        refused(hmlp("analyse", *arguments, "-o", out), sentence)
    assert not out.exists()


def test_results_do_not_replace_a_file(files, tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    result = hmlp("analyse", "bonds", files["trajectory"], "-o", tmp_path / "thesis")
    refused(result, "is a file, not a folder")
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_a_time_between_frames_that_contradicts_the_file(files, tmp_path):
    """An error even where the analysis needs no time: the table is against it."""
    arguments = ("analyse", "bonds", files["trajectory"], "-o", tmp_path, "--timestep", 1.0)
    refused(hmlp(*arguments), "are 20 fs apart, not 1 fs")
