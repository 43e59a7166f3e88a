"""Every tutorial runs, in its short form, and was stored with all of its pictures or no output."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ase_hmlp.errors import PluginError
from ase_hmlp.lammps import plugin

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))


def pictures(notebook):
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorial_runs(path, monkeypatch, tmp_path):
    if path.stem == "04_large_systems":
        try:
            plugin.build()
        except PluginError as error:
            pytest.skip(f"pair style hmlp: {error}")
    monkeypatch.setenv("HMLP_TUTORIAL_SHORT", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    stored = pictures(notebook)
    has_outputs = any(cell.get("outputs") for cell in notebook.cells)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    drawn = pictures(notebook)
    assert drawn
    # `jupyter execute --inplace tutorials/NAME.ipynb` stores a full run.
    if has_outputs:
        assert len(stored) == len(drawn), f"{path.name} is stored without its pictures"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorial_was_stored_without_errors_or_warnings(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
