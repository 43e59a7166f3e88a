"""The model file: what is in it, how it is written, and how it is read without running anything.

A model file is one zlib-compressed joblib dump of a plain dict::

    {"format": "ase_hmlp model", "schema": 6, "package_version": str, "name": str,
     "units": {"energy": "eV", "length": "angstrom", "pressure": "GPa"},
     "potential": Potential.to_dict(), "domain": {...}, "training": {...}, "errors": {...}}

Everything in it is a dict with string keys, a list, a string, a number, a truth value, None or a
numeric array; nothing else is written and nothing else is read.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np

from ase_hmlp import __version__
from ase_hmlp._core.levels import N_FINGERPRINTS
from ase_hmlp.errors import (
    ForeignModelError,
    ModelFileError,
    ModelNotFoundError,
    ModelVersionError,
    TruncatedModelError,
    UnsafeModelError,
)
from ase_hmlp.files import write_whole
from ase_hmlp.fingerprints import (
    N_DENSITIES,
    N_SHELLS,
    ORIENTATION_NAMES,
    RADIAL_KINDS,
    STRETCH_NAMES,
)
from ase_hmlp.levels import BOND_FORMS
from ase_hmlp.potential import Potential

FORMAT = "ase_hmlp model"

#: Version of the file's layout; raised whenever an older reader would misunderstand a new file.
SCHEMA = 6

UNITS = {"energy": "eV", "length": "angstrom", "pressure": "GPa"}

#: Where the shipped models are. The package has compiled modules and is never run from a zip.
SHIPPED = Path(__file__).with_name("models")

#: No model comes near; a small file that unpacks to more is not a model.
LARGEST = 2**31

#: Radial functions of a level; a table holds them all at every node.
MOST_FUNCTIONS = 256

#: Entries and nesting of a model's dict; a file with more is built to exhaust the reader.
MOST_ENTRIES, DEEPEST = 1_000_000, 32


@dataclass(frozen=True)
class Domain:
    """What the training data covers; the calculator warns outside it and refuses beyond limits.

    Attributes
    ----------
    volume : (lo, hi), Å³/atom
    pressure : (lo, hi), GPa
    bond_length : (lo, hi), Å, seen in training in solids and liquids
    bond_limits : (lo, hi), Å, beyond which an energy means nothing
    contact : float, Å
        Shortest distance between atoms of different molecules that was labelled.
    contact_limit : float, Å
        Shortest such distance at which an energy still means something.
    """

    volume: tuple[float, float]
    pressure: tuple[float, float]
    bond_length: tuple[float, float]
    bond_limits: tuple[float, float]
    contact: float
    contact_limit: float

    def __post_init__(self):
        for name in ("volume", "pressure", "bond_length", "bond_limits"):
            low, high = (float(x) for x in getattr(self, name))
            object.__setattr__(self, name, (low, high))
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"{name} must be finite, the lower first: {low}, {high}")
        for name in ("contact", "contact_limit"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.volume[0] <= 0.0 or self.bond_limits[0] <= 0.0:
            raise ValueError("volumes and bond lengths must be positive")
        if not (
            self.bond_limits[0] <= self.bond_length[0]
            and self.bond_length[1] <= self.bond_limits[1]
        ):
            raise ValueError(
                f"bond_length {self.bond_length} is not in bond_limits {self.bond_limits}"
            )
        if not 0.0 <= self.contact_limit <= self.contact < np.inf:
            raise ValueError(
                f"contact_limit {self.contact_limit} and contact {self.contact} must be finite and "
                "in ascending order"
            )

    def to_dict(self) -> dict:
        """Plain numbers, for the model file."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> Domain:
        """Inverse of `to_dict`."""
        return cls(**data)


@dataclass(frozen=True, eq=False)
class Model:
    """A potential and what is known about it. Not to be changed once made: copies share it.

    Attributes
    ----------
    potential : Potential
    domain : Domain
    name : str
    training : dict
        Where the model comes from (data files and their hashes, settings); plain values.
    errors : dict
        Errors on the held-out split; plain values.
    package_version : str
        Version of this package that made the model.
    """

    potential: Potential
    domain: Domain
    name: str = "unnamed"
    training: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)
    package_version: str = __version__

    @property
    def schema(self) -> int:
        """Version of the file layout this model is written in."""
        return SCHEMA

    @property
    def has_deviations(self) -> bool:
        """Whether there is the matrix that predictive variances need."""
        environment = self.potential.environment
        return environment is not None and environment.regressor.variance is not None

    @property
    def uncertainty_threshold(self) -> float | None:
        """Deviation of an atom's energy (eV) above which the calculator warns, if it is known."""
        value = self.errors.get("reliability", {}).get("threshold")
        return float(value) if isinstance(value, int | float) else None

    def __deepcopy__(self, memo):
        # ASE deep-copies calculators; the arrays are megabytes and never change.
        return self

    def to_dict(self) -> dict:
        """Give the dict the file holds: plain arrays, numbers and strings.

        Raises
        ------
        TypeError
            If `training` or `errors` hold anything else.
        """
        return _plain(
            {
                "format": FORMAT,
                "schema": SCHEMA,
                "package_version": self.package_version,
                "name": self.name,
                "units": dict(UNITS),
                "potential": self.potential.to_dict(),
                "domain": self.domain.to_dict(),
                "training": self.training,
                "errors": self.errors,
            }
        )

    @classmethod
    def from_dict(cls, data: dict, source: str = "the model") -> Model:
        """Inverse of `to_dict`, checking everything.

        Parameters
        ----------
        data : dict
        source : str
            What to call the data in errors, such as its path.

        Raises
        ------
        ForeignModelError
            If something is missing, superfluous, of another type or shape, not finite or not
            in order.
        ModelVersionError
            If the data follow another schema.
        """
        try:
            return _model_from_dict(data)
        except ModelVersionError as exc:
            raise ModelVersionError(f"{source} {exc}") from None
        except _Malformed as exc:
            raise ForeignModelError(f"{source} is not a usable model: {exc}.") from exc


# ---------------------------------------------------------------- finding, reading, writing


def available_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.joblib"))


def model_path(name_or_path) -> Path:
    """Path of a shipped model's file, by name, or of any other model file.

    Raises
    ------
    ModelNotFoundError
        If there is neither; the message lists the shipped names.
    """
    shipped = available_models()
    if isinstance(name_or_path, str) and name_or_path in shipped:
        return SHIPPED / f"{name_or_path}.joblib"
    path = Path(name_or_path)
    if not path.exists():
        raise ModelNotFoundError(
            f"There is no model {str(name_or_path)!r}: it is no file, and the models shipped with "
            f"the package are {', '.join(shipped) or 'none'}."
        )
    return path


def model_hash(name_or_path) -> str:
    """SHA-256 of a model file, in hexadecimal."""
    return hashlib.sha256(model_path(name_or_path).read_bytes()).hexdigest()


def load_model(name_or_path) -> Model:
    """Read a model file; runs nothing that is in it and checks all of it.

    Parameters
    ----------
    name_or_path : str or path
        Name of a shipped model (see `available_models`) or path of a file.

    Raises
    ------
    ModelNotFoundError, TruncatedModelError, ForeignModelError, ModelVersionError, UnsafeModelError
        All of them `ModelFileError`; each message names the file.
    """
    path = model_path(name_or_path)
    if not path.is_file():
        raise ForeignModelError(f"{path} is not a file.")
    try:
        packed = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read: {exc.strerror}.") from exc
    return Model.from_dict(_unpickle(_unpack(packed, path), path), str(path))


def save_model(model: Model, path) -> Path:
    """Write a model file: all of it, or nothing.

    Parameters
    ----------
    model : Model
    path : str or path
        An existing file is replaced in one step.

    Returns
    -------
    Path

    Raises
    ------
    TypeError
        If the model holds anything but plain values and numeric arrays.
    ForeignModelError
        If the model would be refused on reading.
    """
    import joblib

    path = Path(path)
    data = model.to_dict()
    Model.from_dict(data, "The model to be saved")
    stream = io.BytesIO()
    joblib.dump(data, stream, compress=("zlib", 6), protocol=4)
    return write_whole(path, stream.getvalue())


def _unpack(packed: bytes, path: Path) -> bytes:
    """Decompress a file; the checksum at its end vouches for every byte."""
    if not packed:
        raise TruncatedModelError(f"{path} is empty.")
    if packed[:1] == b"\x80":  # a pickle that was not compressed
        return packed
    if packed[:1] != b"x" or (len(packed) > 1 and int.from_bytes(packed[:2], "big") % 31):
        raise ForeignModelError(f"{path} is not a model of this package: it is no joblib file.")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, LARGEST)
    except (zlib.error, MemoryError) as exc:
        raise TruncatedModelError(f"{path} is damaged: {exc}.") from exc
    if stream.unconsumed_tail:
        raise ForeignModelError(f"{path} unpacks to more than {LARGEST >> 20} MiB: no model does.")
    if not stream.eof:
        raise TruncatedModelError(f"{path} ends early.")
    if stream.unused_data:
        raise ForeignModelError(f"{path} goes on after the end of its model.")
    return data


def _unpickle(data: bytes, path: Path):
    """Rebuild what `_unpack` returned, from plain values and numeric arrays only."""
    file = io.BytesIO(data)
    try:
        return _unpickler()(file).load()
    except UnsafeModelError as exc:
        raise UnsafeModelError(
            f"{path} was refused, and nothing in it was run: unpickling it needs {exc}, and a "
            "model holds plain values and numeric arrays only."
        ) from None
    except Exception as exc:
        # A hostile or damaged stream can make the unpickler trip in any way.
        if isinstance(exc, EOFError) or file.tell() == len(data):
            raise TruncatedModelError(f"{path} ends early.") from exc
        raise ForeignModelError(
            f"{path} is not a model of this package: it cannot be unpickled "
            f"({type(exc).__name__}: {exc!s:.80})."
        ) from exc


# ---------------------------------------------------------------- the unpickler


class _Dtype:
    """Stands for ``numpy.dtype`` while unpickling: numbers only, and no shared dtype to alter."""

    def __init__(self, code, align=False, copy=False):
        if not (isinstance(code, str) and code in _DTYPES):
            raise UnsafeModelError(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if len(state) < 2 or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise UnsafeModelError(f"an array type with state {state!r}")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


_DTYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8", "b1"}

#: Opcodes that find code by other ways than a name, or that no plain value needs.
_REFUSED_OPCODES = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.BINPERSID, pickle.BYTEARRAY8, pickle.NEXT_BUFFER),
    *(pickle.READONLY_BUFFER, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
)


@cache
def _unpickler():
    """Make the unpickler class; done on first use, because joblib takes 0.1 s to import."""
    from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

    class Array(NumpyArrayWrapper):
        """joblib's array header, with everything in it checked before it is used."""

        def __init__(self):
            pass

        def __setstate__(self, state):
            dtype, shape = state["dtype"], state["shape"]
            if not isinstance(dtype, _Dtype):
                raise UnsafeModelError("an array without a type")
            if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
                raise UnsafeModelError(f"an array of shape {shape!r}")
            alignment = state.get("numpy_array_alignment_bytes")
            if alignment not in (None, 16) or state["order"] not in ("C", "F"):
                raise UnsafeModelError("an array stored in an unknown way")
            self.subclass, self.shape, self.order = np.ndarray, shape, state["order"]
            self.dtype, self.allow_mmap = dtype.dtype, False
            self.numpy_array_alignment_bytes = alignment

        def read(self, unpickler, ensure_native_byte_order):
            file = unpickler.file_handle
            size = self.dtype.itemsize
            for n in self.shape:
                size *= n
            # An array must be in the file: a header alone cannot make us allocate.
            if size > file.getbuffer().nbytes - file.tell():
                raise EOFError
            return super().read(unpickler, ensure_native_byte_order)

    # The only names a model needs. Classes are never handed out for the stream to alter: `Array`
    # and `_Dtype` check all they are given, and numpy.ndarray can be named but not called.
    allowed = {
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): Array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _Dtype,
    }

    class SafeUnpickler(NumpyUnpickler):
        """joblib's unpickler without any way to reach code."""

        dispatch = NumpyUnpickler.dispatch.copy()

        def __init__(self, file):
            super().__init__("", file, ensure_native_byte_order=True)

        def find_class(self, module, name):
            try:
                return allowed[module, name]
            except KeyError:
                raise UnsafeModelError(f"{module}.{name}") from None

        def persistent_load(self, pid):
            raise UnsafeModelError("an object from outside the file")

        def refuse(self):
            raise UnsafeModelError("an object that is no plain value")

        def load_newobj(self):
            if self.stack[-1] != () or self.stack[-2] is not Array:
                self.refuse()
            super().load_newobj()

        def load_reduce(self):
            if self.stack[-2] is not _Dtype:
                self.refuse()
            super().load_reduce()

        def load_build(self):
            if type(self.stack[-2]) not in (Array, _Dtype):
                self.refuse()
            super().load_build()

        dispatch[pickle.NEWOBJ[0]] = load_newobj
        dispatch[pickle.REDUCE[0]] = load_reduce
        dispatch[pickle.BUILD[0]] = load_build
        for opcode in _REFUSED_OPCODES:
            dispatch[opcode[0]] = refuse

    return SafeUnpickler


# ---------------------------------------------------------------- the schema


class _Malformed(Exception):
    """What is wrong with a model's dict, without the file's name and the full stop."""


def _model_from_dict(data) -> Model:
    if not isinstance(data, dict) or type(data.get("format")) is not str:
        raise _Malformed("it does not hold the dict of a model")
    _require(data["format"] == FORMAT, f"its format is {data['format']!r:.40}, not {FORMAT!r}")
    schema, writer = data.get("schema"), data.get("package_version")
    if type(schema) is not int or abs(schema) > 10**6:
        raise _Malformed("its schema version is no number")
    if schema != SCHEMA:
        raise ModelVersionError(
            f"is of schema {schema}, {'newer' if schema > SCHEMA else 'older'} than the schema "
            f"{SCHEMA} that ase_hmlp {__version__} reads (it was written by ase_hmlp "
            f"{writer if type(writer) is str else 'of no version':.40})."
        )
    _check_plain(data)
    top = "package_version name units potential domain training errors"
    _keys(data, f"format schema {top}", "the file")
    for key in ("package_version", "name"):
        _require(isinstance(data[key], str), f"{key} is no string")
    for key in ("units", "potential", "domain", "training", "errors"):
        _require(isinstance(data[key], dict), f"{key} is no dict")
    units = {key: str(value) for key, value in data["units"].items()}
    _require(units == UNITS, f"units are {units!r:.80}, not {UNITS}")
    _check_potential(data["potential"])
    _keys(data["domain"], " ".join(f.name for f in fields(Domain)), "domain")
    for key, value in data["domain"].items():
        if key in ("contact", "contact_limit"):
            _number(value, f"domain {key}")
        else:
            _require(isinstance(value, list) and len(value) == 2, f"domain {key} is no pair")
            _ = [_number(x, f"domain {key}") for x in value]
    try:
        domain = Domain.from_dict(data["domain"])
        potential = Potential.from_dict(data["potential"])
        # The kernel's own limits: number of fingerprints, channels, coefficients.
        potential.bond.curve  # noqa: B018
        potential.interaction  # noqa: B018
        if potential.environment is not None:
            potential.environment.regressor.machine  # noqa: B018
    except (ValueError, TypeError) as exc:
        raise _Malformed(str(exc).rstrip(".")) from exc
    return Model(
        potential,
        domain,
        data["name"],
        data["training"],
        data["errors"],
        data["package_version"],
    )


def _check_potential(data: dict) -> None:
    _keys(data, "e0 bond stretch pair orientation environment", "potential")
    _number(data["e0"], "e0")
    bond = data["bond"]
    _require(isinstance(bond, dict), "bond is no dict")
    _keys(bond, "form parameters r0 lower upper", "bond")
    form, parameters = bond["form"], bond["parameters"]
    _require(type(form) is str and form in BOND_FORMS, f"unknown bond form {form!r:.40}")
    _require(isinstance(parameters, list) and len(parameters) > 0, "the bond has no parameters")
    _require(form != "morse" or len(parameters) == 2, "a Morse bond has two parameters")
    for value in [*parameters, bond["r0"], bond["lower"], bond["upper"]]:
        _number(value, "a parameter of the bond")
    _require(0 < bond["r0"], "the bond's r0 is not positive")
    _require(bond["lower"] < bond["upper"], "the bond's lower is not below its upper")
    stretch = data["stretch"]
    _require(isinstance(stretch, dict), "stretch is no dict")
    _keys(stretch, "r0 low high margin", "stretch")
    for key, value in stretch.items():
        _number(value, f"stretch {key}")
    _require(
        0 <= stretch["low"] and 0 < 2 * stretch["margin"] <= stretch["high"] - stretch["low"],
        "stretch: low, high and margin leave nothing between them",
    )
    for name, arrays in (
        ("pair", "basis coefficients"),
        ("orientation", "basis coefficients"),
        ("environment", "basis overlap regressor"),
    ):
        level = data[name]
        if level is None:
            continue
        _require(isinstance(level, dict), f"{name} is no dict")
        _keys(level, arrays, name)
        _require(isinstance(level["basis"], dict), f"{name} has no basis")
        _check_basis(level["basis"], f"{name} basis")
        n = len(level["basis"]["functions"])
        if name == "environment":
            wanted = N_DENSITIES + 1 + N_SHELLS
            _require(n == wanted, f"{name} basis has {n} functions, not {wanted}")
            if level["overlap"] is not None:
                _require(isinstance(level["overlap"], dict), f"{name} overlap is no dict")
                _check_overlap(level["overlap"], f"{name} overlap")
            _require(isinstance(level["regressor"], dict), f"{name} has no regressor")
            _check_regressor(level["regressor"], f"{name} regressor")
            made, taken = N_FINGERPRINTS, level["regressor"]["transform"].shape[1]
            _require(made == taken, f"there are {made} fingerprints, its regressor has {taken}")
        else:
            rows = len(STRETCH_NAMES if name == "pair" else ORIENTATION_NAMES)
            _check_array(level["coefficients"], f"{name}: coefficients")
            shape = level["coefficients"].shape
            _require(shape == (rows, n), f"{name}: coefficients has shape {shape}, not {(rows, n)}")


def _check_basis(data: dict, where: str) -> None:
    _keys(data, "functions cutoff inner outer", where)
    _require(isinstance(data["functions"], list), f"{where} has no functions")
    _require(len(data["functions"]) <= MOST_FUNCTIONS, f"{where} has too many functions")
    for key in ("cutoff", "inner", "outer"):
        _number(data[key], f"{where} {key}")
    _require(
        0 <= data["inner"] <= data["outer"] < data["cutoff"] <= 50 and data["cutoff"] > 0,
        f"{where}: inner, outer and cutoff are not in ascending order up to 50 Å",
    )
    for function in data["functions"]:
        _require(isinstance(function, dict), f"{where}: a function is no dict")
        _keys(function, "kind a b", f"{where} function")
        kind = function["kind"]
        _require(
            isinstance(kind, str) and kind in RADIAL_KINDS,
            f"{where}: unknown kind {kind!r:.40}",
        )
        decays = {"gaussian": "a", "born_mayer": "a", "wendland": "a", "damped_sine": "b"}
        decay = (decays | {"shell": "b"}).get(kind)
        for key in ("a", "b"):
            value = _number(function[key], f"{where} {kind} {key}")
            _require(key != decay or value > 0, f"{where}: {kind} has {key} = {value}, not above 0")


def _check_overlap(data: dict, where: str) -> None:
    _keys(data, "support widths reach inner ridge freeze", where)
    for key, length in (("widths", 3), ("freeze", 2)):
        value = data[key]
        _require(
            isinstance(value, list) and len(value) == length, f"{where}: {key} are not {length}"
        )
        for number in value:
            _number(number, f"{where} {key}")
    for key in ("support", "reach", "inner", "ridge"):
        _number(data[key], f"{where} {key}")
    _require(data["support"] > 0, f"{where}: the support is not above 0")
    _require(min(data["widths"]) > 0, f"{where}: a width is not above 0")
    _require(data["ridge"] >= 0, f"{where}: the ridge is below 0")
    _require(
        0 <= data["inner"] < data["reach"] <= 20, f"{where}: inner and reach do not ascend to 20 Å"
    )
    low, high = data["freeze"]
    _require(0 <= low <= high < data["reach"], f"{where}: what freezes is not within reach")


def _check_regressor(data: dict, where: str) -> None:
    arrays = "transform linear linear_stretch representatives rep_bond alpha"
    numbers = "r0 stretch_width prior"
    if "exponent" in data:  # files from before it lack it: it was 1
        numbers += " exponent"
    _keys(data, f"{arrays} {numbers} variance", where)
    for key in (*arrays.split(), "variance"):
        array = data[key]
        if key == "variance" and array is None:
            continue
        _check_array(array, f"{where}: {key}")
    _require(data["transform"].ndim == 2, f"{where}: transform is no matrix")
    _require(data["representatives"].ndim == 2, f"{where}: representatives is no matrix")
    q, k = data["transform"].shape
    s = len(data["representatives"])
    shapes = {
        "linear": (k,),
        "linear_stretch": (k,),
        "representatives": (s, q),
        "rep_bond": (s,),
        "alpha": (s,),
        "variance": (s * (s + 1) // 2,),
    }
    for key, shape in shapes.items():
        if data[key] is not None:
            _require(
                data[key].shape == shape, f"{where}: {key} has shape {data[key].shape}, not {shape}"
            )
    for key in numbers.split():
        _require(_number(data[key], f"{where} {key}") >= 0, f"{where}: {key} is negative")


def _check_array(array, where: str) -> None:
    _require(isinstance(array, np.ndarray), f"{where} is no array")
    _require(array.dtype.kind == "f", f"{where} is of type {array.dtype}")
    _require(np.isfinite(array).all(), f"{where} is not finite everywhere")


def _require(condition, sentence: str) -> None:
    if not condition:
        raise _Malformed(sentence)


def _keys(data: dict, expected: str, where: str) -> None:
    missing = set(expected.split()) - data.keys()
    surplus = data.keys() - set(expected.split())
    _require(not missing, f"{where} lacks {', '.join(sorted(missing))}")
    _require(not surplus, f"{where} has the unknown {', '.join(sorted(map(str, surplus)))}")


def _number(value, where: str) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):
        raise _Malformed(f"{where} is {value!r:.40}, not a finite number")
    return value


def _check_plain(data) -> None:
    """Refuse anything but plain values, cycles and nests without end."""
    left, todo = MOST_ENTRIES, [(data, 0)]
    while todo:
        value, depth = todo.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise _Malformed("it is nested without end")
        if type(value) is dict:
            _require(all(type(key) is str for key in value), "a key is no string")
            todo += [(x, depth + 1) for x in value.values()]
        elif type(value) is list:
            todo += [(x, depth + 1) for x in value]
        elif type(value) is int:
            _require(abs(value) < 2**64, "it holds an integer of more than 64 bits")
        elif type(value) not in (str, bool, float, type(None), np.ndarray):
            raise _Malformed(f"it holds a {type(value).__name__}")


def _plain(value, where: str = "the model"):
    """Copy with numpy scalars as Python numbers and tuples as lists; arrays as they are."""
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"{where} has the key {wrong[0]!r}; a model file has strings only.")
        return {str(key): _plain(x, f"{where}[{key!r}]") for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x, f"{where}[{n}]") for n, x in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.str[1:] in _DTYPES:
            return np.ascontiguousarray(value) if value.ndim else value.item()
    elif isinstance(value, str):
        return str(value)
    elif value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(
        f"{where} is of type {type(value).__name__}: a model file holds plain values and numeric "
        "arrays only."
    )
