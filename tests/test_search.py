"""`hmlp search`: what is tried, what is kept, what is remembered, the Pareto front and its knee."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from ase.io import write
from click.testing import CliRunner
from test_training import CONFIG, structures, with_tests
from toy_models import toy_potential

from ase_hmlp.cli import main
from ase_hmlp.errors import DataError, OutputExistsError
from ase_hmlp.sections import read_toml, tomllib
from ase_hmlp.training.append_only import RecordFile, split_lines
from ase_hmlp.training.config import read_config
from ase_hmlp.training.evaluate import ErrorRow
from ase_hmlp.training.fit import silent
from ase_hmlp.training.frames import file_digest
from ase_hmlp.training.search import evaluate, loop
from ase_hmlp.training.search.candidates import Candidate, Judge
from ase_hmlp.training.search.config import GroupSection, ScoreSection, SearchConfig, TimingSection
from ase_hmlp.training.search.evaluate import Evaluator
from ase_hmlp.training.search.loop import search_from_config
from ase_hmlp.training.search.pareto import front, knee
from ase_hmlp.training.search.report import in_words
from ase_hmlp.training.search.settings import Base, alternatives, check, value_of
from ase_hmlp.training.search.timing import crystal, microseconds_per_atom
from ase_hmlp.training.train import prepare_by_family, train_from_config

#: With a prior so narrow that the environment level is as good as left out.
PLANTED = {"prior": 1e-4, "linear_prior": 1e-5, "representatives": 8}

SEARCH = {
    "base": "toy.toml",
    "rounds": 2,
    "score": {"price": 0.0},
    "timing": {"atoms": 24, "calls": 2},
    "group": {
        "priors": {
            "values": {"environment.linear_prior": [1e-6, 0.1]},
            "factors": {"environment.prior": [0.5, 1e4]},
        },
        "kernel": {"values": {"environment.representatives": [4, 16]}},
    },
}


@pytest.fixture(scope="module")
def atoms():
    return list(structures(24, seed=3))


def prepared_folder(folder, atoms, environment=PLANTED, **changes):
    """Data, base and search; gives the search's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "toy.extxyz", atoms)
    base = tomllib.loads(CONFIG)
    base["environment"] |= environment
    base["fit"]["learning_curve"] = 1
    (folder / "toy.toml").write_text(tomli_w.dumps(base))
    path = folder / "search.toml"
    path.write_text(tomli_w.dumps(SEARCH | changes))
    return path


def lines(folder):
    return (folder / "candidates.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def searched(atoms, tmp_path_factory):
    """A whole search, and how often it went over the labels."""
    path = prepared_folder(tmp_path_factory.mktemp("search"), atoms)
    passes = []

    def counted(frames, config, progress):
        passes.append(config.environment.representatives)
        return prepare_by_family(frames, config, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "prepare_by_family", counted)
        result = search_from_config(path)
    return path, result, passes


# ---------------------------------------------------------------- a whole search


def test_planted_setting_is_found(searched):
    """The base's priors stifle the environment level; the search sets them free."""
    _, result, _ = searched
    best = result.findings.best
    assert best.changes["environment.linear_prior"] == 0.1
    assert result.findings.judge.error(best) < 0.8
    first = result.findings.steps[0]
    assert (first.round, first.group, first.tried, first.kept) == (1, "priors", 4, True)


def test_a_group_starts_from_the_best_of_those_before(searched):
    _, result, _ = searched
    varied = [c for c in result.findings.candidates if "environment.representatives" in c.changes]
    assert len(varied) >= 2
    assert all(c.changes["environment.linear_prior"] == 0.1 for c in varied)


def test_errors_are_those_of_training(searched):
    """The base's errors are those that `hmlp train` writes on the card."""
    path, result, _ = searched
    trained = train_from_config(path.parent / "toy.toml", path.parent / "trained")
    expected = trained.model.errors["levels"]["all"]
    assert len(result.findings.base.rows) == len(expected) == 5
    for mine, theirs in zip(result.findings.base.rows, expected, strict=True):
        assert mine.group == theirs["group"] and mine.frames == theirs["frames"]
        for key in ("energy_mae", "force_mae", "pressure_mae"):
            assert getattr(mine, key) == pytest.approx(theirs[key], rel=1e-6)


def test_priors_need_no_other_pass_over_the_labels(searched):
    """One pass serves the base and all four of its priors."""
    _, result, passes = searched
    assert passes[:2] == [8, 4]
    assert len(passes) < result.computed - 3


def test_priors_are_not_timed(searched):
    """They change numbers, not how many there are: the base takes as long."""
    _, result, _ = searched
    for candidate in result.findings.candidates:
        alone = all("prior" in key for key in candidate.changes)
        assert (candidate.ratio == 1.0) == alone
    assert any(c.ratio != 1.0 for c in result.findings.candidates)


def test_candidates_are_on_file(searched):
    path, result, _ = searched
    records = [json.loads(line) for line in lines(path.with_suffix(""))]
    assert [r["id"] for r in records] == [c.id for c in result.findings.candidates]
    assert len({r["id"] for r in records}) == len(records) == result.computed
    assert records[0]["changes"] == {} and records[0]["ratio"] == 1.0
    for record in records:
        assert {row["group"] for row in record["rows"]} == {"pa3", "hcp", "pa3-b", "hcp-b", "all"}
        assert 0.1 < record["ratio"] < 10.0 and record["microseconds"] > 0.0


def test_report_shows_every_candidate(searched):
    path, result, _ = searched
    report = result.report.read_text()
    after = report.split("## All candidates")[1].split("## Families")[0]
    for number, candidate in enumerate(result.findings.candidates):
        assert f"| {number} | {in_words(candidate.changes)} |" in after
    assert (path.with_suffix("") / "search.png").stat().st_size > 10_000


def test_the_knee_is_ready_for_training(searched):
    path, result, _ = searched
    config = read_config(result.config)
    base = read_config(path.parent / "toy.toml")
    for key, value in result.findings.knee.changes.items():
        assert value_of(config, key) == value
    assert config.bond == base.bond and config.fit == base.fit and config.name == base.name
    file = result.config.parent / config.data.files[0]
    assert file.resolve() == (path.parent / "toy.extxyz").resolve()


def test_a_finished_search_computes_nothing(searched, monkeypatch):
    path, result, _ = searched
    monkeypatch.setattr(evaluate, "load_frames", None)
    before = lines(path.with_suffix(""))
    again = search_from_config(path)
    assert again.computed == 0
    assert lines(path.with_suffix("")) == before
    assert again.findings.best == result.findings.best
    assert again.findings.knee == result.findings.knee


def test_moved_data_are_the_same_data(searched, tmp_path, monkeypatch):
    """A finished search, copied, beside a base that finds its data elsewhere."""
    path, _, _ = searched
    shutil.copytree(path.parent, tmp_path / "copy")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy" / "toy.extxyz").rename(tmp_path / "elsewhere" / "toy.extxyz")
    base = tomllib.loads((path.parent / "toy.toml").read_text())
    base["data"]["files"] = ["../elsewhere/toy.extxyz"]
    (tmp_path / "copy" / "toy.toml").write_text(tomli_w.dumps(base))
    monkeypatch.setattr(evaluate, "load_frames", None)
    assert search_from_config(tmp_path / "copy" / path.name).computed == 0


def test_a_killed_search_goes_on(searched, atoms, tmp_path, monkeypatch):
    """Killed in a fit, and in the middle of writing a line: the rest is kept, the end the same."""
    path = prepared_folder(tmp_path, atoms)
    folder = path.with_suffix("")
    calls = []

    def killed(frames, config, progress):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return prepare_by_family(frames, config, progress)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "prepare_by_family", killed)
        with pytest.raises(KeyboardInterrupt):
            search_from_config(path)
    kept = lines(folder)
    assert len(kept) == 5  # the base and its priors
    with (folder / "candidates.jsonl").open("a") as stream:
        stream.write(kept[-1][:40])
    result = search_from_config(path)
    assert lines(folder)[:5] == kept
    assert result.computed == len(result.findings.candidates) - 5
    whole = searched[1].findings
    assert [c.id for c in result.findings.candidates] == [c.id for c in whole.candidates]
    for mine, theirs in zip(result.findings.candidates, whole.candidates, strict=True):
        assert mine.rows == theirs.rows


def test_other_data_are_another_search(searched, atoms, monkeypatch):
    path, _, _ = searched
    base = Base.read(path.parent / "toy.toml")

    def known(digest):
        monkeypatch.setattr(evaluate, "file_digest", lambda file: digest)
        with RecordFile(path.with_suffix("") / "candidates.jsonl", split_lines) as records:
            timing = TimingSection(**SEARCH["timing"])
            return Evaluator(base, timing, path.parent, records, silent).known

    assert not known("other")
    monkeypatch.undo()
    assert len(known(file_digest(path.parent / "toy.extxyz"))) == len(lines(path.with_suffix("")))


def test_frames_of_the_test_split_are_not_looked_at(atoms, tmp_path):
    path = prepared_folder(tmp_path, with_tests(atoms, {3, 7}))
    with RecordFile(tmp_path / "candidates.jsonl", split_lines) as records:
        base = Base.read(path.parent / "toy.toml")
        frames = Evaluator(base, TimingSection(), tmp_path, records, silent).frames
    assert len(frames) == len(atoms) - 2
    assert not {"frame/3", "frame/7"} & {f.source for f in frames}


def test_every_third_frame_of_each_family(atoms, tmp_path):
    path = prepared_folder(tmp_path, with_tests(atoms, {3, 7}))
    with RecordFile(tmp_path / "candidates.jsonl", split_lines) as records:
        base = Base.read(path.parent / "toy.toml")
        all_of_them, some = (
            Evaluator(base, TimingSection(), tmp_path, records, silent, every).frames
            for every in (1, 3)
        )
    for group in {f.group for f in all_of_them}:
        members = [f.source for f in all_of_them if f.group == group]
        assert [f.source for f in some if f.group == group] == members[::3]


def test_frames_that_the_bond_is_fitted_to_are_all_kept(atoms, tmp_path):
    path = prepared_folder(tmp_path, atoms)
    config = tomllib.loads((tmp_path / "toy.toml").read_text())
    config["bond"] = {**config.get("bond", {}), "groups": ["hcp"]}
    (tmp_path / "toy.toml").write_text(tomli_w.dumps(config))
    with RecordFile(tmp_path / "candidates.jsonl", split_lines) as records:
        base = Base.read(path.parent / "toy.toml")
        some = Evaluator(base, TimingSection(), tmp_path, records, silent, 3).frames
    kept = {group: sum(f.group == group for f in some) for group in ("hcp", "pa3")}
    assert kept == {"hcp": 6, "pa3": 2}


def test_families_held_out_by_name_are_the_ones_judged_by(atoms, tmp_path):
    group = {"kernel": {"values": {"environment.representatives": [4]}}}
    path = prepared_folder(tmp_path, atoms, group=group, rounds=1)
    config = tomllib.loads((tmp_path / "toy.toml").read_text())
    config["split"] = {"scheme": "families", "test": ["hcp", "pa3"]}
    (tmp_path / "toy.toml").write_text(tomli_w.dumps(config))
    result = search_from_config(path)
    for one in result.findings.candidates:
        assert [(r.group, r.frames) for r in one.rows] == [("hcp", 6), ("pa3", 6), ("all", 12)]


def test_a_fit_that_fails_is_one_candidate_less(atoms, tmp_path, monkeypatch):
    """It is on file with its reason, and the search goes on."""

    def fails(frames, config, progress):
        if config.environment.representatives == 4:
            raise DataError("No good.")
        return prepare_by_family(frames, config, progress)

    monkeypatch.setattr(evaluate, "prepare_by_family", fails)
    group = {"kernel": {"values": {"environment.representatives": [4, 16]}}}
    path = prepared_folder(tmp_path, atoms[:12], group=group, rounds=1)
    result = search_from_config(path)
    failures = [c.failure for c in result.findings.candidates]
    assert failures == ["", "No good.", ""]
    assert "- 1 (environment.representatives = 4): No good." in result.report.read_text()
    assert search_from_config(path).computed == 0


def test_command(searched):
    path, result, _ = searched
    done = CliRunner().invoke(main, ["search", str(path)])
    assert done.exit_code == 0, done.output
    assert "Pareto front" in done.output and str(result.config) in done.output
    assert f"0 candidates computed, {result.computed} before." in done.output


def test_a_knee_that_is_the_base_is_said_to_be(searched, monkeypatch):
    path, result, _ = searched
    at_base = replace(result.findings, knee=result.findings.base)
    monkeypatch.setattr(
        loop, "search_from_config", lambda *_: replace(result, findings=at_base, computed=0)
    )
    assert "Knee:   the base as it is\n" in CliRunner().invoke(main, ["search", str(path)]).output


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"colour": "red"}, ["unknown key 'colour'"]),
        ({"group": {}}, ["group"]),
        ({"group": {"a": {}}}, ["group.a", "to try"]),
        ({"group": {"a": {"values": {"pair.cutof": [1.0]}}}}, ["group.a", "'pair.cutof'"]),
        ({"group": {"a": {"values": {"data.files": [["x"]]}}}}, ["'data.files'"]),
        ({"group": {"a": {"values": {"pair": [1.0]}}}}, ["group.a", "'pair'"]),
        ({"group": {"a": {"values": {"pair.cutoff.b": [1.0]}}}}, ["group.a", "'pair.cutoff.b'"]),
        ({"group": {"a": {"values": {"environment.overlap.bow": [1.0]}}}}, ["overlap.bow'"]),
        ({"group": {"a": {"factors": {"environment.overlap.ridge": [2.0]}}}}, ["overlap.ridge"]),
        ({"group": {"a": {"factors": {"pair.cutoff": ["big"]}}}}, ["pair.cutoff 1", "number"]),
        ({"group": {"a": {"factors": {"bond.form": [2.0]}}}}, ["group a", "bond.form", "quartic"]),
        ({"group": {"a": {"factors": {"pair.damped_sines": [2.0]}}}}, ["pair.damped_sines"]),
        ({"group": {"a": {"values": {"pair.cutoff": [4.0, -1.0]}}}}, ["group a", "pair.cutoff"]),
        ({"group": {"a": {"together": [{"environment.gaussians": [1.0]}]}}}, ["group a", "4"]),
        (
            {"group": {"a": {"values": {"environment.inputs": [{"shell": 1.0}, {"charge": 1.0}]}}}},
            ["group a", "environment.inputs.charge'", "'shell'"],
        ),
        ({"group": {"a": {"factors": {"environment.inputs": [2.0]}}}}, ["environment.inputs"]),
        ({"score": {"energy": 0, "force": 0}}, ["score", "must count"]),
        ({"timing": {"phase": "ice"}}, ["timing.phase", "'ice'"]),
        ({"rounds": 0}, ["rounds"]),
        ({"base": "none.toml"}, ["none.toml"]),
    ],
)
def test_bad_configuration_is_one_sentence(changes, words, atoms, tmp_path):
    path = prepared_folder(tmp_path, atoms[:1], **changes)
    before = sorted(p.name for p in tmp_path.iterdir())
    done = CliRunner().invoke(main, ["search", str(path)])
    assert done.exit_code == 2 and "Traceback" not in done.output
    assert done.stderr.startswith("Error: ") and len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_missing_data_are_found_at_once(atoms, tmp_path):
    path = prepared_folder(tmp_path, atoms[:1])
    (tmp_path / "toy.extxyz").unlink()
    with pytest.raises(DataError, match=r"toy\.extxyz does not exist"):
        search_from_config(path)
    assert not path.with_suffix("").exists()


@pytest.mark.parametrize("name", ["report.md", "search.png", "toy-knee.toml"])
def test_files_of_others_are_not_replaced(atoms, tmp_path, name):
    path = prepared_folder(tmp_path, atoms[:1])
    path.with_suffix("").mkdir()
    (path.with_suffix("") / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"{name} is there already"):
        search_from_config(path)
    assert [p.read_text() for p in path.with_suffix("").iterdir()] == ["mine"]


@pytest.mark.parametrize("text", ["mine", "mine\n"])
def test_candidates_of_something_else_are_kept(atoms, tmp_path, text):
    path = prepared_folder(tmp_path, atoms[:1])
    path.with_suffix("").mkdir()
    file = path.with_suffix("") / "candidates.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=r"candidates.jsonl is of no search: line 1 is not"):
        search_from_config(path)
    assert file.read_text() == text


def test_two_searches_in_one_folder_are_refused(atoms, tmp_path):
    path = prepared_folder(tmp_path, atoms[:1])
    path.with_suffix("").mkdir()
    with RecordFile(path.with_suffix("") / "candidates.jsonl", split_lines):
        with pytest.raises(OutputExistsError, match="another run"):
            search_from_config(path)


# ---------------------------------------------------------------- what is tried


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "toy.toml"
    path.write_text(CONFIG)
    return Base.read(path)


def test_alternatives_start_from_the_best(base):
    group = GroupSection(
        values={"environment.whitening": [0.0, 1.0]},
        factors={
            "environment.prior": [0.5, 2.0],
            "environment.representatives": [1.3],
            "pair.gaussians": [1.1],
        },
        together=[{"pair.cutoff": 4, "environment.cutoff": 4}],
    )
    best = {"environment.prior": 3.0}
    found = list(alternatives(group, base, best, "here"))
    assert found == [
        {"environment.prior": 3.0, "environment.whitening": 0.0},
        {"environment.prior": 3.0, "environment.whitening": 1.0},
        {"environment.prior": 1.5},
        {"environment.prior": 6.0},
        {"environment.prior": 3.0, "environment.representatives": 26},
        {"environment.prior": 3.0, "pair.gaussians": [0.99, 1.54, 2.42, 3.3]},
        {"environment.prior": 3.0, "pair.cutoff": 4, "environment.cutoff": 4},
    ]


def test_what_changes_nothing_is_no_change(base):
    assert base.normal({"pair.cutoff": 4.5, "environment.prior": 1}) == {}
    assert base.normal({"pair.cutoff": 4, "environment.prior": 2}) == {
        "environment.prior": 2.0,
        "pair.cutoff": 4.0,
    }


def test_keys_of_tables_within_tables(base, tmp_path):
    overlap = {"support": 3.0, "widths": [0.8, 1.2, 1.8], "reach": 3.2, "inner": 2.4, "ridge": 0.1}
    settings = deepcopy(base.settings)
    settings["environment"]["overlap"] = overlap
    (tmp_path / "toy.toml").write_text(tomli_w.dumps(settings))
    there = Base.read(tmp_path / "toy.toml")
    group = GroupSection(
        factors={"environment.overlap.ridge": [2.0]},
        together=[{"environment.overlap.reach": 3.4, "environment.overlap.inner": 2.6}],
    )
    ridge, longer = map(there.normal, alternatives(group, there, {}, "here"))
    assert ridge == {"environment.overlap.ridge": 0.2}
    assert longer == {"environment.overlap.inner": 2.6, "environment.overlap.reach": 3.4}
    assert there.changed(longer).environment.overlap.basis().reach == 3.4
    assert there.normal({"environment.overlap.support": 3}) == {}
    (tmp_path / "changed.toml").write_text(tomli_w.dumps(there.toml(ridge, tmp_path)))
    found = read_config(tmp_path / "changed.toml").environment.overlap
    assert found.ridge == 0.2 and found.support == 3.0
    assert value_of(base.config, "environment.overlap.ridge") is None


def test_inputs_of_the_kernel_are_tried_as_wholes(base, tmp_path):
    """Which families, and how important each; in any order, and as a file can say it."""
    group = GroupSection(values={"environment.inputs": [{"shell": 1, "axial": 0.5}]})
    (found,) = alternatives(group, base, {"environment.inputs": {"S": 1.0}}, "here")
    assert base.normal(found) == {"environment.inputs": {"shell": 1.0, "axial": 0.5}}
    assert in_words(base.normal(found)) == "environment.inputs = {shell = 1, axial = 0.5}"
    (tmp_path / "toy.toml").write_text(tomli_w.dumps(base.toml(found, tmp_path)))
    changed = read_config(tmp_path / "toy.toml")
    assert changed.environment.spec().inputs == {"shell": 1.0, "axial": 0.5}
    default = base.config.environment.inputs
    assert base.normal({"environment.inputs": dict(reversed(default.items()))}) == {}


def test_a_factor_and_its_inverse_lead_back(base):
    group = GroupSection(factors={"environment.length_scale": [0.7]})
    (there,) = alternatives(group, base, {}, "here")
    back = GroupSection(factors={"environment.length_scale": [1 / 0.7]})
    (again,) = alternatives(back, base, there, "here")
    assert base.normal(again) == {}


def test_shipped_search_is_one(tmp_path):
    """Its base and all that it tries are valid."""
    path = files("ase_hmlp.training.configs") / "search-h2-pbe.toml"
    config = read_toml(path, SearchConfig)
    base = Base.read(Path(str(path)).parent / config.base)
    check(config, base, "search-h2-pbe.toml")
    groups = {"kernel", "overlap", "inputs", "cutoffs", "basis", "priors", "weights"}
    assert groups == set(config.group)


# ---------------------------------------------------------------- scores


def row(group, energy, force, frames=1, pressure=np.nan):
    return ErrorRow(group, frames, 8 * frames, energy, 0.0, force, 0.0, pressure, 0.0, 0.0)


def candidate(*rows, ratio=1.0):
    return Candidate("x", {}, (*rows, row("all", 0.0, 0.0)), ratio, 1.0)


def test_error_is_relative_by_family():
    base = candidate(row("a", 1.0, 10.0, 3), row("b", 4.0, 100.0, 1))
    other = candidate(row("a", 0.5, 10.0, 3), row("b", 4.0, 50.0, 1), ratio=4.0)
    alike = Judge(ScoreSection(price=0.1), base)
    assert alike.error(base) == pytest.approx(1.0)
    assert alike.error(other) == pytest.approx(0.5 * (0.75 + 0.75))
    assert alike.score(other) == pytest.approx(0.75 + 0.1 * 2.0)
    by_frames = Judge(ScoreSection(families="frames", force=3.0), base)
    assert by_frames.error(other) == pytest.approx((0.625 + 3.0 * 0.875) / 4.0)


def test_missing_labels_are_left_out():
    base = candidate(row("a", 1.0, 10.0), row("b", 1.0, 10.0, pressure=2.0))
    other = candidate(row("a", 1.0, 10.0), row("b", 1.0, 10.0, pressure=1.0))
    assert Judge(ScoreSection(pressure=2.0), base).error(other) == pytest.approx(0.75)
    nowhere = candidate(row("a", 1.0, 10.0))
    assert Judge(ScoreSection(pressure=2.0), nowhere).error(nowhere) == pytest.approx(1.0)


def test_a_failure_is_worse_than_anything():
    judge = Judge(ScoreSection(), candidate(row("a", 1.0, 1.0)))
    assert judge.score(Candidate("f", {}, failure="no")) == np.inf


def test_record_is_read_as_it_was_written():
    for one in (candidate(row("a", 1.5, 2.0)), Candidate("f", {"pair.cutoff": 4.0}, failure="no")):
        text = json.dumps(one.to_dict(), allow_nan=False)
        again = Candidate.from_dict(json.loads(text))
        np.testing.assert_equal(again.to_dict(), one.to_dict())
        assert isinstance(again.ratio, float) and len(again.rows) == len(one.rows)


# ---------------------------------------------------------------- front and knee


def test_front_of_points_made_by_hand():
    cost = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 1.5]
    error = [9.0, 5.0, 6.0, 5.0, 2.0, 2.5, 9.0]
    assert front(cost, error).tolist() == [0, 1, 4]


def test_equal_points_are_on_the_front_once():
    assert front([1.0, 1.0, 2.0], [3.0, 3.0, 3.0]).tolist() == [0]


def test_times_that_differ_by_noise_alone_are_equal():
    cost, error = [1.00, 1.01, 1.50, 1.51, 3.0], [5.0, 4.0, 2.0, 3.0, 1.0]
    assert front(cost, error).tolist() == [0, 1, 2, 4]
    assert front(cost, error, 0.02).tolist() == [1, 2, 4]
    assert front(cost, error, 0.6).tolist() == [2, 4]


def test_nothing_dominates_what_is_on_the_front():
    rng = np.random.default_rng(0)
    cost, error = rng.integers(1, 9, size=(2, 60))
    chosen = set(front(cost, error).tolist())
    for k in range(60):
        better = (cost <= cost[k]) & (error <= error[k]) & ((cost < cost[k]) | (error < error[k]))
        twin = (cost == cost[k]) & (error == error[k])
        assert (k in chosen) == (not better.any() and k == np.flatnonzero(twin)[0])


@pytest.mark.parametrize("x, y", [(1.0, 1.0), (30.0, 0.01)])
def test_knee_is_farthest_below_the_line_on_log_axes(x, y):
    # The line of the ends on log axes: error = 1000 / cost.
    cost, error = np.array([1.0, 2.0, 10.0, 1000.0]), np.array([1000.0, 400.0, 20.0, 1.0])
    assert knee(x * cost, y * error) == 2
    # On plain axes it would be another one.
    assert knee(cost, np.array([1000.0, 50.0, 20.0, 1.0])) == 1


def test_front_without_a_knee():
    assert knee([1.0], [1.0]) is None
    assert knee([1.0, 2.0], [2.0, 1.0]) is None
    assert knee([1.0, 10.0, 100.0], [100.0, 10.0, 1.0]) is None
    assert knee([1.0, 10.0, 100.0], [100.0, 50.0, 1.0]) is None


# ---------------------------------------------------------------- timing


def test_crystal_is_of_the_size_and_volume_asked_for():
    atoms = crystal(TimingSection(atoms=150, volume=3.0))
    assert 150 <= len(atoms) < 300
    assert atoms.get_volume() / len(atoms) == pytest.approx(3.0)


def test_more_work_takes_longer():
    atoms = crystal(TimingSection(atoms=48))
    small, large = toy_potential(environment=False, orientation=False), toy_potential()
    least = microseconds_per_atom([small, large], atoms, 5)
    assert 0.0 < least[0] < least[1]
