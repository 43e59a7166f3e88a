"""The README and the shipped model's card say what the shipped model is."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ase_hmlp
from ase_hmlp.model_io import SHIPPED, load_model
from ase_hmlp.training.card import RELATIVES, error_lines
from ase_hmlp.training.evaluate import ErrorRow, evaluate_files
from ase_hmlp.training.frames import file_digest, read_frames

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODEL = load_model("h2-pbe")
MODEL_FILE = SHIPPED / "h2-pbe.joblib"


def held_out_table():
    return error_lines([ErrorRow(**row) for row in MODEL.errors["levels"]["all"]])


def test_readme_shows_the_models_own_errors():
    shown = README.split("<!-- errors -->")[1].split("<!-- /errors -->")[0].strip()
    assert shown == "\n".join(held_out_table())


def test_readme_shows_how_errors_grow_with_pressure():
    data = [ROOT / "training" / "data" / "h2-pbe-dynamics.extxyz.xz"]
    found = evaluate_files(MODEL, data, split="test", bands=True).rows
    families = ("phase-I,", "phase-II,", "fluid,")
    rows = [row for family in families for row in found if row.group.startswith(family)]
    shown = README.split("<!-- bands -->")[1].split("<!-- /bands -->")[0].strip()
    assert shown == "\n".join(error_lines(rows))


def test_readme_counts_what_the_comparison_counts():
    folder = ROOT / "training" / "comparison" / "h2-pbe"
    comparison = json.loads((folder / "comparison.json").read_text())
    assert comparison["model_sha256"] == hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()
    met = [row["met"] for row in comparison["rows"]]
    said = f"{sum(met)} of {len(met)} quantities are within their"
    assert said in README and said in (folder / "comparison.md").read_text()
    modes = [row["met"] for row in comparison["rows"] if row["kind"] == "phonon"]
    assert f"At Gamma {sum(modes)} of {len(modes)} modes are within 5 %" in README


def test_rounds_of_learning_are_what_their_reports_say():
    folder = ROOT / "training" / "learning" / "h2-pbe"
    shown = (folder / "README.md").read_text()
    reports = sorted(folder.glob("round-*.md"))
    assert len(reports) == 5
    for number, path in enumerate(reports, 1):
        report = path.read_text()
        assert report.startswith(f"# Round {number}\n") and f"](round-{number:02d}.png)" in report
        starts = re.findall(r"^\| \S+ \| (\d+) \| (\d+) \| \d+ \| [\d.]+ \| ", report, re.M)
        runs, tripped = (sum(map(int, column)) for column in zip(*starts, strict=True))
        uncertain, looked_at = re.search(r"(\d+) of (\d+) structures are above", report).groups()
        (row,) = re.findall(rf"^\| \[{number}\]\({path.name}\) .*$", shown, re.M)
        assert f"| {tripped} of {runs} | {uncertain} of {int(looked_at):,} | " in row
    assert "Round 5 found nothing new." in report
    assert f"in {runs} runs" in README and f"none of {int(looked_at):,} structures" in README


def test_card_belongs_to_the_shipped_file():
    card = (SHIPPED / "h2-pbe.md").read_text()
    digest = hashlib.sha256((SHIPPED / "h2-pbe.joblib").read_bytes()).hexdigest()
    assert digest in card
    for line in held_out_table():
        assert line in card
    assert RELATIVES in card


def test_unseen_is_said_not_to_mean_without_relatives():
    """Displaced frames are judged by fits that know the minima they were displaced from."""
    frames = [
        frame
        for name in ("relaxations", "displacements")
        for frame in read_frames(ROOT / "training" / "data" / f"h2-pbe-{name}.extxyz.xz")
        if frame.split != "test"
    ]
    minima = {frame.source for frame in frames if frame.group == "relaxation"}
    displaced = [frame.parent in minima for frame in frames if frame.group == "displaced"]
    assert sum(displaced) == len(displaced) == 266
    below = README.split("<!-- /errors -->")[1].split("<!-- bands -->")[0]
    assert "relaxed by DFT" in below and "displaced" in below


def test_shipped_model_meets_its_bar():
    """Unseen families of the project's own data: 2.5 meV/atom, 50 meV/Å, 0.7 GPa."""
    row = MODEL.errors["levels"]["all"][-1]
    assert row["group"] == "all" and MODEL.errors["scheme"] == "leave-one-family-out"
    assert row["energy_mae"] < 2.5
    assert row["force_mae"] < 50.0
    assert row["pressure_mae"] < 0.7


def test_shipped_model_was_trained_on_the_committed_files():
    for file in MODEL.training["files"]:
        assert file_digest(ROOT / "training" / "data" / file["name"]) == file["sha256"]
    config = (ROOT / "training" / "configs" / "h2-pbe.toml").read_text()
    assert MODEL.training["config"] == config


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_readme_python_runs(block, tmp_path):
    """The README's Python, shortened where it would take long, on a small crystal."""
    prelude = "from ase_hmlp.simulate.build import phase\natoms = phase('P21c-8')\n"
    block = block.replace('atoms = read("hydrogen.cif")', "")
    block = block.replace(".run(2000)", ".run(5)").replace("frames[::2]", "frames[:60:2]")
    block = block.replace("frames[1::2]", "frames[1:60:2]")
    # Sixty frames hold no isolated molecule for the bond, nor pairs for the repulsive baseline.
    block = block.replace(
        ".estimator()",
        ".estimator().set_params(bond='auto', bond_groups=(), baseline_groups=())",
    )
    block = block.replace('"training/', f'"{ROOT}/training/')
    if "MTKNPT" in block:
        prelude += "from ase_hmlp import HMLP\natoms.calc = HMLP()\n"
    if "hmlp-demo/trajectory.traj" in block:
        (tmp_path / "hmlp-demo").mkdir()
        prelude += (
            "from ase.io import write\n"
            "frames = [atoms.repeat(2) for _ in range(70)]\n"
            "for k, frame in enumerate(frames):\n"
            "    frame.rattle(0.01, seed=k)\n"
            "write('hmlp-demo/trajectory.traj', frames)\n"
        )
    script = tmp_path / "readme.py"
    script.write_text(prelude + block)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version_has_one_source():
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', text, re.M)[1] == ase_hmlp.__version__
