"""Grids of runs: what is run, what is kept, what is refused."""

import csv
import errno
import itertools
import json
import os

import pytest
from click.testing import CliRunner

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, OutputExistsError, RunError
from ase_hmlp.files import write_whole
from ase_hmlp.parallel import WorkersSection
from ase_hmlp.simulate import run_folder, sweep
from ase_hmlp.simulate.sweep import (
    POINTS,
    TABLE,
    TOKEN,
    GridSection,
    SweepConfig,
    grid_points,
    run_points,
    run_sweep,
)


def config(temperatures=(150.0,), pressures=(60.0,), **run):
    return SweepConfig.model_validate(
        {
            "grid": {
                "phase": ["hcp"],
                "pressure": list(pressures),
                "temperature": list(temperatures),
            },
            "run": {
                "structure": {"atoms": 16},
                "stage": [{"ensemble": "npt", "thermostat": "langevin", "steps": 20}],
                **run,
            },
            "workers": {"workers": 1},
        }
    )


def test_a_grown_grid_runs_what_is_new(tmp_path):
    folder = tmp_path / "sweep"
    first = run_sweep(config(), folder)
    assert (first.already, [row.status for row in first.rows]) == (0, ["finished"])
    log = folder / POINTS / "hcp-60GPa-150K" / run_folder.LOG
    before = log.stat().st_mtime_ns
    calls = []
    grown = run_sweep(config((150.0, 200.0)), folder, progress=lambda *now: calls.append(now))
    assert grown.already == 1
    assert [(row.temperature_K, row.status) for row in grown.rows] == [
        (150.0, "finished"),
        (200.0, "finished"),
    ]
    assert log.stat().st_mtime_ns == before
    assert calls[0] == (20, 40, 1, 2) and calls[-1] == (40, 40, 2, 2)
    with (folder / TABLE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["temperature_K"]) for row in rows] == [150.0, 200.0]
    assert all(row["atoms"] == "16" for row in rows)


def test_points_need_no_grid(tmp_path):
    """What `hmlp reproduce` does: any points, in their own order."""
    (warm,) = grid_points(config((200.0,)))
    (dense,) = grid_points(config(pressures=(80.0,)))
    rows, already = run_points(
        [warm, dense], tmp_path / "some", tmp_path, WorkersSection(workers=1)
    )
    assert already == 0
    assert [(row.pressure_GPa, row.temperature_K) for row in rows] == [(60.0, 200.0), (80.0, 150.0)]
    _, already = run_points([dense], tmp_path / "some", tmp_path, WorkersSection(workers=1))
    assert already == 1


def test_a_sweep_outlives_the_shell_that_began_it(tmp_path, monkeypatch):
    """Begun by ``nohup hmlp sweep ... &``: when the shell ends, the process has another parent."""
    monkeypatch.setattr(os, "getppid", itertools.count(1000).__next__)
    swept = run_sweep(config(), tmp_path / "sweep")
    assert [row.status for row in swept.rows] == ["finished"]


def test_a_point_that_cannot_begin_is_a_row(tmp_path):
    """Molecules at 60,000 GPa are on top of each other, or nothing has that pressure."""
    swept = run_sweep(config(pressures=(60.0, 60000.0)), tmp_path / "sweep")
    assert [row.status for row in swept.rows] == ["finished", "stopped"]
    assert "60000" in swept.rows[1].reason or "GPa" in swept.rows[1].reason


def command(folder, pressures="[60.0]"):
    """`hmlp sweep` of what `config` describes."""
    path = folder / "sweep.toml"
    path.write_text(
        f"workers = {{ workers = 1 }}\n[grid]\nphase = ['hcp']\npressure = {pressures}\n"
        "temperature = [150.0]\n[run]\nstructure = { atoms = 16 }\n"
        "stage = [{ ensemble = 'npt', thermostat = 'langevin', steps = 20 }]\n"
    )
    return CliRunner(env={"COLUMNS": "140"}).invoke(main, ["sweep", str(path)])


def test_the_command_says_in_its_exit_code_that_a_point_did_not_end_well(tmp_path):
    result = command(tmp_path, "[60.0, 60000.0]")
    assert result.exit_code == 1, result.output
    assert "stopped" in result.stdout and "Written" in result.stdout
    (tmp_path / "well").mkdir()
    assert command(tmp_path / "well").exit_code == 0


def test_warnings_are_in_the_printed_table(tmp_path):
    result = command(tmp_path)
    point = tmp_path / "sweep" / POINTS / "hcp-60GPa-150K"
    path = point / run_folder.SUMMARY
    summary = json.loads(path.read_text())
    summary["events"]["uncertainty"] = {"count": 987654, "first_step": 3, "message": "Much."}
    path.write_text(json.dumps(summary))
    again = command(tmp_path)
    assert "987654" in again.stdout and "987654" not in result.stdout


def test_a_full_disk_in_the_end_costs_no_table(tmp_path, monkeypatch):
    def full(path, content):
        if path.name == TABLE:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_whole(path, content)

    monkeypatch.setattr(sweep, "write_whole", full)
    result = command(tmp_path)
    assert result.exit_code == 2
    assert "finished" in result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert f"{TABLE} cannot be written (No space left on device): all points have ended" in last
    monkeypatch.undo()
    assert command(tmp_path).exit_code == 0 and (tmp_path / "sweep" / TABLE).exists()


def test_each_phase_moves_its_own_cell():
    """A liquid's cell keeps its shape, where the stage does not say what moves."""
    both = config().model_copy(
        update={"grid": GridSection(phase=["hcp", "liquid"], pressure=[60], temperature=[900])}
    )
    cells = [point.config.stages[0].method.cell for point in grid_points(both)]
    assert cells == ["full", "iso"]


def varied(stage, structure=None, phase="hcp", **axes):
    grid = {"phase": [phase], "pressure": [60.0], "temperature": [150.0], **axes}
    run = {"structure": structure or {}, "stage": stage}
    return grid_points(SweepConfig.model_validate({"grid": grid, "run": run}))


def test_a_run_without_thermostat_begins_at_the_temperature_of_the_point():
    stages, two = [{"ensemble": "nve", "steps": 20}], [100.0, 600.0]
    for phase, relax, factor in (
        ("hcp", None, 1.0),
        ("P21c-8", "volume", 1.0),
        ("P21c-8", "full", 2.0),  # half of it becomes potential energy
        ("P21c-8", None, 2.0),
    ):
        structure = {} if relax is None else {"relax": relax}
        found = varied(stages, structure, phase, temperature=two)
        drawn = [point.config.structure.temperature for point in found]
        assert drawn == [factor * t for t in two]
    # One that the structure has is not replaced.
    (point,) = varied(stages, {"temperature": 300.0})
    assert point.config.structure.temperature == 300.0


NVE, NVT, NPT = ({"ensemble": name, "steps": 20} for name in ("nve", "nvt", "npt"))


@pytest.mark.parametrize(
    "axis, stages, structure",
    [
        ("temperature", [NVE], {"temperature": 300.0}),
        ("temperature", [NVT | {"temperature": 100.0}, NVE], {}),
        ("temperature", [NPT | {"temperature": [100.0, 200.0]}], {}),
        ("pressure", [NPT | {"pressure": 20.0}], {}),
        ("pressure", [NVT], {"pressure": 20.0}),
        ("pressure", [NVT], {"relax": "none"}),
    ],
)
def test_an_axis_that_no_run_would_use_is_refused(axis, stages, structure):
    """Points of other names would be the same runs. A single value is what the grid asks for."""
    assert len(varied(stages, structure)) == 1
    with pytest.raises(ConfigError, match=rf"^grid\.{axis} has several values that no run would"):
        varied(stages, structure, **{axis: [20.0, 60.0]})


@pytest.mark.parametrize(
    "axis, stages, structure, phase",
    [
        ("temperature", [NVE], {}, "hcp"),
        ("temperature", [NPT | {"temperature": 100.0}, NVT], {}, "hcp"),
        ("pressure", [NPT | {"pressure": 20.0}, NPT], {}, "hcp"),
        ("pressure", [NVT], {}, "hcp"),
        ("pressure", [NVE], {"relax": "none"}, "liquid"),
    ],
)
def test_an_axis_that_some_stage_or_structure_uses(axis, stages, structure, phase):
    assert len(varied(stages, structure, phase, **{axis: [200.0, 600.0]})) == 2


def test_the_last_to_come_goes_on(tmp_path):
    folder = tmp_path / "sweep"

    def another_begins(*_):
        (folder / TOKEN).write_text("another")

    with pytest.raises(RunError, match="Another process"):
        run_sweep(config(), folder, progress=another_begins)


def test_what_is_refused(tmp_path):
    folder = tmp_path / "sweep"
    run_sweep(config(), folder)
    with pytest.raises(OutputExistsError, match="seed"):
        run_sweep(config(seed=1), folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    with pytest.raises(OutputExistsError, match="no sweep"):
        run_sweep(config(), other)
    with pytest.raises(ConfigError, match="more than once"):
        grid_points(config((150.0, 150.0)))
    with pytest.raises(ConfigError, match=r"^grid\.phase: there is no 'ice', but hcp, liquid"):
        phase = GridSection(phase=["hcp", "ice"], pressure=[60], temperature=[150])
        grid_points(config().model_copy(update={"grid": phase}))
    with pytest.raises(ConfigError, match=r"run\.output"):
        grid_points(config(output="there"))
