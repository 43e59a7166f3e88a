"""`hmlp import`: files of other codes, their units and signs, and what is set aside and why."""

import csv
import gzip
import json
import lzma
from collections import Counter

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner
from pydantic import ValidationError
from test_training import TRUTH, structures

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, DataError, OutputExistsError
from ase_hmlp.model_io import Domain, Model, save_model
from ase_hmlp.training.external import ReadSection
from ase_hmlp.training.frames import frame_from_atoms, read_frames
from ase_hmlp.training.importing import ImportLimits, import_from_config
from ase_hmlp.training.residuals import OutlierSection, Residuals
from ase_hmlp.training.runner_files import iterate_runner
from ase_hmlp.training.train import split_off_tests

#: CODATA 2014, as ASE has them: Å and eV.
BOHR, HARTREE = 0.52917721067, 27.21138602

#: Two molecules of 1.4 bohr in a skewed cell, and one alone; energies in hartree.
INPUT_DATA = """\
begin
comment step 12; beginning of the second run, end of the first
lattice 6.0 0.0 0.0
lattice 0.5 6.5 0.0
lattice 0.0 0.0 7.0
atom 0.0 0.0 0.0 H 0.0 0.0 0.010 -0.020 0.030
atom 1.4 0.0 0.0 H 0.0 0.0 -0.011 0.021 -0.031
atom 3.0 3.0 3.5 H 0.0 0.0 0.001 0.002 0.003
atom 3.0 4.4 3.5 H 0.0 0.0 0.000 -0.003 -0.002
energy -2.25
charge 0.0
end
# a comment line
begin

atom 0 0 0 H 0 0 0 0 1.5e-3
atom 0 0 1.5 H 0 0 0 0 -1.5e-3
energy -1.1
charge 0
end
"""


@pytest.fixture
def input_data(tmp_path):
    path = tmp_path / "input.data"
    path.write_text(INPUT_DATA)
    return path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("format", ["n2p2", "runner"])
def test_known_values(input_data, format):
    crystal, molecule = ReadSection(format=format).structures(input_data)
    assert crystal.pbc.all() and not molecule.pbc.any()
    np.testing.assert_allclose(crystal.cell[1], [0.5 * BOHR, 6.5 * BOHR, 0.0], rtol=1e-9)
    np.testing.assert_allclose(crystal.positions[3], np.array([3.0, 4.4, 3.5]) * BOHR, rtol=1e-9)
    assert crystal.get_distance(0, 1) == pytest.approx(0.740848, abs=1e-6)
    assert crystal.get_potential_energy() == pytest.approx(-2.25 * HARTREE, rel=1e-9)
    assert crystal.get_potential_energy() == pytest.approx(-61.225619, abs=1e-6)
    # 1 hartree/bohr = 51.42207 eV/Å (NIST: 8.2387235e-8 N).
    np.testing.assert_allclose(
        crystal.get_forces()[0], np.array([0.010, -0.020, 0.030]) * 51.422067, rtol=1e-7
    )
    assert "stress" not in crystal.calc.results
    assert molecule.get_forces()[0, 2] == pytest.approx(0.0771331, rel=1e-5)
    assert crystal.info["comment"].startswith("step 12; beginning of")
    assert "comment" not in molecule.info


def test_units_as_the_user_says(input_data):
    (plain, _) = ReadSection(format="n2p2", length="angstrom", energy="eV").structures(input_data)
    assert plain.positions[1, 0] == 1.4
    assert plain.get_potential_energy() == -2.25
    assert plain.get_forces()[0, 2] == 0.03
    (mixed, _) = ReadSection(
        format="n2p2", energy="rydberg", forces="eV/angstrom", forces_sign="gradient"
    ).structures(input_data)
    assert mixed.get_potential_energy() == pytest.approx(-2.25 * HARTREE / 2)
    assert mixed.get_forces()[0, 2] == -0.03
    (per_atom, _) = ReadSection(format="n2p2", energy_of="atom").structures(input_data)
    assert per_atom.get_potential_energy() == pytest.approx(-9.0 * HARTREE)


@pytest.mark.parametrize("suffix", ["xz", "gz"])
def test_compressed_input(tmp_path, suffix):
    path = tmp_path / f"input.data.{suffix}"
    path.write_bytes({"xz": lzma, "gz": gzip}[suffix].compress(INPUT_DATA.encode()))
    assert len(list(iterate_runner(path))) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("energy -1.1\ncharge 0\nend\n", "energy -1.1\n", "ends within .* line 14"),
        ("end\n# a comment line\n", "", "Line 12 .* begins before that of line 1 ends"),
        ("# a comment line", "energy -1", "Line 13 .* 'energy' is outside"),
        ("lattice 0.0 0.0 7.0\n", "", "line 1 .* has 2 lines of lattice, not 3"),
        ("energy -1.1\n", "energy -1.1\nenergy -1.2\n", "line 14 .* 2 lines of energy, not 1"),
        ("charge 0\n", "virial 0\n", "Line 19 .* unknown keyword 'virial'"),
        ("1.5 H 0 0 0 0 -1.5e-3", "1.5 H 0 0 0 0", "line 14 .* Wrong format"),
        ("1.5 H", "1.5 Xy", "line 14 .* Unknown element"),
        ("energy -1.1", "energy minus", "line 14 .* cannot be read"),
        ("energy -1.1", "energy", "line 14 .* cannot be read"),
    ],
)
def test_malformed_files_name_the_line(input_data, old, new, message):
    assert INPUT_DATA.count(old) == 1
    input_data.write_text(INPUT_DATA.replace(old, new))
    with pytest.raises(DataError, match=message):
        list(iterate_runner(input_data))


def test_what_is_no_text_file(tmp_path):
    path = tmp_path / "input.data"
    path.write_bytes(b"begin\n\xff\xfe\x00")
    with pytest.raises(DataError, match="is no text file"):
        list(iterate_runner(path))
    with pytest.raises(DataError, match="does not exist"):
        list(iterate_runner(tmp_path / "none.data"))
    path.with_suffix(".xz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        list(iterate_runner(path.with_suffix(".xz")))


def test_labels_in_unusual_places(tmp_path):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], cell=[4, 4, 4], pbc=True)
    atoms.info["REF_energy"] = -31.0
    atoms.set_array("REF_forces", np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    stress = np.array([[10.0, 4.0, 5.0], [4.0, 20.0, 6.0], [5.0, 6.0, 30.0]])
    atoms.info["REF_pressure"] = stress
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces", "stress_key": "REF_pressure"}
    section = ReadSection(**keys, stress="GPa", stress_sign="compression")
    (got,) = section.structures(tmp_path / "a.xyz")
    assert got.get_potential_energy() == -31.0
    assert got.get_forces()[0, 2] == 1.0
    # ASE's order and sign; 160.21766 GPa are 1 eV/Å³.
    np.testing.assert_allclose(
        got.get_stress(), -np.array([10, 20, 30, 6, 5, 4]) / 160.21766, rtol=1e-7
    )
    (none,) = ReadSection(energy_key="energy_of_another").structures(tmp_path / "a.xyz")
    assert none.calc.results == {}


def test_unknown_format():
    with pytest.raises(ValidationError, match="neither n2p2 nor one of ASE's formats: 'n2p3'"):
        ReadSection(format="n2p3")


# ---------------------------------------------------------------- a whole import


def write_n2p2(path, frames):
    """As many digits as a double has."""
    with open(path, "w") as stream:
        for atoms in frames:
            stream.write(f"begin\ncomment {atoms.info['group']}\n")
            for row in atoms.cell / units.Bohr:
                stream.write("lattice {:.17g} {:.17g} {:.17g}\n".format(*row))
            forces = atoms.get_forces() / units.Hartree * units.Bohr
            for x, f in zip(atoms.positions / units.Bohr, forces, strict=True):
                numbers = (*x, "H", 0, 0, *f)
                stream.write("atom {:.17g} {:.17g} {:.17g} {} {} {} {} {} {}\n".format(*numbers))
            stream.write(
                f"energy {atoms.get_potential_energy() / units.Hartree:.17g}\ncharge 0\nend\n"
            )


@pytest.fixture(scope="module")
def atoms():
    """Frames that are molecular beyond doubt."""
    some = list(structures(70, seed=3))
    good = [a for a in some if not ImportLimits().violations(frame_from_atoms(a, ""))]
    assert len(good) >= 48
    return good[:48]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The potential that labelled the frames, as a model file; its zero is another."""
    domain = Domain((1.5, 6.0), (0.0, 300.0), (0.5, 1.0), (0.4, 1.15), 1.0, 0.5)
    path = tmp_path_factory.mktemp("model") / "toy.joblib"
    return save_model(Model(TRUTH, domain, "toy"), path)


CONFIG = """
name = "other"
description = "Another code, PBE"
input = ["data.xyz"]
[reference]
model = "MODEL"
[outliers]
k = 6
"""


def relabelled(atoms, **labels):
    copy = atoms.copy()
    results = atoms.calc.results if atoms.calc else {}
    results = {k: v for k, v in (results | labels).items() if v is not None}
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


@pytest.fixture
def setup(tmp_path, toy):
    """Write frames and a configuration; returns the path of the latter."""

    def make(frames, text=CONFIG):
        write(tmp_path / "data.xyz", frames, format="extxyz")
        path = tmp_path / "import.toml"
        path.write_text(text.replace("MODEL", str(toy)))
        return path

    return make


def test_n2p2_round_trip(tmp_path, atoms, toy):
    write_n2p2(tmp_path / "rss.data", atoms)
    (tmp_path / "import.toml").write_text(
        CONFIG.replace("MODEL", str(toy)).replace("data.xyz", "rss.data")
        + '[read]\nformat = "n2p2"\n[family]\nkey = "comment"\nprefix = "toy-"\n'
    )
    result = import_from_config(tmp_path / "import.toml")
    assert result.kept == len(atoms)
    frames = read_frames(result.folder / "frames.extxyz.xz")
    for k, (frame, a) in enumerate(zip(frames, atoms, strict=True)):
        # Extended XYZ has eight decimals.
        np.testing.assert_allclose(frame.positions, a.positions, atol=1e-8)
        np.testing.assert_allclose(frame.forces, a.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.cell, a.cell.array, rtol=1e-14, atol=1e-14)
        assert frame.energy == pytest.approx(a.get_potential_energy(), rel=1e-14)
        assert frame.group == "toy-" + a.info["group"]
        assert frame.source == f"other/rss/{k}"
        assert frame.source_set == "other"
        assert frame.stress is None
        assert frame.molecules.tolist() == np.arange(len(a)).reshape(-1, 2).tolist()
    written = read(result.folder / "set-aside.extxyz.xz") if "set-aside" in result.files else None
    assert written is None
    assert result.checks["forces"] == pytest.approx(1.0, abs=1e-6)
    assert result.checks["energy"] == pytest.approx(1.0, abs=1e-6)


def test_stress_survives(setup, atoms):
    result = import_from_config(setup(atoms))
    frames = read_frames(result.folder / "frames.extxyz.xz")
    for frame, a in zip(frames, atoms, strict=True):
        np.testing.assert_allclose(frame.stress, a.get_stress(), rtol=1e-12)
    assert result.checks["stress"] == pytest.approx(1.0, abs=1e-6)


def spoilt(atoms):
    """Frames with one of each thing that can be wrong, and what it is called."""
    frames = [relabelled(a) for a in atoms]
    wrong = {
        2: "labels missing or of the wrong kind",
        3: "not molecular hydrogen",
        4: "not molecular hydrogen",
        5: "bond",
        7: "force",
        9: "duplicate",
        10: "outlier",
        12: "outlier",
        13: "net force",
        15: "labels missing or of the wrong kind",
        16: "not molecular hydrogen",
    }
    frames[2] = relabelled(atoms[2], forces=None)
    frames[3].numbers[1] = 3
    frames[4].positions[0] += 0.9
    # A bond too long for a molecule, in all else as the truth has it.
    stretched = atoms[5].copy()
    vector = stretched.positions[1] - stretched.positions[0]
    stretched.positions[1] = stretched.positions[0] + 1.05 * vector / np.linalg.norm(vector)
    frames[5] = relabelled(stretched, **atoms[5].calc.results)
    strong = atoms[7].get_forces().copy()
    # Stronger still, whichever way it points.
    push = np.copysign(11.0, strong[0, 2])
    strong[:2] += [[0, 0, push], [0, 0, -push]]
    frames[7] = relabelled(atoms[7], forces=strong)
    frames[9] = relabelled(atoms[8])
    frames[10] = relabelled(atoms[10], energy=atoms[10].get_potential_energy() + 0.2)
    frames[12] = relabelled(atoms[12], forces=atoms[12].get_forces()[::-1].copy())
    frames[13] = relabelled(atoms[13], forces=atoms[13].get_forces() + 0.02)
    frames[15] = relabelled(atoms[15], energy=np.nan)
    frames[16] = frames[16][:-1]
    frames[16].calc = SinglePointCalculator(
        frames[16], energy=1.0, forces=np.zeros((len(frames[16]), 3))
    )
    return frames, wrong


def test_nothing_is_dropped_without_a_reason(setup, atoms):
    frames, wrong = spoilt(atoms)
    result = import_from_config(setup(frames))
    assert result.files == {
        "frames.extxyz.xz": len(atoms) - len(wrong),
        "set-aside.extxyz.xz": len(wrong),
    }
    assert {k: r.kind for k, r in enumerate(result.records) if r.reason} == wrong
    with open(result.folder / "frames.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["index"]) for row in rows] == list(range(len(atoms)))
    assert [k for k, row in enumerate(rows) if row["kept"] == "no"] == sorted(wrong)
    assert all(bool(row["reason"]) == (row["kept"] == "no") for row in rows)
    assert rows[9]["reason"] == "the same frame as other/data/8 (frame 8 of data.xyz)"
    assert "Å, more than 1" in rows[5]["reason"]
    assert "energy residual" in rows[10]["reason"]
    assert float(rows[10]["energy_residual_meV_per_atom"]) == pytest.approx(
        200.0 / len(atoms[10]), abs=1e-3
    )
    aside = read(result.folder / "set-aside.extxyz.xz", ":")
    assert [a.info["reason"] for a in aside] == [rows[k]["reason"] for k in sorted(wrong)]
    np.testing.assert_allclose(aside[-1].positions, frames[16].positions, atol=1e-8)
    report = (result.folder / "report.md").read_text()
    assert "3 set aside: not molecular hydrogen" in report
    assert 'name = "other"' in report
    assert Counter(r["family"] for r in rows) == {"data": len(atoms)}


def test_zero_of_the_source_is_found(setup, atoms):
    raised = [relabelled(a, energy=a.get_potential_energy() + 1.234 * len(a)) for a in atoms]
    assert import_from_config(setup(raised)).zero == pytest.approx(1.234, abs=1e-8)


def test_test_families_go_to_their_own_file(setup, atoms):
    # A name in front of the table: [outliers] is the last one.
    text = 'test = ["data-hcp"]\n' + CONFIG + '[family]\nkey = "kind"\nprefix = "data-"\n'
    frames = [relabelled(a) for a in atoms]
    for a in frames:
        a.info["kind"] = a.info["group"]
    result = import_from_config(setup(frames, text))
    assert {f.group for f in read_frames(result.folder / "test.extxyz.xz")} == {"data-hcp"}
    train = read_frames(result.folder / "train.extxyz.xz")
    assert {f.group for f in train} == {"data-pa3", "data-hcp-b", "data-pa3-b"}
    path = setup(frames, text.replace('test = ["data-hcp"]', 'test = ["hcp"]'))
    with pytest.raises(ConfigError, match=r"test names families .* \['hcp'\]"):
        import_from_config(path, output=result.folder.with_name("other"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"forces": -a.get_forces()}, "sign of forces is wrong.*read.forces_sign"),
        (lambda a: {"forces": 2 * a.get_forces()}, "unit of forces is wrong, 2 of what"),
        (lambda a: {"stress": -a.get_stress()}, "sign of stress is wrong.*read.stress_sign"),
        (lambda a: {"stress": a.get_stress() / 0.00624}, "unit of stress is wrong, 160 of what"),
        (lambda a: {"energy": 2 * a.get_potential_energy()}, "unit of energy is wrong, 2 of what"),
        (lambda a: {"energy": -a.get_potential_energy()}, "sign of energy is wrong, -1 of what"),
    ],
)
def test_signs_and_units_are_checked(setup, atoms, change, message):
    path = setup([relabelled(a, **change(a)) for a in atoms], CONFIG + "[limits]\nmax_force = 50\n")
    with pytest.raises(DataError, match=message):
        import_from_config(path)
    assert not path.with_name("other-import").exists()


NO_REFERENCE = 'name = "other"\ninput = ["data.xyz"]\n[reference]\nmodel = ""\n'


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1.0, "sign of forces is wrong.*H2"), (BOHR / HARTREE, "unit of forces is wrong.*H2")],
)
def test_forces_are_checked_without_a_reference_too(setup, factor, message):
    frames = [a for k, a in enumerate(structures(20, seed=4)) if k % 2]
    good = import_from_config(setup(frames, NO_REFERENCE))
    assert 20.0 < good.checks["stiffness"] < 60.0
    assert np.isnan(good.zero)
    path = setup([relabelled(a, forces=factor * a.get_forces()) for a in frames], NO_REFERENCE)
    with pytest.raises(DataError, match=message):
        import_from_config(path, overwrite=True)
    assert read_frames(good.folder / "frames.extxyz.xz")  # as it was


@pytest.mark.parametrize("factor", [BOHR, 1 / BOHR])
def test_lengths_in_the_wrong_unit(setup, atoms, factor):
    frames = []
    for a in atoms[:6]:
        b = a.copy()
        b.set_cell(factor * b.cell, scale_atoms=True)
        frames.append(relabelled(b, **a.calc.results))
    with pytest.raises(DataError, match=r"None of 6 frames .* is read\.length right"):
        import_from_config(setup(frames))


# ---------------------------------------------------------------- the rule on residuals


def normal_residuals(n, seed=0):
    rng = np.random.default_rng(seed)
    nothing = np.full((n, 2), np.nan)
    return Residuals(
        0.01 * rng.normal(size=n) + 3.0,
        0.1 * np.exp(0.3 * rng.normal(size=n)),
        nothing,
        nothing,
        nothing,
    )


def test_rule_finds_what_was_planted():
    r = normal_residuals(1000)
    r.energy[[3, 500]] += [0.15, -0.15]
    r.force[[7, 500]] *= [20.0, 20.0]
    r.force[11] /= 20.0  # too good is no fault
    reasons = OutlierSection(k=6).outliers(r, ["a"] * 1000)
    assert [k for k, text in enumerate(reasons) if text] == [3, 7, 500]
    assert "energy residual +" in reasons[3] and "force" not in reasons[3]
    assert "force residual of" in reasons[7] and "energy" not in reasons[7]
    assert "; " in reasons[500]


def test_rule_of_a_normal_distribution():
    """k scaled deviations leave out what k standard deviations do: 4.6 % and 2.3 % at k = 2."""
    reasons = OutlierSection(k=2).outliers(normal_residuals(20_000), ["a"] * 20_000)
    energy = sum("energy" in text for text in reasons) / 20_000
    force = sum("force" in text for text in reasons) / 20_000
    # Standard errors are 0.15 and 0.11 %, and that of the deviation itself adds as much.
    assert energy == pytest.approx(0.0455, abs=0.006)
    assert force == pytest.approx(0.0228, abs=0.004)


def test_each_family_is_judged_by_itself():
    r = normal_residuals(200)
    r.energy[100:] += 0.5
    families = ["a"] * 100 + ["b"] * 100
    assert not any(OutlierSection(k=6).outliers(r, families))
    r.energy[100:180] -= 0.5  # twenty frames that differ, and a rule that looks at all alike
    assert sum(map(bool, OutlierSection(k=6, within="source").outliers(r, families))) == 20


def test_small_families_are_judged_together():
    r = normal_residuals(60)
    r.energy[59] += 1.0
    families = ["a"] * 20 + [f"small-{k}" for k in range(40)]
    reasons = OutlierSection(k=6).outliers(r, families)
    assert [k for k, text in enumerate(reasons) if text] == [59]
    assert "judged together" in reasons[59]


# ---------------------------------------------------------------- command line and bad input


def hmlp(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_command(setup, atoms, tmp_path):
    path = setup(atoms)
    (tmp_path / "data.xyz").rename(tmp_path / "rss.xyz")
    result = hmlp("import", path, tmp_path / "rss.xyz", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "48 kept" in result.output and "frames.extxyz.xz: 48 frames" in result.output
    again = hmlp("import", path, tmp_path / "rss.xyz", "-o", tmp_path / "out")
    assert again.exit_code == 2
    assert "frames.extxyz.xz already" in again.stderr and len(again.stderr.splitlines()) == 1
    assert hmlp("import", path, tmp_path / "rss.xyz", "-o", tmp_path / "out", "--overwrite")
    evaluation = hmlp("evaluate", json_model(path), tmp_path / "out" / "frames.extxyz.xz", "--json")
    answer = json.loads(evaluation.stdout)
    assert answer["fitted_zeros"] == {"other": pytest.approx(0.0, abs=1e-6)}


def json_model(path):
    return path.read_text().split('model = "')[1].split('"')[0]


def test_overwriting_leaves_nothing_of_before(setup, atoms):
    frames, _ = spoilt(atoms)
    first = import_from_config(setup(frames))
    assert (first.folder / "set-aside.extxyz.xz").exists()
    with pytest.raises(OutputExistsError, match="already"):
        import_from_config(setup(atoms))
    import_from_config(setup(atoms), overwrite=True)
    assert {p.name for p in first.folder.iterdir()} == {
        *("frames.extxyz.xz", "frames.csv", "report.md")
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"', "has no input"),
        ('name = "a"\ninput = ["none.data"]', r"none\.data does not exist"),
        ('name = "a b"\ninput = ["x"]', "'name'"),
        ('name = "a"\ncolour = 1', "unknown key 'colour'"),
        ('name = "a"\n[family]\npattern = "("', "no regular expression"),
        ('name = "a"\n[read]\nlength = "inch"', "read.length"),
        ('name = "a"\n[reference]\nmodel = ""\n[outliers]\nk = 5', "outliers need"),
        ('name = "a"\ninput = ["x"]\n[reference]\nmodel = "none.joblib"', "no model"),
        ('name = "a"\ninput = ["data.xyz"]\n[family]\nkey = "phase"', "Frame 0 .* no 'phase'"),
        ('name = "a"\ninput = ["data.xyz"]\n[family]\npattern = "x+"', "no family in 'data/0'"),
    ],
)
def test_bad_configurations(setup, atoms, text, message):
    path = setup(atoms[:1], text)
    with pytest.raises((ConfigError, DataError, FileNotFoundError), match=message):
        import_from_config(path)
    assert {p.name for p in path.parent.iterdir()} == {"import.toml", "data.xyz"}


def test_imported_frames_are_what_they_were(setup, atoms):
    """Labels of a frame read back are those of the frame that went in, to the written digits."""
    before = [frame_from_atoms(a, "") for a in atoms]
    after = read_frames(import_from_config(setup(atoms)).folder / "frames.extxyz.xz")
    for a, b in zip(before, after, strict=True):
        assert a.energy == pytest.approx(b.energy, rel=1e-12)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-8)
        np.testing.assert_allclose(a.stress, b.stress, rtol=1e-12)


def test_what_labels_say_of_themselves_stays(setup, atoms):
    """A frame that no fit may see stays one, and its stress keeps what it lacks."""
    frames = [relabelled(a) for a in atoms]
    for k, a in enumerate(frames):
        a.info |= {"split": "test" if k % 4 == 0 else "train", "pulay": 0.0137}
    result = import_from_config(setup(frames, CONFIG.replace("[outliers]\nk = 6\n", "")))
    given, got = (
        [frame_from_atoms(a, "") for a in frames],
        read_frames(result.folder / "frames.extxyz.xz"),
    )
    assert [f.split for f in got] == [f.split for f in given]
    for one, other in zip(given, got, strict=True):
        assert other.stress == pytest.approx(one.stress, abs=1e-6)
        assert other.stress != pytest.approx(atoms[0].get_stress(), abs=1e-6)


def test_duplicates_of_one_name_are_found(setup, atoms):
    """Codes call all frames of a run alike."""
    frames = [relabelled(a) for a in [*atoms[:12], *atoms[:12]]]
    for a in frames:
        a.info["source"] = "my-run"
    result = import_from_config(setup(frames, CONFIG.replace("[outliers]\nk = 6\n", "")))
    assert result.reasons == {"duplicate": 12}
    assert result.records[13].reason == "the same frame as other/my-run (frame 1 of data.xyz)"
    assert result.files["frames.extxyz.xz"] == 12


def test_children_stay_on_the_side_of_their_parents(setup, atoms):
    """Of a parent that is imported, and of one that is not, and keeps its name."""
    frames = [relabelled(a) for a in atoms]
    for k, a in enumerate(frames):
        a.info["source"] = f"run/{k}"
    frames[0].info["split"] = "test"
    frames[1].info["parent"] = "run/0"
    frames[2].info["parent"] = "elsewhere/0"
    result = import_from_config(setup(frames, CONFIG.replace("[outliers]\nk = 6\n", "")))
    read = read_frames(result.folder / "frames.extxyz.xz")
    assert [f.parent for f in read[:4]] == ["", "other/run/0", "elsewhere/0", ""]
    fitted, tests = split_off_tests(read)
    assert [f.source for f in tests] == ["other/run/0"]
    assert [f.source for f in fitted] == [f"other/run/{k}" for k in range(2, len(frames))]


def test_no_family_is_called_like_all_of_them(setup, atoms):
    frames = [relabelled(a) for a in atoms]
    frames[3].info["source"] = "all/3"
    with pytest.raises(DataError, match=r"Frame 3 of .* is of a family 'all'"):
        import_from_config(setup(frames))


@pytest.mark.parametrize("reference", [CONFIG, NO_REFERENCE])
def test_forces_in_a_unit_that_the_limits_would_refuse(setup, atoms, reference):
    frames = [relabelled(a, forces=96.5 * a.get_forces()) for a in atoms]
    with pytest.raises(DataError, match=r"unit of forces is wrong"):
        import_from_config(setup(frames, reference))


def test_energies_in_another_unit_of_a_few_frames(setup, atoms):
    """Too few to compare differences of energies; their zero is nowhere near."""
    frames = [relabelled(a, energy=96.5 * a.get_potential_energy()) for a in atoms[:5]]
    with pytest.raises(DataError, match=r"eV/atom away from the reference's.*read\.energy"):
        import_from_config(setup(frames))


def test_energies_are_those_that_forces_belong_to(tmp_path):
    """VASP's and CASTEP's ``energy`` is extrapolated to no smearing, their forces are not."""
    (a,) = structures(1, seed=2)
    free = a.get_potential_energy() - 0.5
    labelled = relabelled(a, free_energy=free)
    assert frame_from_atoms(labelled, "").energy == pytest.approx(free)
    write(tmp_path / "data.xyz", labelled, format="extxyz")
    (read,) = ReadSection().structures(tmp_path / "data.xyz")
    assert read.get_potential_energy() == pytest.approx(free)
