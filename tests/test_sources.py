"""Labels of several sources in one fit: an energy zero each, weights, limits."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner
from sklearn.base import clone
from test_training import CONFIG, ENVIRONMENT, ORIENTATION, PAIR, STAGES, WEIGHTS, structures

from ase_hmlp.cli import main
from ase_hmlp.errors import ConfigError
from ase_hmlp.model_io import load_model
from ase_hmlp.training.config import read_config
from ase_hmlp.training.evaluate import error_table, evaluate_files, predict
from ase_hmlp.training.fit import HierarchicalPotential
from ase_hmlp.training.frames import frame_from_atoms, read_frames
from ase_hmlp.training.limits import Limits
from ase_hmlp.training.train import (
    load_frames,
    predict_unseen,
    prepare_by_family,
    train_from_config,
)
from ase_hmlp.training.weights import Weights

#: eV/atom between two codes' energies.
OFFSET = 1.234

#: A fifth of what the fit of one source takes.
SMALL = replace(ENVIRONMENT, n_representatives=25)


@pytest.fixture(scope="module")
def atoms():
    return list(structures(36, seed=2))


@pytest.fixture(scope="module")
def frames(atoms):
    """Frames of two sources in turn, with labels on the same zero."""
    frames = [frame_from_atoms(a, f"Frame {k}") for k, a in enumerate(atoms)]
    return [replace(f, source_set="AB"[k // 4 % 2]) for k, f in enumerate(frames)]


def raised(frames, offset=OFFSET):
    """The same, source B's energies higher."""
    return [
        replace(f, energy=f.energy + offset * f.n_atoms) if f.source_set == "B" else f
        for f in frames
    ]


def fit(frames, **changes):
    estimator = HierarchicalPotential(
        PAIR, ORIENTATION, SMALL, bond="quartic", weights=WEIGHTS, variance=False
    )
    return estimator.set_params(**changes).fit(frames)


@pytest.fixture(scope="module")
def level(frames):
    """Fitted to sources that agree."""
    return fit(frames)


@pytest.fixture(scope="module")
def apart(frames):
    """Fitted to sources that do not."""
    return fit(raised(frames))


def test_offset_between_sources_is_recovered(level, apart):
    for stage in STAGES:
        assert list(apart.zeros_[stage]) == ["A", "B"]
        assert apart.zeros_[stage]["A"] == 0.0
        # Round-off of labels of some 500 eV with standard errors of 8 meV: 1e-16 x 6e4 standard
        # errors, in meV/atom, times what the normal equations make of it.
        difference = apart.zeros_[stage]["B"] - level.zeros_[stage]["B"]
        assert difference == pytest.approx(OFFSET, abs=1e-9)


def test_coefficients_do_not_know_the_offset(level, apart, frames):
    for stage in STAGES:
        one, two = (predict(e.stages_[stage], frames) for e in (level, apart))
        np.testing.assert_allclose(two.energy, one.energy, atol=1e-7)
        np.testing.assert_allclose(two.forces, one.forces, atol=1e-7)
        np.testing.assert_allclose(two.stress, one.stress, atol=1e-5)


def test_sources_that_agree_fit_as_one(level, frames):
    """The second zero is one more coefficient: it may take what the fit leaves over, no more."""
    one = fit([replace(f, source_set="A") for f in frames])
    assert one.zeros_["all"] == {"A": 0.0}
    left = error_table(predict(one.potential_, frames))[-1].energy_rmse
    assert 1e3 * abs(level.zeros_["all"]["B"]) < left
    energy = [predict(e.potential_, frames).energy[1] for e in (level, one)]
    np.testing.assert_allclose(*energy, atol=1e-3 * left)


def test_first_source_has_the_model_zero(frames, apart):
    other_way = fit(sorted(raised(frames), key=lambda f: f.source_set, reverse=True))
    assert list(other_way.zeros_["all"]) == ["B", "A"]
    # Of molecules that tell as much the first becomes a representative: in another order another.
    assert other_way.zeros_["all"]["A"] == pytest.approx(-apart.zeros_["all"]["B"], abs=2e-5)
    energy = [predict(e.potential_, frames).energy[1] for e in (other_way, apart)]
    left = 1e-3 * error_table(predict(apart.potential_, frames))[-1].energy_rmse
    # Three times the root mean square is the largest of three dozen.
    np.testing.assert_allclose(energy[0] - energy[1], apart.zeros_["all"]["B"], atol=3 * left)


def test_weight_multiplies_squared_residuals(frames):
    """Four times the weight is half the standard error, of every label of the frame."""
    weights = Weights(0.001, 0.02, 0.2, 0.05)
    heavy = replace(frames[0], weight=4.0)
    np.testing.assert_allclose(weights.sigma(heavy), 0.5 * weights.sigma(frames[0]), rtol=1e-14)
    np.testing.assert_allclose(
        weights.force_sigma(heavy), 0.5 * weights.force_sigma(frames[0]), rtol=1e-14
    )


def test_the_heavier_source_is_fitted_better(frames):
    # The bond has a robust loss, to which weights are not all: it is left to other frames.
    heavy = [f.source_set == "B" and f.group != "hcp" for f in frames]
    mine = [f for f, h in zip(frames, heavy, strict=True) if h]

    def misfit(weight):
        chosen = [replace(f, weight=weight) if h else f for f, h in zip(frames, heavy, strict=True)]
        estimator = fit(
            chosen,
            orientation=None,
            environment=None,
            bond_groups=("hcp",),
            baseline_groups=("hcp",),
        )
        p, _ = predict(estimator.potential_, mine).on_one_zero(estimator.zeros_["pair"])
        # As the fit has them: standard errors of 0.5 meV/atom, 10 meV/Å and 0.1 GPa.
        return sum(
            (((x[1] - x[0]) / sigma) ** 2).sum()
            for x, sigma in ((p.energy, 0.0005), (p.forces, 0.01), (p.stress, 0.1))
        )

    assert misfit(100.0) < 0.99 * misfit(1.0) < 0.98 * misfit(0.01)


def test_errors_are_taken_on_each_sources_zero(level, apart, frames):
    expected = error_table(predict(level.potential_, frames).on_one_zero(level.zeros_["all"])[0])
    labels = predict(apart.potential_, raised(frames))
    got, fitted = labels.on_one_zero(apart.zeros_["all"])
    assert fitted == {}
    assert error_table(got)[-1].energy_mae == pytest.approx(expected[-1].energy_mae, abs=1e-4)
    assert error_table(labels)[-1].energy_mae > 100 * expected[-1].energy_mae


def test_zero_of_an_unknown_source_is_fitted(apart, frames):
    labels = predict(apart.potential_, raised(frames))
    got, fitted = labels.on_one_zero({"A": 0.0})
    assert fitted["B"] == pytest.approx(OFFSET, abs=0.01)
    mine = got.source == "B"
    assert np.median((got.energy[0] - got.energy[1])[mine]) == pytest.approx(0.0, abs=1e-12)


# ---------------------------------------------------------------- a source of one family


def one_family(frames, name="B"):
    """Frames whose source B is the family hcp-b, and nothing else is."""
    return [replace(f, source_set=name if f.group == "hcp-b" else "A") for f in frames]


@pytest.mark.parametrize("turned", [False, True])
def test_a_fit_without_a_source_is_one_of_the_others(frames, turned):
    """To round-off, and whichever is the first: nothing is made up for the source's zero."""
    order = sorted(frames, key=lambda f: (f.group == "hcp-b") != turned)
    estimator = HierarchicalPotential(
        PAIR, ORIENTATION, SMALL, bond="quartic", bond_groups=("pa3",), weights=WEIGHTS
    )

    def without(these):
        these = [replace(f, source_set=f.source_set) for f in these]
        prepared = clone(estimator).prepare(these, [f.group for f in these])
        return clone(estimator).solve(prepared, ["pa3", "hcp", "pa3-b"])

    one, two = without(one_family(order, "A")), without(raised(one_family(order)))
    assert list(two.stages_) == STAGES
    for stage in STAGES:
        assert two.zeros_[stage] == {"A": 0.0}
        a, b = (predict(e.stages_[stage], frames) for e in (one, two))
        np.testing.assert_allclose(b.energy[1], a.energy[1], atol=1e-9)
        np.testing.assert_allclose(b.forces[1], a.forces[1], atol=1e-9)
    # Deviations that calibrate and set the threshold, too.
    for frame in frames[:4]:
        geometry = frame.geometry(one.potential_.cutoff)
        a, b = (e.potential_.deviations(geometry) for e in (one, two))
        np.testing.assert_allclose(b, a, rtol=1e-6)


@pytest.fixture(scope="module")
def two_codes(atoms, tmp_path_factory):
    """Folder, and results of trainings on all frames by one code, and on hcp-b by another."""
    folder = tmp_path_factory.mktemp("codes")
    mine = [a for a in atoms if a.info["group"] == "hcp-b"]
    save(folder / "toy.extxyz", [a for a in atoms if a.info["group"] != "hcp-b"])
    save(folder / "same.extxyz", mine)
    save(folder / "other.extxyz", mine, OFFSET)
    results = []
    for name, zero in (("same", "shared"), ("other", "own")):
        source = f'[[data.source]]\nfiles = ["{name}.extxyz"]\nzero = "{zero}"\n[bond]'
        text = CONFIG.replace("[bond]", source, 1).replace('"toy"', f'"{name}"')
        (folder / f"{name}.toml").write_text(text)
        results.append(train_from_config(folder / f"{name}.toml", folder / "out"))
    return folder, *results


def test_errors_of_a_source_of_one_family_do_not_hang_on_its_zero(two_codes):
    """Nor does what deviations are scaled to, and where the calculator warns of them."""
    _, same, other = two_codes
    for stage in STAGES:
        a, b = (
            next(r for r in x.model.errors["levels"][stage] if r["group"] == "hcp-b")
            for x in (same, other)
        )
        # The same fit: from their median, errors are on the average no larger than from any zero.
        assert b["energy_mae"] < 1.0001 * a["energy_mae"]
        assert b["force_rmse"] == pytest.approx(a["force_rmse"], rel=1e-6)
    # The other families' fits know the zero, and are a little different; the offset would make
    # both hundreds of times larger.
    a, b = (x.model.errors["reliability"] for x in (same, other))
    assert b["factor"] == pytest.approx(a["factor"], rel=0.5)
    assert b["threshold"] == pytest.approx(a["threshold"], rel=0.5)


def test_a_search_judges_a_source_of_one_family_on_its_own_zero(two_codes):
    folder, _, other = two_codes
    config = read_config(folder / "other.toml")
    frames, _ = load_frames(folder, config)
    found = predict_unseen(frames, config, prepare_by_family(frames, config))
    stored = other.held_out["all"]
    assert found.group.tolist() == stored.group.tolist()
    np.testing.assert_allclose(found.energy, stored.energy, atol=1e-9)
    mine = found.group == "hcp-b"
    assert np.median((found.energy[0] - found.energy[1])[mine]) == pytest.approx(0, abs=1e-12)


def test_a_source_without_a_name_has_a_zero_of_its_own(two_codes):
    """That is what ``zero = "own"`` is by default; neither table nor frames name it."""
    _, same, other = two_codes
    assert same.model.training["zeros"] == {"": 0.0}
    zeros = other.model.training["zeros"]
    assert list(zeros) == ["", "other"]
    # The zero is as uncertain as the few frames are badly fitted.
    left = 1e-3 * same.model.errors["levels"]["all"][-1]["energy_rmse"]
    assert zeros["other"] == pytest.approx(OFFSET, abs=left)
    assert f"| other | {1e3 * zeros['other']:+.2f} | 1 |" in other.card_path.read_text()


def test_names_of_sources_are_told_apart(atoms, tmp_path):
    """Of two files of one name in two folders; where frames say what they are, it stays."""
    for k, name in enumerate(("a", "x/lab", "y/lab", "z/lab")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / f"{name}.extxyz", atoms[3 * k : 3 * k + 3])
    save(tmp_path / "named.extxyz", atoms[12:15], source_set="lab-2")
    sources = "".join(
        f'[[data.source]]\nfiles = ["{name}.extxyz"]\n{more}'
        for name, more in (
            *(("x/lab", ""), ("y/lab", ""), ("named", "")),
            ("z/lab", 'zero = "shared"\n'),
        )
    )
    text = CONFIG.replace('["toy.extxyz"]', '["a.extxyz"]').replace("[bond]", sources + "[bond]", 1)
    (tmp_path / "toy.toml").write_text(text)
    frames, _ = load_frames(tmp_path, read_config(tmp_path / "toy.toml"))
    expected = ["", "lab", "lab-3", "lab-2", ""]
    assert [f.source_set for f in frames] == [name for name in expected for _ in range(3)]


# ---------------------------------------------------------------- limits


def test_limits_name_what_is_outside(frames):
    frame = frames[1]
    assert Limits().violations(frame) == []
    bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
    force = np.linalg.norm(frame.forces, axis=1).max()
    volume = frame.volume / frame.n_atoms
    for name, value, eps in (
        ("min_bond", bonds.min(), 1e-6),
        ("max_bond", bonds.max(), -1e-6),
        ("min_contact", frame.shortest_contact, 1e-6),
        ("max_force", force, -1e-6),
        ("min_volume", volume, 1e-6),
        ("max_volume", volume, -1e-6),
    ):
        assert Limits(**{name: value - eps}).violations(frame) == []
        (phrase,) = Limits(**{name: value + eps}).violations(frame)
        assert f"{name[4:]} of {value:.4g}" in phrase
        assert ("less" if name.startswith("min") else "more") in phrase


# ---------------------------------------------------------------- configurations and whole runs


SPLIT = '[split]\nscheme = "families"\ntest = ["hcp"]\n[fit]'
TWO_SOURCES = """[[data.source]]
files = ["a.extxyz"]
name = "PBE"
[[data.source]]
files = ["b.extxyz"]
weight = 0.5
limits = { max_force = %g }
[bond]"""


def save(path, atoms, offset=0.0, **info):
    out = []
    for a in atoms:
        copy = a.copy()
        copy.info |= info
        labels = a.calc.results | {"energy": a.calc.results["energy"] + offset * len(a)}
        copy.calc = SinglePointCalculator(copy, **labels)
        out.append(copy)
    write(path, out)


@pytest.fixture(scope="module")
def run(atoms, tmp_path_factory):
    """A training run on two files, the second with another zero; its strongest frame too strong."""
    folder = tmp_path_factory.mktemp("sources")
    save(folder / "a.extxyz", atoms[::2])
    save(folder / "b.extxyz", atoms[1::2], OFFSET, source_set="castep")
    largest = sorted(np.linalg.norm(a.calc.results["forces"], axis=1).max() for a in atoms[1::2])
    text = CONFIG.replace('files = ["toy.extxyz"]\n', "").replace("[fit]", SPLIT)
    text = text.replace("[bond]", TWO_SOURCES % (0.5 * (largest[-1] + largest[-2])), 1)
    (folder / "toy.toml").write_text(text)
    return folder, train_from_config(folder / "toy.toml", folder / "out")


def test_run_keeps_zeros_weights_and_limits(run):
    _, result = run
    training = result.model.training
    assert list(training["zeros"]) == ["PBE", "castep"]
    assert training["zeros"]["castep"] == pytest.approx(OFFSET, abs=0.01)
    assert training["weights"] == {"PBE": [1.0], "castep": [0.5]}
    assert training["rejected"] == 1
    assert [f["name"] for f in training["files"]] == ["a.extxyz", "b.extxyz"]


def test_card_lists_the_zeros(run):
    _, result = run
    card = result.card_path.read_text()
    assert "| PBE | +0.00 | 1 |" in card
    assert f"| castep | {1e3 * result.model.training['zeros']['castep']:+.2f} | 0.5 |" in card
    # The held-out errors are on the zeros too: the offset would be a thousand times larger.
    assert result.model.errors["levels"]["all"][-1]["energy_mae"] < 0.1 * 1e3 * OFFSET


def test_evaluation_knows_the_zeros(run, atoms):
    folder, result = run
    b = evaluate_files(result.model, [folder / "b.extxyz"])
    assert b.fitted_zeros == {}
    assert b.rows[-1].energy_mae < 0.1 * 1e3 * OFFSET
    save(folder / "c.extxyz", atoms[1::2], OFFSET, source_set="VASP")
    c = evaluate_files(result.model, [folder / "c.extxyz"])
    assert c.fitted_zeros["VASP"] == pytest.approx(OFFSET, abs=0.05)
    # Frames that name no source are on the model's zero.
    save(folder / "d.extxyz", atoms[1::2], OFFSET)
    d = evaluate_files(result.model, [folder / "d.extxyz"])
    assert d.fitted_zeros == {}
    assert d.rows[-1].energy_mae == pytest.approx(1e3 * OFFSET, rel=0.05)


def test_plain_list_of_files_takes_sources_from_the_frames(run, atoms):
    folder, _ = run
    text = CONFIG.replace('["toy.extxyz"]', '["a.extxyz", "b.extxyz"]').replace("[fit]", SPLIT)
    (folder / "plain.toml").write_text(text.replace('"toy"', '"plain"'))
    plain = train_from_config(folder / "plain.toml", folder / "out")
    assert list(plain.model.training["zeros"]) == ["", "castep"]
    assert plain.model.training["zeros"]["castep"] == pytest.approx(OFFSET, abs=0.01)


def test_changes_on_the_command_line_join_a_source(run):
    """With and without a source: one configuration, `hmlp train --set`."""
    folder, _ = run
    text = CONFIG.replace('["toy.extxyz"]', '["a.extxyz"]').replace("[fit]", SPLIT)
    (folder / "one.toml").write_text(text.replace('"toy"', '"one"'))
    change = 'data.source = [{ files = ["b.extxyz"], name = "castep", weight = 0.5 }]'
    arguments = ["train", str(folder / "one.toml"), "-o", str(folder / "both"), "--set", change]
    done = CliRunner().invoke(main, [*arguments, "--set", 'name = "both"'])
    assert done.exit_code == 0, done.output
    training = load_model(folder / "both" / "both.joblib").training
    assert training["weights"] == {"": [1.0], "castep": [0.5]}
    assert training["zeros"]["castep"] == pytest.approx(OFFSET, abs=0.01)
    assert training["config"].endswith(f'# changed: {change}\n# changed: name = "both"\n')
    for wrong, words in (("colour = 1", "with changes: unknown key 'colour'"), ("a", "'a' is not")):
        refused = CliRunner().invoke(main, [*arguments[:2], "--set", wrong])
        assert refused.exit_code == 2 and words in refused.output


def test_families_of_one_file_may_weigh_differently(run):
    folder, _ = run
    whole = read_frames(folder / "a.extxyz")
    families = sorted({frame.group for frame in whole})
    source = """[[data.source]]
files = ["a.extxyz"]
zero = "shared"
families = [%r]
weight = %g
"""
    first, *others = families
    text = "".join(source % (family, 4.0 if family == first else 1.0) for family in families)
    settings = CONFIG.replace("[bond]", text + "[bond]").replace('files = ["toy.extxyz"]\n', "")
    (folder / "parts.toml").write_text(settings)
    config = read_config(folder / "parts.toml")
    frames, rejected = load_frames(folder, config)
    assert others and rejected == 0 and len(frames) == len(whole)
    assert {f.group: f.weight for f in frames} == {first: 4.0} | dict.fromkeys(others, 1.0)
    assert len({f.source_set for f in frames}) == 1
    split = SPLIT.replace("hcp", others[-1])
    (folder / "parts.toml").write_text(settings.replace("[fit]", split).replace('"toy"', '"parts"'))
    fitted = train_from_config(folder / "parts.toml", folder / "out").model.training
    assert [file["name"] for file in fitted["files"]] == ["a.extxyz"]


def test_shared_zero(run):
    folder, _ = run
    text = (folder / "toy.toml").read_text().replace("weight = 0.5", 'zero = "shared"')
    (folder / "shared.toml").write_text(text.replace('"toy"', '"shared"'))
    shared = train_from_config(folder / "shared.toml", folder / "out")
    assert shared.model.training["zeros"] == {"PBE": 0.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[data]\n", "there must be files"),
        ("[[data.source]]\nfiles = []\n", r"data\.source 1\.files"),
        ('[[data.source]]\nfiles = ["a"]\nweight = 0\n', r"data\.source 1\.weight"),
        ('[[data.source]]\nfiles = ["a"]\nzero = "none"\n', r"data\.source 1\.zero"),
        ('[[data.source]]\nfiles = ["a"]\nlimits = { bond = 1 }\n', r"unknown key .*limits\.bond"),
    ],
)
def test_bad_sources(tmp_path, data, message):
    path = tmp_path / "toy.toml"
    path.write_text(CONFIG.replace('[data]\nfiles = ["toy.extxyz"]\n', data))
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_source_set_is_read(atoms, tmp_path):
    save(tmp_path / "a.extxyz", atoms[:2], source_set="castep")
    assert {f.source_set for f in read_frames(tmp_path / "a.extxyz")} == {"castep"}
    save(tmp_path / "b.extxyz", atoms[:2])
    assert {f.source_set for f in read_frames(tmp_path / "b.extxyz")} == {""}
