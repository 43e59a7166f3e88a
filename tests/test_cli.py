"""The command line: exit codes, sentences, and what `hmlp demo` leaves."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner
from toy_models import hcp, toy_potential

from ase_hmlp import HMLP, __version__
from ase_hmlp.cli import main
from ase_hmlp.errors import ModelNotFoundError
from ase_hmlp.model_io import Domain, Model, load_model, save_model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    domain = Domain((1.5, 6.0), (0.0, 300.0), (0.5, 1.0), (0.4, 1.15), 1.0, 0.5)
    path = tmp_path_factory.mktemp("model") / "toy.joblib"
    return save_model(Model(toy_potential(), domain, "toy"), path)


def hmlp(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def demo(model_file, folder, *more):
    options = ("--model", model_file, "--pressure", 30, "--quick", "--threads", 1)
    return hmlp("demo", "-o", folder, *options, *more)


def assert_refused(result, *words):
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_importing_the_command_line_loads_nothing_heavy(tmp_path):
    code = (
        "import sys, ase_hmlp.cli; "
        "print([m for m in ('numpy', 'ase', 'scipy', 'matplotlib', 'rich') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert answer.stdout.strip() == "[]", answer.stderr


def test_help_and_version():
    assert hmlp("--version").output == f"hmlp, version {__version__}\n"
    commands = ("demo", "train", "import", "label", "evaluate", "info")
    for command in ((), *((name,) for name in commands)):
        result = hmlp(*command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_unknown_option_is_refused():
    assert hmlp("demo", "--colour", "red").exit_code == 2


def test_missing_model_is_one_sentence():
    assert_refused(hmlp("info", "nowhere.joblib"), "nowhere.joblib", "shipped")


@pytest.mark.parametrize("arguments", [("--debug", "info"), ("info", "--debug")])
def test_debug_shows_the_error_itself(arguments):
    result = hmlp(*arguments, "nowhere.joblib")
    assert isinstance(result.exception, ModelNotFoundError)


def test_missing_and_damaged_files(tmp_path, model_file):
    assert_refused(hmlp("train", tmp_path / "none.toml"), "none.toml")
    assert_refused(hmlp("evaluate", model_file, tmp_path / "none.extxyz"), "none.extxyz")
    half = tmp_path / "half.joblib"
    half.write_bytes(model_file.read_bytes()[:1000])
    assert_refused(hmlp("info", half), "half.joblib")


def test_unknown_key_in_a_config_is_named(tmp_path):
    config = tmp_path / "config.toml"
    shipped = files("ase_hmlp.training.configs") / "h2-pbe.toml"
    config.write_text('colour = "red"\n' + shipped.read_text())
    assert_refused(hmlp("train", config), "colour")
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]


def test_info(model_file):
    result = hmlp("info", model_file)
    assert result.exit_code == 0
    for word in ("toy", "1.5 to 6 Å³/atom", "0.4 to 1.15 Å", "no errors"):
        assert word in result.output


def test_info_of_the_shipped_model():
    result = hmlp("info", "h2-pbe")
    assert result.exit_code == 0
    assert "Errors on unseen families" in result.output


def labelled(model_file, path, offset):
    """Frames labelled by the toy model, energies too high by `offset` (eV/atom)."""
    frames = []
    for seed in range(3):
        atoms = hcp(3.0, seed=seed, bond_spread=0.01)
        atoms.calc = HMLP(model_file)
        labels = {
            "energy": atoms.get_potential_energy() + offset * len(atoms),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.info["group"] = "even" if seed % 2 == 0 else "odd"
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


def test_evaluate_finds_a_known_error(model_file, tmp_path):
    data = labelled(model_file, tmp_path / "data.extxyz", offset=-0.012)
    answer = json.loads(hmlp("evaluate", model_file, data, "--json").stdout)
    assert [row["group"] for row in answer["rows"]] == ["even", "odd", "all"]
    assert answer["frames"] == 3
    for row in answer["rows"]:
        assert row["energy_mae"] == pytest.approx(12.0, abs=1e-3)
        assert row["force_mae"] < 1e-4
        assert row["pressure_mae"] < 1e-3
    text = hmlp("evaluate", model_file, data)
    assert "12.00" in text.output
    assert "even" in text.output
    assert "even" not in hmlp("evaluate", model_file, data, "--by", "all").output


def test_evaluate_by_split_and_pressure(model_file, tmp_path):
    """Of three frames one is a test and one is denser; energies of each are wrong by its own."""
    data = labelled(model_file, tmp_path / "data.extxyz", offset=0.0)
    frames = read(data, ":")
    dense = hcp(2.0, seed=5)
    dense.info["group"] = "even"
    dense.calc = HMLP(model_file)
    keys = ("energy", "forces", "stress")
    labels = {key: dense.calc.get_property(key, dense) for key in keys}
    dense.calc = SinglePointCalculator(dense, **labels)
    frames[1].info["split"] = "test"
    frames[1].calc.results["energy"] += 0.005 * len(frames[1])
    write(data, [*frames, dense], format="extxyz")
    loose, tight = (-a.get_stress()[:3].mean() / units.GPa for a in (frames[0], dense))
    assert tight // 50 > loose // 50

    def rows(*options):
        result = hmlp("evaluate", model_file, data, "--json", *options)
        found = json.loads(result.stdout)["rows"]
        return {row["group"]: (row["frames"], round(row["energy_mae"], 3)) for row in found}

    assert rows("--split", "test") == {"odd": (1, 5.0), "all": (1, 5.0)}
    between = rows("--pressures", f"{(loose + tight) / 2}", f"{tight + 1}")
    assert between == {"even": (1, 0.0), "all": (1, 0.0)}
    bands = rows("--by", "pressure")
    assert [count for count, _ in bands.values()] == [2, 1, 1, 4]
    assert list(bands)[1] == f"even, {50 * (tight // 50):g} to {50 * (tight // 50) + 50:g} GPa"
    assert_refused(hmlp("evaluate", model_file, data, "--split", "nowhere"), "None of the frames")
    del frames[0].calc.results["stress"]
    write(data, frames, format="extxyz")
    for options in (("--by", "pressure"), ("--pressures", "0", "100")):
        assert_refused(hmlp("evaluate", model_file, data, *options), "no stress label")


def test_demo_writes_what_it_promises(model_file, tmp_path):
    folder = tmp_path / "demo"
    result = demo(model_file, folder)
    assert result.exit_code == 0, result.output
    for word in (
        "relaxed enthalpy",
        "mean pressure",
        "mean bond length",
        "drift of conserved quantity",
    ):
        assert word in result.stdout
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["steps"] == 400
    assert summary["atoms"] >= 192
    assert summary["domain_warnings"] == []
    assert len(summary["model"]["sha256"]) == 64
    assert summary["inputs"]["npt"]["pressure"] == 30.0
    values = {r["quantity"]: r["value"] for r in summary["results"]}
    assert values["largest force left"] <= 0.01
    assert values["largest stress error left"] <= 0.1
    assert values["mean pressure"] == pytest.approx(30.0, abs=2.0)
    assert 0.65 < values["mean bond length"] < 0.85
    log = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    assert len(log) == 41
    frames = read(folder / "trajectory.traj", ":")
    assert len(frames) == 9
    assert len(frames[0]) == summary["atoms"]
    relaxed = read(folder / "relaxed.extxyz")
    assert relaxed.get_volume() / len(relaxed) == pytest.approx(values["relaxed volume"], rel=1e-6)
    pictures = {p.name: p for p in folder.glob("*.png")}
    assert set(pictures) == {
        "timeline.png",
        "molecules.png",
        "levels.png",
        "conservation.png",
        "crystal.png",
    }
    for path in pictures.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_demo_refuses_a_folder_with_something_in_it(model_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "log.csv").write_text("an earlier run")
    assert_refused(demo(model_file, tmp_path), "not empty", "--overwrite")
    assert (tmp_path / "log.csv").read_text() == "an earlier run"
    result = demo(model_file, tmp_path, "--overwrite")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "log.csv").read_text().startswith("step,")


def test_demo_leaves_no_folder_behind_a_missing_model(tmp_path):
    assert_refused(hmlp("demo", "-o", tmp_path / "demo", "--model", "nowhere"), "nowhere")
    assert not (tmp_path / "demo").exists()


def test_demo_refuses_a_pressure_beyond_the_training_data(model_file, tmp_path):
    """Unless the model says that its pressures are not known."""
    result = demo(model_file, tmp_path / "demo", "--pressure", 600)
    assert_refused(result, "model toy end at 300 GPa: 600 GPa is beyond them.")
    assert not (tmp_path / "demo").exists()
    model = load_model(model_file)
    domain = dataclasses.replace(model.domain, pressure=(0.0, 1.0))
    for pressure, refused in ((None, True), ("not labelled", False)):
        training = {} if pressure is None else {"pressure": pressure}
        save_model(Model(model.potential, domain, "toy", training), tmp_path / "other.joblib")
        result = demo(tmp_path / "other.joblib", tmp_path / "demo")
        assert ("is beyond them" in result.stderr) == refused


def test_demo_refuses_an_unknown_phase(tmp_path):
    result = hmlp("demo", "-o", tmp_path / "demo", "--phase", "Cmca")
    assert result.exit_code == 2
    assert "P21c-8" in result.stderr


def test_interrupt_exits_130(monkeypatch, model_file, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_hmlp.simulate.demo.relax", interrupted)
    result = demo(model_file, tmp_path / "demo")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "demo").exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send")
def test_ctrl_c_during_dynamics_keeps_what_was_written(model_file, tmp_path):
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "ase_hmlp.cli", "demo", "-o", str(folder), "--threads", "1"]
    command += ["--model", str(model_file), "--pressure", "30", "--steps", "1000000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        log, deadline = folder / "log.csv", time.monotonic() + 90.0
        while not log.exists() or log.read_text().count("\n") < 8:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Interrupted after" in err
    assert "Traceback" not in err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    rows = np.genfromtxt(log, delimiter=",", names=True)
    assert rows["step"][-1] == summary["steps"]
    assert np.isfinite(rows["temperature_K"]).all()
    assert len(read(folder / "trajectory.traj", ":")) == summary["steps"] // 50 + 1
