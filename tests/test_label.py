"""Labelling: nothing lost, nothing twice, nothing bad kept."""

import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_dft
import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from click.testing import CliRunner
from toy_calculator import toy_model
from toy_models import hcp

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, DataError, LabellingError, OutputExistsError
from ase_hmlp.model_io import model_hash, save_model
from ase_hmlp.simulate.build import phase
from ase_hmlp.training.append_only import RecordFile, split_frames
from ase_hmlp.training.frames import read_frames
from ase_hmlp.training.label import (
    CheckSection,
    RunSection,
    label_frames,
    label_from_config,
    read_failures,
    structure_digest,
)
from ase_hmlp.training.label_calculators import (
    PSEUDOPOTENTIAL,
    PULAY,
    RECIPE,
    ASESection,
    EspressoSection,
    _digest,
    empty_slabs,
    k_mesh,
    mesh_error,
)

TESTS = Path(__file__).parent
DATA = TESTS.parent / "training" / "data"
SERIAL = RunSection(workers=1, backend="sequential")

needs_espresso = pytest.mark.skipif(
    shutil.which("pw.x") is None,
    reason="no pw.x: apt-get install quantum-espresso quantum-espresso-data libopenblas0",
)


def structures(n):
    """Small molecular boxes; the first atom of number i is at x = i / 100 Å."""
    frames = []
    for i in range(n):
        rng = np.random.default_rng(i)
        bonds = rng.normal(size=(2, 3))
        bonds *= 0.74 / np.linalg.norm(bonds, axis=1)[:, None]
        start = np.array([[0.01 * i, 0.5, 0.5], [2.0, 2.0, 2.0]])
        atoms = Atoms("H4", np.stack([start, start + bonds], 1).reshape(-1, 3), cell=[4, 4, 4])
        atoms.pbc = True
        atoms.info = {"group": "box", "source": f"box/{i}", "parent": f"seed/{i % 2}", "k": i}
        atoms.set_array("partner", np.array([1, 0, 3, 2]))
        frames.append(atoms)
    return frames


def fake(name="FakeDFT", **arguments):
    section = {"kind": "ase", "module": "fake_dft", "class": name, "arguments": arguments}
    return ASESection.model_validate(section).labeller()


def sources(path):
    return [atoms.info["source"] for atoms in read(path, ":", format="extxyz")]


def write_config(folder, n=6, run="", **arguments):
    write(folder / "in.extxyz", structures(n), format="extxyz")
    keys = "\n".join(f"{k} = {json.dumps(v)}" for k, v in arguments.items())
    (folder / "label.toml").write_text(
        'input = ["in.extxyz"]\noutput = "out.extxyz"\n'
        f'[run]\n{run}\n[calculator]\nkind = "ase"\nmodule = "fake_dft"\nclass = "FakeDFT"\n'
        f"[calculator.arguments]\n{keys}\n"
    )
    return folder / "label.toml"


def hmlp(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


# ---------------------------------------------------------------- what is written


def test_a_labelled_frame_has_labels_provenance_and_all_it_came_with(tmp_path):
    frames, out = structures(3), tmp_path / "out.extxyz"
    result = label_frames(frames, out, fake(version="7"), SERIAL)
    assert (result.labelled, result.failed, result.already) == (3, 0, 0)
    for given, got in zip(frames, read(out, ":"), strict=True):
        x = given.positions - given.positions.mean(axis=0)
        assert got.get_potential_energy() == pytest.approx(0.5 * (x**2).sum(), abs=1e-12)
        assert got.get_forces() == pytest.approx(-x, abs=1e-8)
        assert got.get_stress() == pytest.approx(np.full(6, -0.01))
        assert got.positions == pytest.approx(given.positions, abs=1e-8)
        assert got.info.items() >= given.info.items()
        assert (got.arrays["partner"] == given.arrays["partner"]).all()
        assert got.info["label"] == 'fake_dft.FakeDFT; version 7; version "7"'
        assert got.info["label_id"] == structure_digest(given)
        assert got.info["label_date"].startswith("20")
        assert got.info["label_seconds"] >= 0.0
    assert [f.parent for f in read_frames(out)] == ["seed/0", "seed/1", "seed/0"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.extxyz"]


@pytest.mark.parametrize("name", ["SmearedDFT", "AskedDFT"])
def test_labels_are_the_energy_that_forces_belong_to(tmp_path, monkeypatch, name):
    """The free energy: not what VASP and CASTEP extrapolate to no smearing."""
    monkeypatch.setattr(fake_dft.AskedDFT, "calculations", 0)
    (atoms,) = structures(1)
    label_frames([atoms], tmp_path / "out.extxyz", fake(name), SERIAL)
    x = atoms.positions - atoms.positions.mean(axis=0)
    energy = read(tmp_path / "out.extxyz").get_potential_energy()
    assert energy == pytest.approx(0.5 * (x**2).sum(), abs=1e-12)
    assert fake_dft.AskedDFT.calculations == (name == "AskedDFT")


def test_labels_of_either_energy_do_not_mix():
    """What was labelled before there was the choice has a digest of three things."""
    before = _digest(["fake_dft", "SmearedDFT", {}])
    assert fake("SmearedDFT").settings != before
    assert fake().settings == _digest(["fake_dft", "FakeDFT", {}])


def test_old_labels_and_constraints_do_not_survive(tmp_path):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms

    (atoms,) = structures(1)
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=99.0, forces=np.ones((4, 3)))
    atoms.info |= {"pulay": 0.0137, "mesh_error": 0.1, "cpu_seconds": 3.0}
    label_frames([atoms], tmp_path / "out.extxyz", fake(), SERIAL)
    got = read(tmp_path / "out.extxyz")
    assert not {"pulay", "mesh_error", "cpu_seconds"} & got.info.keys()
    (frame,) = read_frames(tmp_path / "out.extxyz")
    assert frame.stress == pytest.approx(np.full(6, -0.01))
    assert got.get_potential_energy() < 50.0
    assert np.abs(got.get_forces()[0]).max() > 0.1
    assert not got.constraints and "move_mask" not in got.arrays


def test_a_structure_given_twice_is_labelled_once(tmp_path):
    frames = structures(2)
    result = label_frames([*frames, frames[0]], tmp_path / "out.extxyz", fake(), SERIAL)
    assert (result.labelled, result.duplicates) == (2, 1)
    assert sources(tmp_path / "out.extxyz") == ["box/0", "box/1"]


def test_digest_tells_structures_apart_and_nothing_else():
    (a,) = structures(1)
    b = a.copy()
    b.info = {"source": "elsewhere"}
    assert structure_digest(b) == structure_digest(a)
    for change in (
        lambda c: c.positions.__setitem__((3, 2), c.positions[3, 2] + 2e-6),
        lambda c: c.set_cell([4, 4, 4.001]),
        lambda c: c.set_pbc([True, True, False]),
        lambda c: c.numbers.__setitem__(1, 2),
    ):
        c = a.copy()
        change(c)
        assert structure_digest(c) != structure_digest(a)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "trouble, reason",
    [
        ("raise", "RuntimeError: three unforeseen things"),
        ("unconverged", "not converged"),
        ("nan", "forces not finite"),
        ("push", "net force of 0.02 eV/Å per atom"),
        ("no stress", "stress"),
        ("shape", "forces of shape (3, 3)"),
    ],
)
def test_bad_calculations_are_set_aside_with_structure_and_reason(tmp_path, trouble, reason):
    frames, out = structures(4), tmp_path / "out.extxyz"
    result = label_frames(frames, out, fake(trouble=trouble, trouble_above=0.015), SERIAL)
    assert (result.labelled, result.failed) == (2, 2)
    assert sources(out) == ["box/0", "box/1"]
    records = read_failures(result.failures)
    assert [r["source"] for r in records] == ["box/2", "box/3"]
    for record, given in zip(records, frames[2:], strict=True):
        assert reason in record["reason"]
        kept = read(io.StringIO(record["extxyz"]), format="extxyz")
        assert structure_digest(kept) == structure_digest(given)
        assert kept.info == given.info
    # Not tried again, not forgotten, until asked for.
    again = label_frames(frames, out, fake(trouble=trouble, trouble_above=0.015), SERIAL)
    assert (again.labelled, again.failed, again.already, again.set_aside) == (0, 0, 2, 2)


def test_retry_failed_tries_again_and_clears_what_succeeds(tmp_path):
    frames, out, settings = structures(4), tmp_path / "out.extxyz", fake().settings
    bad = fake(trouble="raise", trouble_above=0.005)
    good = type(bad)(bad.settings, fake(trouble="raise", trouble_above=0.025).compute)
    assert bad.settings != settings
    label_frames(frames, out, bad, SERIAL)
    result = label_frames(frames, out, good, SERIAL, retry_failed=True)
    assert (result.labelled, result.failed, result.already) == (2, 1, 1)
    assert sorted(sources(out)) == ["box/0", "box/1", "box/2"]
    assert [r["source"] for r in read_failures(result.failures)] == ["box/3"]
    label_frames(frames, out, type(bad)(bad.settings, fake().compute), SERIAL, retry_failed=True)
    assert sorted(sources(out)) == ["box/0", "box/1", "box/2", "box/3"]
    assert not result.failures.exists()


def test_structures_that_cannot_be_computed_are_failures(tmp_path):
    frames = structures(3)
    frames[1].positions[0, 0] = np.nan
    frames[2].info["odd"] = "two\nlines"
    result = label_frames(frames, tmp_path / "out.extxyz", fake(), SERIAL)
    assert result.labelled + result.failed == 3
    assert "not finite" in read_failures(result.failures)[0]["reason"]
    assert len(split_frames((tmp_path / "out.extxyz").read_bytes())) == result.labelled


def test_stress_may_be_dispensed_with(tmp_path):
    out = tmp_path / "out.extxyz"
    result = label_frames(structures(1), out, fake("without_stress"), SERIAL)
    assert "no stress" in read_failures(result.failures)[0]["reason"]
    label_frames(
        structures(1), out, fake("without_stress"), SERIAL, CheckSection(stress=False), True
    )
    assert read_frames(out)[0].stress is None


def test_failed_runs_are_kept_if_asked_for(tmp_path):
    frames, out = structures(2), tmp_path / "out.extxyz"
    run = RunSection(workers=1, backend="sequential", keep_failed=True)
    label_frames(frames, out, fake(trouble="raise", trouble_above=0.005), run)
    kept = tmp_path / "out.extxyz.failed-runs" / structure_digest(frames[1])
    assert (kept / "fake.out").read_text() == "a diary"
    assert {p.name for p in tmp_path.iterdir()} == {
        "out.extxyz",
        "out.failed.jsonl",
        "out.extxyz.failed-runs",
    }


def test_a_run_in_which_nothing_works_stops(tmp_path):
    run = RunSection(workers=1, backend="sequential", stop_after=3)
    with pytest.raises(LabellingError, match="3 calculations in a row"):
        label_frames(structures(9), tmp_path / "o.xyz", fake(trouble="raise"), run)


def test_all_that_failed_before_is_tried_again(tmp_path):
    """However many fail again, in a row; a new one that fails after them does count."""
    frames, out = structures(9), tmp_path / "o.xyz"
    run = RunSection(workers=1, backend="sequential", stop_after=3)
    bad = fake(trouble="raise", trouble_above=-1.0)
    for _ in range(2):
        with pytest.raises(LabellingError, match="3 calculations in a row"):
            label_frames(frames, out, bad, run)
    assert len(read_failures(tmp_path / "o.failed.jsonl")) == 6
    mended = type(bad)(bad.settings, fake(trouble="raise", trouble_above=0.055).compute)
    with pytest.raises(LabellingError, match="3 calculations in a row"):
        label_frames(frames, out, mended, run, retry_failed=True)
    assert len(sources(out)) == 6
    out.unlink()
    # Eight fail again, and the ninth is labelled.
    aside = RunSection(workers=1, backend="sequential", stop_after=0)
    label_frames(frames[:8], out, bad, aside)
    mended = type(bad)(bad.settings, fake(trouble="raise", trouble_above=-1.0).compute)
    result = label_frames(frames[:8], out, mended, run, retry_failed=True)
    assert (result.labelled, result.failed) == (0, 8)


def test_a_run_that_stops_has_no_advice_from_joblib(tmp_path, recwarn):
    run = RunSection(workers=2, backend="threading", stop_after=2)
    labeller = fake(trouble="raise", trouble_above=-1.0, seconds=0.05)
    with pytest.raises(LabellingError):
        label_frames(structures(12), tmp_path / "o.xyz", labeller, run)
    assert not [str(w.message) for w in recwarn if "tasks" in str(w.message)]


def test_other_settings_do_not_mix(tmp_path):
    out = tmp_path / "out.extxyz"
    label_frames(structures(1), out, fake(version="7"), SERIAL)
    with pytest.raises(ConfigError, match="other settings"):
        label_frames(structures(2), out, fake(version="8"), SERIAL)


def hmlp_labeller(model, base=Path()):
    section = {"kind": "ase", "module": "ase_hmlp", "class": "HMLP", "arguments": {"model": model}}
    return ASESection.model_validate(section).labeller(base)


def test_a_model_file_that_was_replaced_is_another_setting(tmp_path):
    model, out = tmp_path / "m.joblib", tmp_path / "out.extxyz"
    save_model(toy_model(volume=(0.5, 60.0)), model)
    first = hmlp_labeller(str(model))
    assert hmlp_labeller(str(model)).settings == first.settings
    crystal = hcp(3.0, (2, 1, 1), seed=5)
    label_frames([crystal], out, first, SERIAL)
    assert f"m.joblib sha256:{model_hash(model)[:16]}" in read(out).info["label"]
    save_model(toy_model(volume=(0.5, 61.0)), model)
    with pytest.raises(ConfigError, match="other files"):
        label_frames([crystal], out, hmlp_labeller(str(model)), SERIAL)


def test_a_label_of_a_shipped_model_says_which(tmp_path):
    (tmp_path / "scratch").mkdir()
    labels = hmlp_labeller("h2-pbe").compute(phase("P21c-8"), tmp_path / "scratch")
    assert labels.label.endswith(f'model "h2-pbe"; h2-pbe sha256:{model_hash("h2-pbe")[:16]}')


def test_files_among_arguments_count_by_content_but_for_what_is_written(tmp_path):
    table, log = tmp_path / "table", tmp_path / "log"
    settings = []
    for content in ("a", "b", "b"):
        table.write_text(content)
        log.write_text(content + str(len(settings)))
        settings.append(fake(version=[{"file": str(table)}], log=str(log)).settings)
    assert settings[0] != settings[1] == settings[2]


def test_files_of_arguments_lie_beside_the_configuration(tmp_path, monkeypatch):
    """Wherever the run is started from; one in the working directory of the same name is another.

    Outputs of runs that were started beside the configuration stay valid."""
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "there" / "sub").mkdir(parents=True)
    save_model(toy_model(volume=(0.5, 60.0)), tmp_path / "here" / "sub" / "m.joblib")
    save_model(toy_model(volume=(0.5, 61.0)), tmp_path / "there" / "sub" / "m.joblib")
    for name in ("here", "there"):  # a shipped model is meant all the same
        (tmp_path / name / "h2-pbe").write_text("no model")
    crystal = hcp(3.0, (2, 1, 1), seed=5)
    write(tmp_path / "here" / "in.extxyz", crystal)
    sha256 = model_hash(tmp_path / "here" / "sub" / "m.joblib")
    config = tmp_path / "here" / "label.toml"
    config.write_text(
        'input = ["in.extxyz"]\noutput = "out.extxyz"\n[calculator]\nkind = "ase"\n'
        'module = "ase_hmlp"\nclass = "HMLP"\narguments = { model = "sub/m.joblib" }\n'
        '[run]\nworkers = 1\nbackend = "sequential"\n'
    )
    monkeypatch.chdir(tmp_path / "there")
    label_from_config(config)
    info = read(tmp_path / "here" / "out.extxyz").info
    assert info["label"].endswith(f"sub/m.joblib sha256:{sha256[:16]}")
    expected = _digest(
        ["ase_hmlp", "HMLP", {"model": "sub/m.joblib"}, {"sub/m.joblib": sha256}, "free energy"]
    )
    assert info["label_settings"] == expected
    shipped = hmlp_labeller("h2-pbe", tmp_path / "here").compute(phase("P21c-8"), tmp_path)
    assert f"h2-pbe sha256:{model_hash('h2-pbe')[:16]}" in shipped.label
    monkeypatch.chdir(tmp_path / "here")
    assert label_from_config("label.toml").already == 1


def test_files_can_be_named_whose_hashes_go_with_the_labels(tmp_path):
    keys = {"kind": "ase", "module": "fake_dft", "class": "FakeDFT"}
    (tmp_path / "POTCAR").write_text("PAW_PBE H")
    section = ASESection.model_validate(keys | {"hash_files": ["POTCAR"]})
    label_frames(structures(1), tmp_path / "o.xyz", section.labeller(tmp_path), SERIAL)
    sha256 = hashlib.sha256(b"PAW_PBE H").hexdigest()
    assert read(tmp_path / "o.xyz").info["label"].endswith(f"POTCAR sha256:{sha256[:16]}")
    (tmp_path / "POTCAR").write_text("PAW_PBE H_GW")
    with pytest.raises(ConfigError, match="other files"):
        label_frames(structures(1), tmp_path / "o.xyz", section.labeller(tmp_path), SERIAL)
    (tmp_path / "POTCAR").unlink()
    with pytest.raises(ConfigError, match=r"hash_files: .*POTCAR cannot be read: No such file"):
        section.labeller(tmp_path)


def test_files_of_others_are_not_touched(tmp_path):
    out = tmp_path / "out.extxyz"
    for content, words in (
        ("my thesis\n\nyears of work", "not extended XYZ"),
        ("1\nLattice=...\nH 0 0 0\n", "did not write"),
    ):
        out.write_text(content)
        with pytest.raises(DataError, match=words):
            label_frames(structures(1), out, fake(), SERIAL)
        assert out.read_text() == content


# ---------------------------------------------------------------- killed and resumed


@pytest.mark.parametrize("cut", [1, 30, 90, 200, 300, 400])
def test_a_half_written_frame_is_cut_and_labelled_again(tmp_path, cut):
    frames, out = structures(3), tmp_path / "out.extxyz"
    label_frames(frames, out, fake(), SERIAL)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    result = label_frames(frames, out, fake(), SERIAL)
    assert (result.labelled, result.already) == (1, 2)
    assert result.cut == len(split_frames(whole)[-1]) - cut
    assert sources(out) == ["box/0", "box/1", "box/2"]
    assert len(out.read_bytes()) == pytest.approx(len(whole), abs=4)


def test_two_runs_on_one_output_are_refused(tmp_path):
    out = tmp_path / "out.extxyz"
    with RecordFile(out, split_frames), pytest.raises(OutputExistsError, match="another run"):
        label_frames(structures(1), out, fake(), SERIAL)


class Hmlp:
    """`hmlp label` in a process of its own.

    What it prints goes to files: a pipe stays open as long as its workers, which may outlive it.
    """

    def __init__(self, config):
        self._printed = [config.with_suffix(end) for end in (".stdout", ".stderr")]
        command = [sys.executable, "-m", "ase_hmlp.cli", "label", str(config)]
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        with self._printed[0].open("w") as out, self._printed[1].open("w") as err:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=config.parent, env=environment
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        for path in self._printed:
            path.unlink()

    def wait_for(self, condition):
        deadline = time.monotonic() + 60.0
        while not condition():
            assert self._process.poll() is None, self.printed()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def send(self, signal_number):
        self._process.send_signal(signal_number)

    def ends(self, timeout=60):
        return self._process.wait(timeout)

    def printed(self):
        return [path.read_text() for path in self._printed]


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_sigkill_loses_no_frame_and_labels_none_twice(tmp_path, backend):
    n, log = 10, tmp_path / "log"
    config = write_config(
        tmp_path, n, f'workers = 2\nbackend = "{backend}"', log=str(log), seconds=0.15
    )
    out, finished = tmp_path / "out.extxyz", []
    for kill_at in (2, 6):
        with Hmlp(config) as run:
            run.wait_for(lambda at=kill_at: out.exists() and out.read_text().count("source=") >= at)
            run.send(signal.SIGKILL)
            assert run.ends() == -signal.SIGKILL
        finished.append(len(split_frames(out.read_bytes())))
        assert kill_at <= finished[-1] < n
    with Hmlp(config) as run:
        code = run.ends()
        answer, errors = run.printed()
    assert code == 0, errors
    assert f"{n - finished[-1]} frames labelled" in answer and f"{finished[-1]} before" in answer
    assert sorted(sources(out)) == sorted(f"box/{i}" for i in range(n))
    assert not (tmp_path / "out.extxyz.scratch").exists()
    # Lost at each kill: what was in flight or on its way back, and what orphaned workers began.
    assert n <= len(lines(log)) <= n + 2 * 6


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly(tmp_path, how):
    """The program in flight ends too, its folder goes, and it is not recorded as failed."""
    pids = tmp_path / "pids"
    program = tmp_path / "pw"
    program.write_text(f'#!/bin/sh\necho $$ >> "{pids}"\nexec sleep 300\n')
    program.chmod(0o755)
    (tmp_path / "H.UPF").write_text("none")
    write(tmp_path / "in.extxyz", structures(4), format="extxyz")
    config = tmp_path / "label.toml"
    config.write_text(
        'input = ["in.extxyz"]\noutput = "out.extxyz"\n[calculator]\nkind = "espresso"\n'
        f'command = "{program}"\npseudo_dir = "."\npseudopotential = "H.UPF"\n'
    )
    with Hmlp(config) as run:
        run.wait_for(lambda: len(lines(pids)) == 2)
        run.send(how)
        code = run.ends()
        _, errors = run.printed()
    assert code == 130, errors
    assert "Interrupted" in errors and "Traceback" not in errors
    assert {p.name for p in tmp_path.iterdir()} == {
        "H.UPF",
        "in.extxyz",
        "label.toml",
        "pids",
        "pw",
    }
    for pid in map(int, lines(pids)):
        status = Path(f"/proc/{pid}/stat")
        assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_program_ended_by_ctrl_c_is_no_failure(tmp_path):
    program = tmp_path / "pw"
    program.write_text("#!/bin/sh\nkill -INT $$\n")
    program.chmod(0o755)
    (tmp_path / "H.UPF").write_text("none")
    section = EspressoSection(command=str(program), pseudo_dir=".", pseudopotential="H.UPF")
    with pytest.raises(KeyboardInterrupt):
        label_frames(structures(1), tmp_path / "out.xyz", section.labeller(tmp_path), SERIAL)
    assert {p.name for p in tmp_path.iterdir()} == {"pw", "H.UPF"}


def test_a_calculation_that_kills_its_process_ends_the_run_in_a_sentence(tmp_path):
    config = write_config(tmp_path, 4, trouble="die", trouble_above=0.025)
    with Hmlp(config) as run:
        code = run.ends()
        _, errors = run.printed()
    assert code == 2, errors
    assert "killed the process" in errors and "Traceback" not in errors


# ---------------------------------------------------------------- configuration and command line


def test_loky_workers_share_the_work(tmp_path):
    config = write_config(tmp_path, 6, "workers = 2", log=str(tmp_path / "log"), seconds=0.2)
    stages = []
    result = label_from_config(config, progress=lambda *args: stages.append(args))
    assert result.labelled == 6
    assert sorted(sources(result.output)) == [f"box/{i}" for i in range(6)]
    workers = {line.split()[0] for line in lines(tmp_path / "log")}
    assert len(workers) == 2 and str(os.getpid()) not in workers
    folders = [line.split()[1] for line in lines(tmp_path / "log")]
    assert len(set(folders)) == 6
    assert stages == [("labelling", i, 6) for i in range(7)]


def test_dask_workers_share_the_work(tmp_path):
    """In threads of this process, as LocalCluster has it: a cluster's would be elsewhere."""
    distributed = pytest.importorskip("distributed", reason='pip install "ase_hmlp[dask]"')
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        options = {"scheduler_host": cluster.scheduler_address}
        run = RunSection(workers=-1, backend="dask", backend_options=options)
        labeller = fake(trouble="raise", trouble_above=0.045)
        result = label_frames(structures(6), tmp_path / "out.extxyz", labeller, run)
    assert (result.labelled, result.failed) == (5, 1)
    assert sorted(sources(result.output)) == [f"box/{i}" for i in range(5)]


@pytest.mark.parametrize(
    "change, words",
    [
        (("[run]", "[run]\ncolour = 1"), "unknown key 'run.colour'"),
        (("[run]", "[run]\nworkers = 0"), "key 'run.workers': Input should be"),
        (("[run]", '[run]\nbackend = "abacus"'), "run.backend"),
        (('kind = "ase"', 'kind = "slide-rule"'), "calculator"),
        (('kind = "ase"', 'kind = "ase"\npath = "x"'), "path"),
        (('"fake_dft"', '"no_such_module"'), "no_such_module"),
        (('"FakeDFT"', '"NoSuchClass"'), "NoSuchClass"),
        (("seconds = 0", "hours = 1"), "hours"),
        (('"out.extxyz"', '"in.extxyz"'), "both input and output"),
        (('"out.extxyz"', '"out.db"'), "output"),
        (('["in.extxyz"]', '["none.extxyz"]'), "none.extxyz"),
        (("[run]", "[run"), "not TOML"),
    ],
)
def test_impossible_configurations_are_refused_in_a_sentence(tmp_path, change, words):
    config = write_config(tmp_path, 1, seconds=0)
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    result = hmlp("label", config)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"in.extxyz", "label.toml"}


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"command": "no-such-pw.x -nk 2"}, "no program 'no-such-pw.x'"),
        ({"pseudopotential": "Xx.UPF"}, "Xx.UPF"),
        ({"input_data": {"ecutwavefunction": 46}}, "no variable 'ecutwavefunction'"),
        ({"input_data": {"tstress": False}}, "'tstress' is set by hmlp label"),
    ],
)
def test_espresso_that_cannot_run_is_refused(keys, words):
    section = EspressoSection.model_validate({"command": sys.executable} | keys)
    with pytest.raises(ConfigError) as error:
        section.labeller()
    assert words in str(error.value)


def test_command_line_reports_failures(tmp_path):
    config = write_config(tmp_path, 4, 'backend = "sequential"', trouble="nan", trouble_above=0.015)
    result = hmlp("label", config)
    assert result.exit_code == 0, result.output
    assert "2 frames labelled" in result.output
    assert "2 failed" in result.output and "2 x forces not finite" in result.output
    again = hmlp("label", config)
    assert "0 frames labelled" in again.output and "2 had failed before" in again.output
    assert "2 failed, 0 had" in hmlp("label", config, "--retry-failed").output
    # Without a terminal, how far it is in lines.
    assert result.stderr.splitlines() == ["labelling: 0 of 4, 0 %", "labelling: 4 of 4, 100 %"]
    assert "the exit code is 0 all the same" in " ".join(hmlp("label", "--help").output.split())


# ---------------------------------------------------------------- k-points


def test_k_mesh_of_bulk_vacuum_and_large_cells():
    crystal = phase("P21c-8")
    assert k_mesh(crystal, 0.05, 5.0) == [7, 11, 7]
    large = crystal.repeat((5, 8, 5))
    assert max(1 / np.linalg.norm(large.cell.reciprocal(), axis=1)) > 12.5
    assert k_mesh(large, 0.08, 5.0) == [2, 2, 2]
    molecule = Atoms("H2", [[4, 4, 4], [4, 4, 4.75]], cell=[8, 8, 8], pbc=True)
    assert k_mesh(molecule, 0.08, 5.0) is None
    molecule.positions -= [4, 4, 4.2]  # across all faces of the cell
    assert empty_slabs(molecule) == pytest.approx([8.0, 8.0, 7.25])
    assert k_mesh(molecule, 0.08, 5.0) is None
    slab = crystal.copy()
    slab.cell[2] *= 4
    assert k_mesh(slab, 0.05, 5.0) == [7, 11, 1]


def test_k_mesh_refuses_what_would_meet_its_images():
    crystal = phase("P21c-8")
    crystal.pbc = False
    with pytest.raises(DataError, match="not periodic along a"):
        k_mesh(crystal, 0.05, 5.0)
    with pytest.raises(DataError, match="three vectors"):
        k_mesh(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), 0.05, 5.0)


def test_k_mesh_is_that_of_the_committed_contacts():
    text = lzma.decompress((DATA / "h2-pbe-contacts.extxyz.xz").read_bytes()).decode()
    for atoms in read(io.StringIO(text), ":", format="extxyz"):
        mesh = k_mesh(atoms, 0.08, 5.0)
        name = "gamma" if mesh is None else "x".join(map(str, mesh))
        assert f"; k-points {name};" in atoms.info["label"]


# ---------------------------------------------------------------- Quantum ESPRESSO itself


@needs_espresso
def test_espresso_reproduces_a_stored_frame(tmp_path):
    """Labels of the project's own recipe, on the cheapest committed frame of each kind."""
    text = lzma.decompress((DATA / "h2-pbe-contacts.extxyz.xz").read_bytes()).decode()
    stored = read(io.StringIO(text), ":", format="extxyz")
    stored = [
        min((a for a in stored if a.info["group"] == g), key=lambda a: a.info["cpu_seconds"])
        for g in ("dimer", "pushed")
    ]
    labeller = EspressoSection().labeller()
    result = label_frames(stored, tmp_path / "out.extxyz", labeller, RunSection(workers=1))
    assert result.labelled == 2, read_failures(result.failures)
    got = {a.info["source"]: a for a in read(tmp_path / "out.extxyz", ":")}
    for old in stored:
        new = got[old.info["source"]]
        assert new.info["label"] == old.info["label"]
        assert new.get_potential_energy() == pytest.approx(old.get_potential_energy(), abs=1e-5)
        assert new.get_forces() == pytest.approx(old.get_forces(), abs=1e-3)
        assert new.get_stress() == pytest.approx(old.get_stress(), abs=1e-5)


LOOSE = {"ecutwfc": 20, "ecutrho": 80}


def espresso(**input_data):
    return EspressoSection(
        kspacing=0.2, small_kspacing=0.2, input_data=LOOSE | input_data
    ).labeller()


@needs_espresso
def test_espresso_labels_phase_two_and_sets_aside_what_does_not_converge(tmp_path):
    crystal = phase("P21c-8")
    crystal.rattle(0.02, seed=1)
    helium = crystal.copy()
    helium.numbers[0] = 2
    result = label_frames([crystal, helium], tmp_path / "out.extxyz", espresso(), SERIAL)
    (failure,) = read_failures(result.failures)
    assert "for hydrogen only" in failure["reason"]
    (frame,) = read_frames(tmp_path / "out.extxyz")
    assert frame.energy / 8 == pytest.approx(-15.0, abs=0.3)
    assert 0.05 < np.abs(frame.forces).max() < 5.0
    assert -frame.stress[:3].mean() * 160.2 == pytest.approx(100.0, abs=30.0)
    label = read(tmp_path / "out.extxyz").info["label"]
    assert "Quantum ESPRESSO" in label and "PBE; ecutwfc 20 Ry; ecutrho 80 Ry" in label
    assert "k-points 2x3x2" in label


@needs_espresso
@pytest.mark.parametrize("must", [True, False])
def test_espresso_that_does_not_converge_is_found_out(tmp_path, must):
    """With scf_must_converge = .false. pw.x claims convergence and ends well."""
    labeller = espresso(electron_maxstep=3, scf_must_converge=must)
    result = label_frames([phase("P21c-8")], tmp_path / "out.extxyz", labeller, SERIAL)
    assert result.labelled == 0
    (failure,) = read_failures(result.failures)
    assert failure["reason"] == "self-consistency not reached after 3 iterations"


def test_stresses_that_lack_something_else_are_other_labels(tmp_path):
    """Outputs of the recipe, and of other cutoffs, stay valid: they say nothing of it."""
    for name in (PSEUDOPOTENTIAL, "H.UPF"):
        (tmp_path / name).write_text("hydrogen")

    def settings(**keys):
        section = {"command": sys.executable, "pseudo_dir": str(tmp_path)} | keys
        return EspressoSection.model_validate(section).labeller().settings

    def before(**variables):
        recipe = {
            "code": "Quantum ESPRESSO",
            "sha256": hashlib.sha256(b"hydrogen").hexdigest(),
            "input_data": RECIPE | variables,
            "kspacing": [0.08, 0.05, 8, 5.0],
        }
        return _digest(recipe)

    assert settings() == settings(pulay=PULAY) == before()
    others = {"ecutwfc": 60}
    assert settings(input_data=others) == settings(input_data=others, pulay=0.0) == before(**others)
    different = [{}, {"pulay": 0.0}, {"pulay": 0.5}, {"input_data": others, "pulay": 0.5}]
    assert len({settings(**keys) for keys in different}) == 4
    # The same file by another name is not known to lack anything.
    assert settings(pseudopotential="H.UPF") == settings(pulay=0.0)
    assert settings(pseudopotential="H.UPF", pulay=PULAY) == settings()


@needs_espresso
def test_large_cells_can_have_their_mesh_shifted(tmp_path):
    crystal = phase("P21c-8")
    slab = crystal.copy()
    slab.cell[2] *= 3  # empty along c: one division, which a shift would move off Gamma
    section = {"kspacing": 0.2, "small_kspacing": 0.2, "input_data": LOOSE}
    never = EspressoSection(**section).labeller()
    larger, this = (EspressoSection(shifted_from=n, **section).labeller() for n in (9, 8))
    assert len({never.settings, larger.settings, this.settings}) == 3
    energies, meshes = [], []
    for n, (labeller, atoms) in enumerate(
        [(never, crystal), (larger, crystal), (this, crystal), (this, slab)]
    ):
        (tmp_path / str(n)).mkdir()
        labels = labeller.compute(atoms, tmp_path / str(n))
        energies.append(labels.energy / 8)
        text = (tmp_path / str(n) / "espresso.pwi").read_text()
        meshes.append(text.split("K_POINTS automatic")[1].split("\n")[1])
        assert ("shifted" in labels.label) == (n >= 2)
    assert meshes == ["2 3 2  0 0 0", "2 3 2  0 0 0", "2 3 2  1 1 1", "2 3 1  1 1 0"]
    assert energies[1] == pytest.approx(energies[0], abs=1e-7)
    # Another mesh of the same crystal: so coarse that they differ, by less than a bond is worth.
    assert 1e-3 < abs(energies[2] - energies[0]) < 0.3


@needs_espresso
def test_the_mean_of_both_meshes_is_nearer_to_a_fine_one(tmp_path):
    crystal = phase("P21c-8")
    crystal.rattle(0.02, seed=1)

    def label(name, **keys):
        section = EspressoSection(input_data=LOOSE, small_cell=0, **keys)
        (tmp_path / name).mkdir()
        return section.labeller().compute(crystal, tmp_path / name)

    coarse = {"kspacing": 0.13}
    plain, shifted = label("plain", **coarse), label("shifted", shifted_from=1, **coarse)
    both, fine = label("both", both_meshes=True, **coarse), label("fine", kspacing=0.07)
    assert "; k-points 3x5x3 and shifted, mean;" in both.label
    assert both.energy == pytest.approx((plain.energy + shifted.energy) / 2, abs=1e-7)
    assert both.forces == pytest.approx((plain.forces + shifted.forces) / 2, abs=1e-6)
    assert both.stress == pytest.approx((plain.stress + shifted.stress) / 2, abs=1e-8)
    assert both.info["mesh_error"] == mesh_error(plain.energy, shifted.energy, 8)
    # Their errors have opposite signs.
    assert (plain.energy - fine.energy) * (shifted.energy - fine.energy) < 0
    assert abs(both.energy - fine.energy) < 0.5 * abs(plain.energy - fine.energy)
    assert np.abs(both.forces - fine.forces).max() < np.abs(plain.forces - fine.forces).max()


@needs_espresso
def test_espresso_errors_are_reported_in_its_words(tmp_path):
    labeller = espresso(smearing="butter")
    result = label_frames([phase("P21c-8")], tmp_path / "out.extxyz", labeller, SERIAL)
    (failure,) = read_failures(result.failures)
    assert "smearing" in failure["reason"]
