"""The model file: round trip, refusal of damaged, foreign and hostile files, clean failures."""

import copy
import dataclasses
import hashlib
import os
import pickle
import subprocess
import sys
import zlib

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_calculator import DOMAIN, toy_model
from toy_models import hcp, toy_potential

from ase_hmlp import HMLP, model_io
from ase_hmlp.errors import (
    ForeignModelError,
    ModelFileError,
    ModelNotFoundError,
    ModelVersionError,
    TruncatedModelError,
    UnsafeModelError,
)
from ase_hmlp.model_io import (
    SCHEMA,
    Domain,
    Model,
    available_models,
    load_model,
    model_hash,
    save_model,
)


@pytest.fixture
def path(tmp_path):
    return save_model(toy_model(), tmp_path / "toy.joblib")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return save_model(toy_model(), tmp_path_factory.mktemp("m") / "toy.joblib").read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path hypothesis may overwrite again and again."""
    return tmp_path_factory.mktemp("scratch") / "m.joblib"


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize(
    "potential",
    [
        toy_potential(),
        toy_potential(bond="morse", orientation=False, environment=False),
        toy_potential(pair=False, environment=False),
        toy_potential(pair=False, orientation=False, stretch_width=0.0),
        toy_potential(overlap=None),
    ],
    ids=["full", "morse-pair", "bond-orientation", "bond-environment", "no-overlap"],
)
def test_round_trip_is_exact(tmp_path, potential):
    model = toy_model(potential)
    again = load_model(save_model(model, tmp_path / "m.joblib"))
    results = []
    for m in (model, again):
        atoms = hcp(3.2, (2, 2, 1), seed=1, bond_spread=0.01)
        atoms.calc = HMLP(m, threads=1)
        atoms.get_potential_energy()
        sigma = atoms.calc.uncertainties() if m.has_deviations else None
        results.append((atoms.calc.results, atoms.calc.levels, sigma))
    assert model.has_deviations == again.has_deviations == (potential.environment is not None)
    for key, value in results[0][0].items():
        assert np.array_equal(value, results[1][0][key]), key
    assert results[0][1] == results[1][1]
    assert np.array_equal(results[0][2], results[1][2])
    assert again.potential.stretch == model.potential.stretch
    for level in ("pair", "orientation", "environment"):
        one, two = (getattr(m.potential, level) for m in (model, again))
        assert (one is None) == (two is None)
        assert one is None or one.basis == two.basis
        assert getattr(one, "overlap", None) == getattr(two, "overlap", None)
    assert again.domain == model.domain
    assert (again.name, again.training, again.errors) == ("toy", model.training, model.errors)
    assert again.package_version == model.package_version


def test_numpy_numbers_and_tuples_become_plain(tmp_path):
    training = {"n": np.int64(3), "x": np.float32(0.5), "ok": np.bool_(True), "t": (1, (2.0,))}
    again = load_model(
        save_model(dataclasses.replace(toy_model(), training=training), tmp_path / "m")
    )
    assert again.training == {"n": 3, "x": 0.5, "ok": True, "t": [1, [2.0]]}
    assert [type(again.training[k]) for k in ("n", "x", "ok")] == [int, float, bool]


def test_arrays_in_training_keep_type_and_values(tmp_path):
    curve = np.arange(6, dtype=np.int32).reshape(2, 3)
    model = dataclasses.replace(
        toy_model(), training={"curve": curve, "f": np.asfortranarray(curve)}
    )
    again = load_model(save_model(model, tmp_path / "m")).training
    assert again["curve"].dtype == np.int32
    assert np.array_equal(again["curve"], curve)
    assert np.array_equal(again["f"], curve)


def test_uncompressed_dump_loads_too(tmp_path):
    path = tmp_path / "raw.joblib"
    joblib.dump(toy_model().to_dict(), path, compress=0)
    assert load_model(path).domain == DOMAIN


def test_hash_is_of_the_file_and_files_are_reproducible(path, tmp_path):
    other = save_model(toy_model(), tmp_path / "other.joblib")
    assert model_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest() == model_hash(other)


def test_model_copies_share_arrays_and_pickle_works():
    model = toy_model()
    model.potential.environment.regressor.machine  # noqa: B018  (made: a copy must drop it)
    model.potential.interaction  # noqa: B018
    assert copy.deepcopy(model) is model
    again = pickle.loads(pickle.dumps(model))
    atoms = [hcp(3.2, (2, 2, 1), seed=1) for _ in range(2)]
    for a, m in zip(atoms, (model, again), strict=True):
        a.calc = HMLP(m, threads=1)
    assert np.array_equal(atoms[0].get_forces(), atoms[1].get_forces())


# ---------------------------------------------------------------- finding


def test_shipped_models_are_found_by_name(path, tmp_path, monkeypatch):
    shipped = tmp_path / "models"
    shipped.mkdir()
    for name in ("b-model", "a-model"):
        (shipped / f"{name}.joblib").write_bytes(path.read_bytes())
    monkeypatch.setattr(model_io, "SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-model").write_text("not a model")  # a file here must not shadow the name
    assert available_models() == ["a-model", "b-model"]
    assert load_model("a-model").name == "toy"
    assert HMLP("b-model").model.name == "toy"
    with pytest.raises(ModelNotFoundError, match=r"'c-model'.*a-model, b-model"):
        load_model("c-model")


def test_paths_as_strings_and_objects(path):
    assert load_model(str(path)).name == load_model(path).name == "toy"


def test_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.joblib"):
        load_model(tmp_path / "nowhere.joblib")


# ---------------------------------------------------------------- writing


def _write_half_and_raise(error):
    def dump(value, file, **_):
        file.write(b"x\x9chalf")
        raise error

    return dump


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, error):
    before = path.read_bytes()
    monkeypatch.setattr(joblib, "dump", _write_half_and_raise(error))
    with pytest.raises(type(error)):
        save_model(toy_model(), path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_save_refuses_what_would_not_load(tmp_path):
    potential = toy_potential()
    potential.environment.regressor.alpha[3] = np.nan
    with pytest.raises(ForeignModelError, match="environment regressor: alpha is not finite"):
        save_model(toy_model(potential), tmp_path / "m.joblib")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), r"\['x'\] is of type object"),
        ({"y": {1, 2}}, r"\['x'\]\['y'\] is of type set"),
        ([b"bytes"], r"\['x'\]\[0\] is of type bytes"),
        (np.array([None]), r"\['x'\] is of type ndarray"),
        ({3: 4}, r"\['x'\] has the key 3"),
    ],
)
def test_save_refuses_what_is_not_plain(tmp_path, value, where):
    model = dataclasses.replace(toy_model(), training={"x": value})
    with pytest.raises(TypeError, match=where):
        save_model(model, tmp_path / "m.joblib")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- damage


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_truncation_is_called_one(data, packed, scratch):
    scratch.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(TruncatedModelError, match=r"m\.joblib"):
        load_model(scratch)


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5])
def test_missing_checksum_is_noticed(missing, packed, scratch):
    """The model is all there without the last four bytes, but nothing vouches for it."""
    scratch.write_bytes(packed[:-missing])
    with pytest.raises(TruncatedModelError, match=r"m\.joblib ends early"):
        load_model(scratch)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_truncated_uncompressed_files_are_called_that(data, packed, scratch):
    raw = zlib.decompress(packed)
    scratch.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(TruncatedModelError, match=r"m\.joblib"):
        load_model(scratch)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_noticed(data, packed, scratch):
    damaged = bytearray(packed)
    # The first two bytes say what kind of file it is; without them it is not ours.
    damaged[data.draw(st.integers(2, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    scratch.write_bytes(damaged)
    with pytest.raises(TruncatedModelError, match=r"m\.joblib"):
        load_model(scratch)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bits_without_a_checksum_raise_nothing_foreign(data, packed, scratch):
    raw = bytearray(zlib.decompress(packed))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    scratch.write_bytes(raw)
    try:
        model = load_model(scratch)
    except ModelFileError as exc:
        assert str(scratch) in str(exc)
    else:
        assert isinstance(model, Model)  # the bit was in a number or a name


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=200), start=st.sampled_from([b"", b"\x80\x04", b"\x78\x9c"]))
def test_noise_raises_nothing_foreign(noise, start, scratch):
    scratch.write_bytes(start + noise)
    with pytest.raises(ModelFileError, match=r"m\.joblib"):
        load_model(scratch)


# ---------------------------------------------------------------- foreign files


def _text(path):
    path.write_text("xy" * 40)


def _trajectory(path):
    path.write_text("2\nenergy=1\nH 0 0 0\nH 0 0 0.74\n")


def _folder(path):
    path.mkdir()


def _plain_list(path):
    path.write_bytes(pickle.dumps([1, 2, 3]))


def _other_dict(path):
    joblib.dump({"format": "something else", "x": np.ones(3)}, path, compress=3)


def _array_as_format(path):
    joblib.dump({"format": np.array(["ase_hmlp model"] * 2) == "x"}, path, compress=3)


def _gzip(path):
    joblib.dump(toy_model().to_dict(), path, compress=("gzip", 3))


def _legacy_joblib(path):
    path.write_bytes(b"ZF0x10              " + zlib.compress(pickle.dumps({})))


def _appended(path):
    joblib.dump(toy_model().to_dict(), path, compress=3)
    path.write_bytes(path.read_bytes() + b"more")


FOREIGN = [
    _text,
    _trajectory,
    _folder,
    _plain_list,
    _other_dict,
    _array_as_format,
    _gzip,
    _legacy_joblib,
    _appended,
]


@pytest.mark.parametrize("write", FOREIGN)
def test_foreign_files(tmp_path, write):
    write(tmp_path / "m.joblib")
    with pytest.raises(ForeignModelError, match=r"m\.joblib"):
        load_model(tmp_path / "m.joblib")


def test_empty_file_is_truncated(tmp_path):
    (tmp_path / "m.joblib").touch()
    with pytest.raises(TruncatedModelError, match=r"m\.joblib is empty"):
        load_model(tmp_path / "m.joblib")


@pytest.mark.parametrize(
    ("schema", "age"), [(0, "older"), (SCHEMA - 1, "older"), (SCHEMA + 1, "newer")]
)
def test_other_schema_versions(tmp_path, schema, age):
    data = toy_model().to_dict() | {"schema": schema, "package_version": "9.9", "extra": 1}
    joblib.dump(data, tmp_path / "m.joblib", compress=3)
    with pytest.raises(ModelVersionError, match=rf"m.joblib is of schema {schema}, {age} .* 9\.9"):
        load_model(tmp_path / "m.joblib")


# ---------------------------------------------------------------- the schema


def _at(*keys):
    def edit(data, value):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


REGRESSOR = ("potential", "environment", "regressor")
STRETCH = ("potential", "stretch")
BASIS = ("potential", "orientation", "basis")
ENVIRONMENT = ("potential", "environment", "basis")
OVERLAP = ("potential", "environment", "overlap")


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("schema",), "1", "schema version is no number"),
        (("schema",), True, "schema version is no number"),
        (("name",), 3, "name is no string"),
        (("units",), {"energy": "Ha"}, "units are"),
        (("surplus",), 1, "the file has the unknown surplus"),
        (("potential", "e0"), "low", "e0 is 'low', not a finite number"),
        (("potential", "e0"), float("nan"), "e0 is nan"),
        (("potential", "e0"), True, "e0 is True"),
        (("potential", "e0"), 10**30, "more than 64 bits"),
        (("potential", "bond"), None, "bond is no dict"),
        (("potential", "bond", "form"), "cubic", "unknown bond form"),
        (("potential", "bond", "form"), ["morse"], "unknown bond form"),
        (("potential", "bond", "form"), "morse", "two parameters"),
        (("potential", "bond", "parameters"), [], "no parameters"),
        (("potential", "bond", "parameters"), [1.0] * 13, "at most 12 coefficients"),
        (("potential", "bond", "lower"), 2.0, "lower is not below"),
        ((*REGRESSOR, "alpha"), np.ones(19), r"alpha has shape \(19,\), not \(20,\)"),
        ((*REGRESSOR, "alpha"), [1.0] * 20, "alpha is no array"),
        ((*REGRESSOR, "alpha"), np.ones(20, dtype=int), "alpha is of type int64"),
        ((*REGRESSOR, "alpha"), np.full(20, np.inf), "alpha is not finite"),
        ((*REGRESSOR, "transform"), np.ones(8), "transform is no matrix"),
        ((*REGRESSOR, "variance"), np.ones((20, 19)), "variance has shape"),
        ((*REGRESSOR, "stretch_width"), -0.1, "stretch_width is negative"),
        ((*BASIS, "cutoff"), 0.0, "ascending order"),
        ((*BASIS, "cutoff"), 1e9, "ascending order"),
        ((*BASIS, "inner"), 2.0, "ascending order"),
        ((*BASIS, "spacing"), 0.01, "orientation basis has the unknown spacing"),
        ((*BASIS, "functions"), None, "orientation basis has no functions"),
        ((*BASIS, "functions"), [], r"coefficients has shape \(6, 4\), not \(6, 0\)"),
        (
            (*ENVIRONMENT, "functions"),
            [],
            "environment basis has 0 functions, not 13",
        ),
        (("potential", "environment"), [], "environment is no dict"),
        (OVERLAP, 3, "environment overlap is no dict"),
        (OVERLAP, [], "environment overlap is no dict"),
        ((*OVERLAP, "charge"), 1.0, "environment overlap has the unknown charge"),
        ((*OVERLAP, "widths"), 0.8, "environment overlap: widths are not 3"),
        ((*OVERLAP, "widths"), [0.8, 1.2], "environment overlap: widths are not 3"),
        ((*OVERLAP, "widths"), [0.8, 1.2, "1"], "environment overlap widths is '1', not a finite"),
        ((*OVERLAP, "widths"), [0.8, 1.2, 0.0], "environment overlap: a width is not above 0"),
        ((*OVERLAP, "freeze"), [0.9, 1.2, 1.3], "environment overlap: freeze are not 2"),
        ((*OVERLAP, "freeze"), [0.9, float("nan")], "environment overlap freeze is nan"),
        ((*OVERLAP, "freeze"), [1.2, 0.9], "what freezes is not within reach"),
        ((*OVERLAP, "freeze"), [-0.1, 0.9], "what freezes is not within reach"),
        ((*OVERLAP, "freeze"), [0.9, 3.2], "what freezes is not within reach"),
        ((*OVERLAP, "support"), "2", "environment overlap support is '2', not a finite number"),
        ((*OVERLAP, "support"), 0.0, "environment overlap: the support is not above 0"),
        ((*OVERLAP, "ridge"), None, "environment overlap ridge is None, not a finite number"),
        ((*OVERLAP, "ridge"), -0.01, "environment overlap: the ridge is below 0"),
        ((*OVERLAP, "inner"), float("inf"), "environment overlap inner is inf"),
        ((*OVERLAP, "inner"), -0.1, "inner and reach do not ascend to 20 Å"),
        ((*OVERLAP, "inner"), 3.2, "inner and reach do not ascend to 20 Å"),
        ((*OVERLAP, "reach"), True, "environment overlap reach is True, not a finite number"),
        ((*OVERLAP, "reach"), 20.1, "inner and reach do not ascend to 20 Å"),
        (("potential", "environment", "regressor"), None, "environment has no regressor"),
        (("potential", "environment", "basis"), 3, "environment has no basis"),
        (("potential", "pair", "coefficients"), np.ones((4, 6)), r"shape \(4, 6\), not \(4, 7\)"),
        (("potential", "pair", "coefficients"), np.ones(28), r"shape \(28,\), not \(4, 7\)"),
        (("potential", "pair", "coefficients"), [1.0], "pair: coefficients is no array"),
        (("potential", "orientation", "coefficients"), np.full((6, 4), np.nan), "not finite"),
        (("potential", "orientation", "regressor"), {}, "orientation has the unknown regressor"),
        (STRETCH, None, "stretch is no dict"),
        ((*STRETCH, "r0"), "0.74", "stretch r0 is '0.74', not a finite number"),
        ((*STRETCH, "high"), float("inf"), "stretch high is inf"),
        ((*STRETCH, "high"), 0.70, "leave nothing between them"),
        ((*STRETCH, "margin"), 0.0, "leave nothing between them"),
        ((*STRETCH, "low"), -0.1, "leave nothing between them"),
        ((*STRETCH, "width"), 1.0, "stretch has the unknown width"),
        ((*BASIS, "functions", 0, "kind"), "magic", "unknown kind 'magic'"),
        ((*BASIS, "functions", 0, "a"), 0.0, "gaussian has a = 0.0"),
        ((*ENVIRONMENT, "functions", 12, "b"), 0.0, "shell has b = 0.0, not above 0"),
        ((*BASIS, "functions", 0), None, "a function is no dict"),
        (("domain", "volume"), [2.0, 1.0], "volume must be finite, the lower first"),
        (("domain", "volume"), [2.0], "volume is no pair"),
        (("domain", "volume"), [2.0, float("inf")], "domain volume is inf"),
        (("domain", "contact"), 0.1, "contact_limit 0.6 and contact 0.1"),
        (("domain", "bond_length"), [0.4, 0.8], "is not in bond_limits"),
        (("training", "x"), {"y": b"bytes"}, "holds a bytes"),
    ],
)
def test_schema_violations_are_named(tmp_path, keys, value, sentence):
    data = copy.deepcopy(toy_model().to_dict())
    _at(*keys)(data, value)
    joblib.dump(data, tmp_path / "m.joblib", compress=3)
    with pytest.raises(ForeignModelError, match=sentence) as caught:
        load_model(tmp_path / "m.joblib")
    assert "m.joblib" in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        ("domain",),
        ("errors",),
        ("potential", "e0"),
        ("potential", "environment"),
        (*STRETCH, "margin"),
        ("potential", "pair", "coefficients"),
        OVERLAP,
        (*OVERLAP, "ridge"),
        (*REGRESSOR, "linear"),
        (*BASIS, "inner"),
    ],
    ids=".".join,
)
def test_missing_keys_are_named(tmp_path, keys):
    data = copy.deepcopy(toy_model().to_dict())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    joblib.dump(data, tmp_path / "m.joblib", compress=3)
    with pytest.raises(ForeignModelError, match=f"lacks {keys[-1]}"):
        load_model(tmp_path / "m.joblib")


def test_files_from_before_the_exponent_have_one(tmp_path):
    data = copy.deepcopy(toy_model().to_dict())
    regressor = data["potential"]["environment"]["regressor"]
    for value, expected in ((2.5, 2.5), (None, 1.0)):
        regressor["exponent"] = value
        if value is None:
            del regressor["exponent"]
        joblib.dump(data, tmp_path / "m.joblib", compress=3)
        found = load_model(tmp_path / "m.joblib").potential.environment.regressor
        assert found.exponent == expected


@pytest.mark.parametrize("n", [53, 60, 62])
def test_regressor_must_take_the_fingerprints_there_are(tmp_path, n):
    data = copy.deepcopy(toy_model().to_dict())
    regressor = data["potential"]["environment"]["regressor"]
    regressor["transform"] = np.ones((5, n))
    regressor["linear"] = regressor["linear_stretch"] = np.ones(n)
    joblib.dump(data, tmp_path / "m.joblib", compress=3)
    with pytest.raises(
        ForeignModelError, match=f"there are 265 fingerprints, its regressor has {n}"
    ):
        load_model(tmp_path / "m.joblib")


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("volume", (3.0, 2.0), "volume must be finite, the lower first"),
        ("volume", (-1.0, 2.0), "must be positive"),
        ("pressure", (0.0, np.nan), "pressure must be finite"),
        ("bond_length", (0.4, 0.9), "is not in bond_limits"),
        ("bond_length", (0.6, 1.2), "is not in bond_limits"),
        ("contact", np.nan, "contact nan must be finite"),
        ("contact_limit", 1.0, "in ascending order"),
    ],
)
def test_impossible_domains(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(DOMAIN, **{field: value})


def test_domain_round_trip():
    assert Domain.from_dict(DOMAIN.to_dict()) == DOMAIN


# ---------------------------------------------------------------- hostile files


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Restored:
    """Pickles as a class of ours that acts when its state is set."""

    def __init__(self, trace):
        self.trace = trace

    def __setstate__(self, state):
        open(state["trace"], "w").close()


class Sneaky(np.ndarray):
    """An array subclass, which joblib would rebuild by calling it."""


def _opcodes(body):
    return b"\x80\x02" + body + b"."


def _touch(trace):
    return f"open({str(trace)!r}, 'w').close()"


def _in_model(value):
    data = toy_model().to_dict()
    data["training"] = {"payload": value}
    return data


def _dumped(value, tmp_path):
    joblib.dump(value, tmp_path / "raw", compress=0)
    return (tmp_path / "raw").read_bytes()


def _plain_text(trace):
    return str(trace).encode()


HOSTILE = {
    "os.system": lambda t, d: _dumped(_in_model(Calls(os.system, f"touch {t}")), d),
    "builtins.eval": lambda t, d: _dumped(_in_model(Calls(eval, _touch(t))), d),
    "builtins.getattr": lambda t, d: _dumped(_in_model(Calls(getattr, np.ndarray, "tofile")), d),
    "subprocess.Popen": lambda t, d: _dumped(Calls(subprocess.Popen, ["touch", str(t)]), d),
    "object array": lambda t, d: _dumped(
        _in_model(np.array([Calls(os.system, f"touch {t}")], dtype=object)), d
    ),
    "record with an object": lambda t, d: _dumped(
        _in_model(np.array([(Calls(eval, _touch(t)),)], dtype=[("a", object)])), d
    ),
    "our class": lambda t, d: _dumped(_in_model(Restored(str(t))), d),
    "array subclass": lambda t, d: _dumped(_in_model(np.zeros(3).view(Sneaky)), d),
    "matrix": lambda t, d: _dumped(_in_model(np.matrix([[1.0]])), d),
    "calculator": lambda t, d: _dumped(_in_model(HMLP(toy_model())), d),
    "numpy scalar": lambda t, d: _dumped(_in_model(np.float64(1.0)), d),
    "numpy.load": lambda t, d: _dumped(_in_model(Calls(np.load, str(t))), d),
    "old joblib array": lambda t, d: _opcodes(
        b"cjoblib.numpy_pickle_compat\nNDArrayWrapper\n)\x81}X\x08\x00\x00\x00filename"
        b"X\x01\x00\x00\x00xsb"
    ),
    "dotted name": lambda t, d: (
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93\x8c"
        + bytes([len(_plain_text(t))])
        + _plain_text(t)
        + b"\x85R."
    ),
    "module through numpy": lambda t, d: b"\x80\x04\x8c\x05numpy\x8c\x09f2py.os.x\x93.",
    "call of numpy.ndarray": lambda t, d: _opcodes(b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R"),
    "new numpy.ndarray": lambda t, d: _opcodes(b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85\x81"),
    "dtype object": lambda t, d: _opcodes(b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"),
    "dtype from a dict": lambda t, d: _opcodes(b"cnumpy\ndtype\n}\x85R"),
    "state on a class": lambda t, d: _opcodes(
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\nN}X\x04\x00\x00\x00readNs\x86b"
    ),
    "state on a type": lambda t, d: _opcodes(b"cnumpy\nndarray\n}b"),
    "INST": lambda t, d: b"(S'" + _touch(t).replace("'", '"').encode() + b"'\nibuiltins\neval\n.",
    "OBJ": lambda t, d: b"(cposix\nsystem\nS'touch " + _plain_text(t) + b"'\no.",
    "OBJ of an allowed class": lambda t, d: _opcodes(b"(cnumpy\nndarray\nK\x03o"),
    "EXT1": lambda t, d: _opcodes(b"\x82\x01"),
    "PERSID": lambda t, d: b"Pname\n.",
    "BINPERSID": lambda t, d: _opcodes(b"NQ"),
    "NEWOBJ_EX": lambda t, d: b"\x80\x04cnumpy\nndarray\nK\x03\x85}\x92.",
    "huge bytearray": lambda t, d: b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "set": lambda t, d: _dumped(_in_model({1, 2}), d),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("compressed", [True, False], ids=["zlib", "raw"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(tmp_path, name, compressed):
    trace = tmp_path / "trace"
    stream = HOSTILE[name](trace, tmp_path)
    path = tmp_path / "m.joblib"
    if not compressed and not stream.startswith(b"\x80"):
        stream = b"\x80\x02" + stream
    path.write_bytes(zlib.compress(stream) if compressed else stream)
    with pytest.raises(UnsafeModelError, match=r"m\.joblib was refused, and nothing in it was run"):
        load_model(path)
    assert not trace.exists()
    assert callable(joblib.numpy_pickle.NumpyArrayWrapper.read)  # not replaced through its state


def test_hostile_streams_would_have_worked_elsewhere(tmp_path):
    """The attack the refusals are tested with does run under a plain unpickler."""
    trace = tmp_path / "trace"
    for name in ("os.system", "builtins.eval", "object array", "our class", "INST", "OBJ"):
        stream = HOSTILE[name](trace, tmp_path)
        (tmp_path / "m.joblib").write_bytes(stream)
        joblib.load(tmp_path / "m.joblib")
        assert trace.exists(), name
        trace.unlink()


def test_unsafe_error_names_what_was_asked_for(tmp_path):
    joblib.dump(Calls(os.getcwd), tmp_path / "m.joblib", compress=3)
    with pytest.raises(UnsafeModelError, match=rf"needs {os.getcwd.__module__}\.getcwd"):
        load_model(tmp_path / "m.joblib")


def test_array_header_alone_cannot_allocate(tmp_path):
    small = _dumped({"a": np.zeros((1, 70000))}, tmp_path)
    # 70000 as BININT becomes 2^31 - 1: 16 GiB of float64.
    header = b"J" + (70000).to_bytes(4, "little")
    assert small.count(header) == 1
    path = tmp_path / "m.joblib"
    path.write_bytes(zlib.compress(small.replace(header, b"J\xff\xff\xff\x7f")))
    with pytest.raises(TruncatedModelError, match="ends early"):
        load_model(path)


def test_small_file_cannot_unpack_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(model_io, "LARGEST", 2**16)
    path = tmp_path / "m.joblib"
    path.write_bytes(zlib.compress(bytes(2**20)))
    with pytest.raises(ForeignModelError, match="unpacks to more than"):
        load_model(path)


def test_cycles_are_refused(tmp_path):
    data = toy_model().to_dict()
    data["training"]["again"] = data["training"]
    joblib.dump(data, tmp_path / "m.joblib", compress=3)
    with pytest.raises(ForeignModelError, match="nested without end"):
        load_model(tmp_path / "m.joblib")


def test_exponential_nesting_is_refused(tmp_path):
    nest = [0]
    for _ in range(25):
        nest = [nest, nest]
    joblib.dump(_in_model(nest), tmp_path / "m.joblib", compress=3)
    with pytest.raises(ForeignModelError, match="nested without end"):
        load_model(tmp_path / "m.joblib")


# ---------------------------------------------------------------- imports


def test_importing_the_calculator_stays_light(tmp_path):
    code = (
        "import sys; from ase_hmlp import HMLP; "
        "print([m for m in ('sklearn', 'joblib', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert out.stdout.strip() == "[]"
