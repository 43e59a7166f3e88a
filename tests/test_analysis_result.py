"""What results are saved as, and that nothing is overwritten."""

import csv
import json

import numpy as np
import pytest
from toy_models import hcp

from ase_hmlp import __version__
from ase_hmlp.analysis.bond_lengths import BondLengths
from ase_hmlp.analysis.molecular_fraction import MolecularFraction
from ase_hmlp.analysis.order_parameter import OrderParameter
from ase_hmlp.analysis.orientations import Orientations
from ase_hmlp.analysis.pair_distributions import PairDistributions
from ase_hmlp.analysis.quadrupoles import QuadrupoleEnergy
from ase_hmlp.analysis.result import Column, Quantity, Result, Table, with_error
from ase_hmlp.analysis.streaming import Analysis, analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import OutputExistsError, TooFewFramesError


class Count(Analysis):
    """How many frames there are."""

    name = "count"
    least_frames = 2

    def __init__(self):
        self.seen = []

    def add(self, snapshot):
        self.seen.append(snapshot.index)

    def result(self):
        x = np.array(self.seen, dtype=float)
        series = Table(
            "series",
            (Column("frame", x, "frame"), Column("twice_A", 2 * x, "twice (Å)", 0.1 * x)),
        )
        own = Table("count", (Column("frame", x, "frame"), Column("x", x, "x")))
        return Result(
            "count",
            "Frames counted",
            (
                Quantity("frames", float(len(x)), float("nan"), ""),
                Quantity("mean", 1.23456, 0.0234, "Å"),
            ),
            (series, own),
            ("Counted with care.",),
        )

    def parameters(self):
        return {"care": np.float64(1.5), "list": np.arange(3)}


@pytest.fixture
def frames():
    from toy_models import pa3

    return [pa3() for _ in range(40)]


def test_files(frames, tmp_path):
    (result,) = analyse(Trajectory(frames, start=5, timestep=2.0), [Count()])
    paths = result.save(tmp_path / "new" / "folder")
    names = [p.name for p in paths]
    assert names == ["count.json", "count-series.csv", "count.csv", "count.png"]
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
    record = json.loads(paths[0].read_text())
    assert record["quantities"][0] == {"name": "frames", "value": 35.0, "error": None, "unit": ""}
    assert record["inputs"]["ase_hmlp"] == __version__
    assert record["inputs"]["settings"] == {"care": 1.5, "list": [0, 1, 2]}
    trajectory = record["inputs"]["trajectory"]
    assert trajectory["frames"] == 35 and trajectory["start"] == 5
    assert len(trajectory["sha256"]) == 64
    assert record["tables"]["series"]["twice_A"][:2] == [10.0, 12.0]
    rows = list(csv.DictReader(paths[1].open()))
    assert list(rows[0]) == ["frame", "twice_A", "twice_A_error"]
    assert float(rows[1]["twice_A_error"]) == pytest.approx(0.6)
    assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_nothing_is_overwritten_unless_asked(frames, tmp_path):
    (result,) = analyse(Trajectory(frames), [Count()])
    (tmp_path / "count.csv").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"count\.csv is there already"):
        result.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["count.csv"]
    assert (tmp_path / "count.csv").read_text() == "years of work"
    result.save(tmp_path, overwrite=True)
    assert (tmp_path / "count.csv").read_text().startswith("frame,x")


def test_quantities_and_tables_by_name(frames):
    (result,) = analyse(Trajectory(frames), [Count()])
    assert result["mean"].value == 1.23456
    assert str(result["mean"]) == "mean: 1.235 ± 0.023 Å"
    assert str(result["frames"]) == "frames: 40"
    assert result.table("series")["twice_A"][3] == 6.0
    with pytest.raises(KeyError, match="no 'median' among"):
        _ = result["median"]
    with pytest.raises(KeyError, match="no 'rdf' among"):
        result.table("rdf")


def test_pictures_say_what_their_axes_are():
    frames = [hcp(3.0, (2, 2, 1), seed=seed) for seed in range(4)]
    analyses = [
        QuadrupoleEnergy(),
        PairDistributions(width=0.1),
        Orientations(),
        OrderParameter(hcp(3.0, (1, 1, 1), seed=0)),
        MolecularFraction(),
        BondLengths(),
    ]
    for result in analyse(Trajectory(frames, timestep=1.0, continuous=True), analyses):
        axes = result.plot().axes
        assert len(axes) == len(result.tables)
        for axis in axes:
            assert axis.get_xlabel() and axis.get_ylabel(), result.name
    (eqq,) = analyse(Trajectory(frames), [QuadrupoleEnergy()])
    assert eqq.plot().axes[0].get_ylabel() == "⟨EQQ⟩ (meV/molecule)"


def test_too_few_frames(frames):
    with pytest.raises(TooFewFramesError, match=r"has 1 frames to analyse; count needs at least 2"):
        analyse(Trajectory(frames, stop=1), [Count()])


def test_one_pass_serves_many_analyses(frames):
    calls = []
    results = analyse(Trajectory(iter(frames)), [Count(), Count()], calls.append)
    assert [r["frames"].value for r in results] == [40.0, 40.0]
    assert calls == list(range(1, 41))


@pytest.mark.parametrize(
    ("value", "error", "printed"),
    [
        (1.23456, 0.0234, ("1.235", "0.023")),
        (-104.36, 12.0, ("-104", "12")),
        (0.00123456, float("nan"), ("0.0012346", "")),
        (123.456789, 0.0, ("123.46", "")),
    ],
)
def test_numbers_are_printed_to_their_errors(value, error, printed):
    assert with_error(value, error) == printed
