"""`hmlp ablate`: what is left out is left out, every form is fitted once, table, CSV and bars."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner
from toy_models import hcp, pa3, toy_potential

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError, DataError, OutputExistsError
from ase_hmlp.fingerprints import environment_names
from ase_hmlp.model_io import load_model
from ase_hmlp.training.ablation.report import Ablation, Row, csv_table, mean_error, rich_table
from ase_hmlp.training.ablation.run import ablate
from ase_hmlp.training.ablation.variants import variants
from ase_hmlp.training.config import TrainingConfig
from ase_hmlp.training.evaluate import ErrorRow
from ase_hmlp.training.frames import read_frames
from ase_hmlp.training.rows import EnvironmentDesign
from ase_hmlp.training.search import evaluate
from ase_hmlp.training.search.candidates import Candidate
from ase_hmlp.training.search.config import TimingSection
from ase_hmlp.training.search.settings import Base
from ase_hmlp.training.train import prepare_by_family, train_from_config

FAMILIES = ("crystal", "hcp", "fluid", "odd")
TIMING = TimingSection(atoms=24, calls=2)

CONFIG = {
    "name": "toy",
    "data": {"files": ["toy.extxyz"]},
    "weights": {"energy": 1.0, "force": 10.0, "stress": 0.1, "relative": 0.0},
    "bond": {"form": "quartic"},
    "pair": {
        "gaussians": [0.9, 1.4, 2.2],
        "damped_sines": [[1.5, 1.2]],
        "cutoff": 4.0,
        "inner": 0.9,
        "outer": 1.2,
    },
    "orientation": {"gaussians": [1.6, 2.5], "cutoff": 4.0, "inner": 1.1, "outer": 1.5},
    "environment": {
        "gaussians": [1.2, 1.7, 2.3, 3.0],
        "aligned": 2.0,
        "shells": [1.4, 1.75, 2.1, 2.45, 2.8, 3.15, 3.5, 3.85],
        "shell_width": 0.4,
        "cutoff": 4.0,
        "inner": 1.1,
        "outer": 1.5,
        "representatives": 10,
        "length_scale": 2.0,
        "stretch_width": 0.3,
        "overlap": {"support": 3.4, "widths": [0.8, 1.2, 1.8], "reach": 3.4, "inner": 2.6},
    },
    "fit": {"learning_curve": 1},
}


def labelled(atoms, family, potential):
    """Atoms with what the potential says of them."""
    molecules = np.arange(len(atoms)).reshape(-1, 2).astype(np.intc)
    found = potential.evaluate(
        potential.tracker().update(atoms.positions, atoms.cell.array, atoms.pbc, molecules)
    )
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=found.energies.sum(),
        forces=found.forces,
        stress=found.virials.sum(axis=0) / atoms.get_volume(),
    )
    atoms.info["group"] = family
    return atoms


def frames(n):
    """Frames whose truth is a bond, pair and orientation level; no two of them alike."""
    potential, rng = toy_potential(environment=False), np.random.default_rng(0)
    for k in range(n):
        volume = rng.uniform(2.4, 4.0)
        atoms = hcp(volume, (2, 1, 1), seed=k, bond_spread=0.02) if k % 2 else pa3(volume)
        atoms.rattle(0.04, rng=rng)
        yield labelled(atoms, FAMILIES[k % 4], potential)


def folder_with(folder, atoms, **changes):
    """Data and a training configuration; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "toy.extxyz", atoms)
    config = {k: v | changes.get(k, {}) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    path = folder / "toy.toml"
    path.write_text(tomli_w.dumps(config))
    return path


@pytest.fixture(scope="module")
def atoms():
    return list(frames(20))


@pytest.fixture(scope="module")
def done(atoms, tmp_path_factory):
    path = folder_with(tmp_path_factory.mktemp("ablation"), atoms)
    return path, ablate(path, command="hmlp ablate toy.toml", timing=TIMING)


def error(result, name, kind="force_mae"):
    (row,) = [row for row in result.ablation.rows if row.name == name]
    return getattr(row.found.rows[-1], kind)


# ---------------------------------------------------------------- a whole ablation


def test_a_level_that_is_in_the_labels_is_missed(done):
    """The labels are of bond, pair and orientation."""
    _, result = done
    assert not [row for row in result.ablation.rows if row.found.failure]
    assert error(result, "pair") < 0.9 * error(result, "bond alone")
    assert error(result, "pair, orientation") < 0.9 * error(result, "pair")
    assert error(result, "published, linear") > error(result, "pair, orientation")


def test_the_configuration_is_a_row_and_the_unit_of_time(done):
    _, result = done
    (row,) = [row for row in result.ablation.rows if not row.found.changes]
    assert row.name == "all levels, as configured"
    assert row.found == result.ablation.base and row.found.ratio == 1.0
    ratios = [row.found.ratio for row in result.ablation.rows]
    assert all(0.0 < ratio < 3.0 for ratio in ratios)
    assert ratios[0] < ratios[2] < 1.0


def test_errors_of_the_bond_alone_are_those_of_the_stage_of_training(done):
    """Leave-one-family-out as `hmlp train` does it."""
    path, result = done
    trained = train_from_config(path, path.parent / "trained")
    for stage, name in (("bond", "bond alone"), ("all", "all levels, as configured")):
        expected = trained.model.errors["levels"][stage][-1]
        for kind in ("energy_mae", "force_mae", "pressure_mae"):
            assert error(result, name, kind) == pytest.approx(expected[kind], rel=1e-6)


def test_a_finished_ablation_computes_nothing(done, monkeypatch):
    path, result = done
    monkeypatch.setattr(evaluate, "load_frames", None)
    before = [p.read_bytes() for p in result.paths]
    again = ablate(path, command="hmlp ablate toy.toml", timing=TIMING)
    assert again.computed == 0 and result.computed == len(result.ablation.rows) == 13
    assert [p.read_bytes() for p in again.paths] == before


def test_every_other_frame_of_each_family(done, tmp_path):
    """Where all frames are known, those of half of them are computed."""
    path, whole = done
    shutil.copy(path.parent / "toy-ablation" / "variants.jsonl", tmp_path)
    thinned = ablate(path, tmp_path, timing=TIMING, every=2)
    assert thinned.computed == 13
    for some, everything in zip(thinned.ablation.base.rows, whole.ablation.base.rows, strict=True):
        assert some.group == everything.group
        if some.group != "all":
            assert some.frames == -(-everything.frames // 2)


def test_a_killed_ablation_goes_on(done, atoms, tmp_path, monkeypatch):
    path = folder_with(tmp_path, atoms)
    fits = []

    def killed(frames, config, progress):
        fits.append(config.fit.levels)
        if len(fits) == 4:
            raise KeyboardInterrupt
        return prepare_by_family(frames, config, progress)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "prepare_by_family", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(path, timing=TIMING)
    kept = (tmp_path / "toy-ablation" / "variants.jsonl").read_text().splitlines()
    result = ablate(path, timing=TIMING)
    assert len(kept) == 3 and result.computed == 10
    for mine, whole in zip(result.ablation.rows, done[1].ablation.rows, strict=True):
        assert mine.found.rows == whole.found.rows


def test_a_fit_that_fails_is_a_row_that_says_so(atoms, tmp_path, monkeypatch):
    def fails(frames, config, progress):
        if not config.environment.representatives:
            raise DataError("No good.")
        return prepare_by_family(frames, config, progress)

    monkeypatch.setattr(evaluate, "prepare_by_family", fails)
    result = ablate(folder_with(tmp_path, atoms[:12]), timing=TIMING)
    report = result.paths[0].read_text()
    assert "(failed: No good.)" in report and report.count(" failed ") == 20
    rows = list(csv.DictReader(io.StringIO(result.paths[1].read_text())))
    assert {row["energy_mae_meV_per_atom"] for row in rows if row["number"] == "4"} == {""}


# ---------------------------------------------------------------- what is left out


@pytest.fixture(scope="module")
def fitted(done, atoms):
    """Potentials of all rows, fitted to all frames."""
    path, _ = done
    base, data = Base.read(path), list(read_frames(path.parent / "toy.extxyz"))
    return {
        v.name: base.changed(v.changes).estimator().set_params(variance=False).fit(data).potential_
        for v in variants(base.config)
    }


def test_levels_are_left_out(fitted):
    def levels(name):
        p = fitted[name]
        return [n for n in ("pair", "orientation", "environment") if getattr(p, n) is not None]

    assert levels("bond alone") == []
    assert levels("pair") == ["pair"]
    assert levels("pair, orientation") == ["pair", "orientation"]
    assert levels("pair; kernel on radial") == ["pair", "environment"]
    assert levels("published, kernel") == ["pair", "orientation", "environment"]


def test_linear_has_no_representatives(fitted):
    regressor = fitted["all levels, linear"].environment.regressor
    assert len(regressor.alpha) == len(regressor.transform) == 0
    assert np.count_nonzero(regressor.linear) == len(regressor.linear)


NO_OVERLAPS = "density", "axial", "S", "shell", "stretched", "vector", "tensor"


def families(names, chosen):
    return [name.startswith(chosen) for name in names]


@pytest.mark.parametrize(
    "name, gaussian, linear",
    [
        ("pair; kernel on radial", ("shell",), ("density", "shell")),
        ("pair, orientation; kernel on radial", ("shell",), ("density", "shell")),
        ("all levels; kernel on radial", ("shell",), NO_OVERLAPS),
        ("all levels without overlaps", ("shell", "axial ", "S", "stretched"), NO_OVERLAPS),
        ("all levels, as configured", ("shell", "axial ", "S", "stretched"), ("",)),
        ("published, kernel", ("shell", "S224"), ("density", "shell", "S224")),
    ],
)
def test_what_the_kernel_sees(fitted, name, gaussian, linear):
    level = fitted[name].environment
    names = environment_names(level.basis)
    regressor = level.regressor
    seen = np.abs(regressor.transform).max(axis=0) > 0
    assert len(regressor.alpha) == 10
    assert seen.tolist() == families(names, gaussian)
    assert (regressor.linear != 0).tolist() == families(names, linear)
    sees_bond = name != "published, kernel"
    assert (regressor.linear_stretch != 0).any() == sees_bond == (regressor.stretch_width > 0)
    if sees_bond:
        stretched = [n.startswith(linear) and not n.startswith("overlap") for n in names]
        assert (regressor.linear_stretch != 0).tolist() == stretched


def test_published_is_radial_functions_and_the_quadrupole(fitted):
    potential = fitted["published, linear"]
    assert (potential.pair.coefficients[0] != 0).all()
    assert (potential.pair.coefficients[1:] == 0).all()
    level = potential.orientation
    used = np.array(level.names)[level.coefficients.ravel() != 0]
    assert used.tolist() == ["fp_EQQ"]
    more = fitted["published, our orientation, linear"].orientation
    assert (more.coefficients != 0).all() and more.coefficients.shape == (6, 3)


@pytest.mark.parametrize("name", ["pair; kernel on radial", "published, kernel"])
def test_rows_times_coefficients_are_what_the_potential_returns(fitted, done, name):
    """The contract between training and use, with and without the bond length."""
    potential = fitted[name]
    level = potential.environment
    linear = level.regressor.linear != 0
    spread = np.ones(len(linear))
    design = EnvironmentDesign(potential.stretch, level.basis, level.regressor, spread, linear)
    coefficients = np.random.default_rng(0).normal(size=design.n_coefficients)
    alone = replace(potential, environment=design.with_coefficients(coefficients))
    bare = replace(potential, environment=None)
    frame = next(iter(read_frames(done[0].parent / "toy.extxyz")))
    geometry = frame.geometry(potential.cutoff)
    whole, rest = alone.evaluate(geometry), bare.evaluate(geometry)
    row = coefficients @ design.rows(geometry)
    energy = whole.energies.sum() - rest.energies.sum()
    assert row[0] == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(row[1:-6], (rest.forces - whole.forces).ravel(), atol=1e-7)
    virial = (whole.virials - rest.virials).sum(axis=0)
    np.testing.assert_allclose(row[-6:], virial, atol=1e-7)
    penalty = design.penalty(1.0, 1.0)
    assert penalty.shape == (design.n_coefficients,) * 2 and (np.diag(penalty) > 0).all()


@pytest.mark.parametrize("levels", [[], ["pair"], ["environment", "pair"]])
def test_a_model_with_fewer_levels_is_trained_and_saved(levels, atoms, tmp_path):
    path = folder_with(tmp_path, atoms[:12], fit={"levels": levels, "learning_curve": 1})
    result = train_from_config(path, tmp_path / "model")
    model, card = load_model(result.model_path), result.card_path.read_text()
    for name in ("pair", "orientation", "environment"):
        assert (getattr(model.potential, name) is not None) == (name in levels)
        assert (f"- {name}: " in card) == (name in levels)


# ---------------------------------------------------------------- the report

ROWS = (
    ErrorRow("crystal", 3, 30, 1.0, 1.0, 10.0, 10.0, 0.5, 0.5, 0.5),
    ErrorRow("hcp", 1, 90, 5.0, 5.0, 50.0, 50.0, np.nan, np.nan, np.nan),
    ErrorRow("odd", 4, 40, 2.0, 2.0, 20.0, 20.0, 1.0, 1.0, 1.0),
    ErrorRow("all", 8, 160, 2.0, 2.0, 35.0, 35.0, 0.7, 0.7, 0.7),
)


def test_errors_of_groups_are_means_over_frames_and_atoms():
    assert mean_error(ROWS, ["crystal", "hcp"], "energy_mae") == pytest.approx(2.0)
    assert mean_error(ROWS, ["crystal", "hcp"], "force_mae") == pytest.approx(40.0)
    assert mean_error(ROWS, ["crystal", "hcp"], "pressure_mae") == pytest.approx(0.5)
    assert np.isnan(mean_error(ROWS, ["hcp"], "pressure_mae"))


def test_all_frames_are_the_last_row_of_the_error_table(done):
    """The mean over families is the one over all frames."""
    result = done[1].ablation
    for kind in ("energy_mae", "force_mae", "pressure_mae"):
        mine = mean_error(result.base.rows, result.groups["all"], kind)
        assert mine == pytest.approx(getattr(result.base.rows[-1], kind), rel=1e-9)


def test_groups_are_those_that_were_judged():
    base = Candidate("a", {}, ROWS, 1.0, 2.0)
    ablation = Ablation("toy", [Row("it", base)], base)
    expected = {"all": ["crystal", "hcp", "odd"], "solid": ["crystal", "hcp"]}
    assert ablation.groups == expected
    assert len(rich_table(ablation).columns) == 2 + 3 * 2 + 2
    (first, *_) = list(csv.DictReader(io.StringIO(csv_table(ablation))))
    assert (first["families"], first["frames"], first["us_per_atom"]) == ("all", "8", "2")


def test_report_has_every_row_and_where_it_comes_from(done):
    path, result = done
    report, table, picture = result.paths
    text = report.read_text()
    for n, row in enumerate(result.ablation.rows, 1):
        assert f"{n}. {row.name}: " in text
    assert "solid: 10 frames of crystal, hcp." in text and "liquid: 5 frames of fluid." in text
    assert "Command: hmlp ablate toy.toml" in text and "numpy" in text
    assert text.count("SHA-256") == 2
    assert max(map(len, text.splitlines())) <= 150
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 13 * (3 + 4)
    assert float(rows[0]["force_mae_meV_per_A"]) == pytest.approx(
        error(result, "bond alone"), rel=1e-5
    )
    assert picture.stat().st_size > 10_000
    noted = json.loads((path.parent / "toy-ablation" / "ablation.json").read_text())
    assert noted["commands"] == ["hmlp ablate toy.toml"]


def test_command(done, monkeypatch):
    path, _ = done
    monkeypatch.setattr("ase_hmlp.training.ablation.run.TimingSection", lambda: TIMING)
    ran = CliRunner().invoke(main, ["ablate", str(path)])
    assert ran.exit_code == 0, ran.output
    assert "0 variants computed, 13 before." in ran.output
    for row in done[1].ablation.rows:
        assert row.name in ran.output
    assert max(map(len, ran.stdout.split("Written: ")[0].splitlines())) <= 80


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"environment": {"representatives": 0}}, ["representatives"]),
        ({"fit": {"levels": ["pair"]}}, ["all levels"]),
        ({"fit": {"levels": ["orientation"]}}, ["fit.levels", "need the pair level"]),
        ({"fit": {"levels": ["bond"]}}, ["fit.levels"]),
        ({"orientation": {"invariants": []}}, ["orientation.invariants"]),
        ({"orientation": {"invariants": ["S999"]}}, ["orientation.invariants"]),
        ({"environment": {"linear": ["colour"]}}, ["environment.linear"]),
        ({"data": {"files": ["none.extxyz"]}}, ["none.extxyz does not exist"]),
    ],
)
def test_bad_configuration_is_one_sentence(changes, words, atoms, tmp_path):
    path = folder_with(tmp_path, atoms[:1], **changes)
    ran = CliRunner().invoke(main, ["ablate", str(path)])
    assert ran.exit_code == 2 and "Traceback" not in ran.output
    assert ran.stderr.startswith("Error: ") and len(ran.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in ran.stderr
    assert not (tmp_path / "toy-ablation").exists()


@pytest.mark.parametrize("name", ["ablation.txt", "ablation.csv", "ablation.png"])
def test_files_of_others_are_not_replaced(atoms, tmp_path, name):
    path = folder_with(tmp_path, atoms[:1])
    (tmp_path / "toy-ablation").mkdir()
    (tmp_path / "toy-ablation" / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"{name} is there already"):
        ablate(path)
    assert [p.read_text() for p in (tmp_path / "toy-ablation").iterdir()] == ["mine"]


def test_a_foreign_record_is_refused(atoms, tmp_path):
    path = folder_with(tmp_path, atoms[:1])
    (tmp_path / "toy-ablation").mkdir()
    (tmp_path / "toy-ablation" / "ablation.json").write_text("[]")
    with pytest.raises(OutputExistsError, match="no record of an ablation"):
        ablate(path)


def test_levels_are_in_the_order_of_the_fit():
    config = TrainingConfig.model_validate(CONFIG | {"fit": {"levels": ["orientation", "pair"]}})
    assert config.fit.levels == ["pair", "orientation"]
    with pytest.raises(ConfigError, match="all levels"):
        variants(config)
