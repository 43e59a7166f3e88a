"""TOML configurations: their sections refuse unknown keys, their errors are one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from ase_hmlp.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """A table of a configuration: immutable; unknown keys are refused, and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Config = TypeVar("_Config", bound=Section)


def read_toml(path, kind: type[_Config], changes: Sequence[str] = ()) -> _Config:
    """Read and check a configuration.

    Parameters
    ----------
    path : str or Path
    kind : subclass of Section
        What the file must describe.
    changes : sequence of str
        Lines of TOML that replace keys of the file, ``table.key = value``. A value that is a table
        itself is replaced as a whole.

    Raises
    ------
    ConfigError
        Naming the file and the key.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration {path} cannot be read: {error}.") from error
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Configuration {path} is not TOML: {error}.") from error
    where = f"Configuration {path}"
    for change in changes:
        try:
            new = tomllib.loads(change)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{change!r} is not TOML: {error}.") from error
        if part := _part_of_value(kind, change):
            raise ConfigError(f"{change!r}: {part} is one value, to be given as a whole.")
        settings = merged(settings, new, kind)
        where = f"Configuration {path} with changes"
    return validate(settings, kind, where)


def merged(
    settings: dict[str, Any], changes: dict[str, Any], kind: type[Section]
) -> dict[str, Any]:
    """Settings with changes: section by section, but values as a whole, tables among them.

    Parameters
    ----------
    settings, changes : dict
    kind : subclass of Section
        What they describe.
    """
    result = dict(settings)
    for key, value in changes.items():
        old, inner = result.get(key), section_of(kind, key)
        if inner is not None and isinstance(old, dict) and isinstance(value, dict):
            value = merged(old, value, inner)
        result[key] = value
    return result


def section_of(kind: type[Section], key: str) -> type[Section] | None:
    """What a key of a section is if it is a section itself, which may be left out; else None."""
    if key not in kind.model_fields:
        return None
    annotation = kind.model_fields[key].annotation
    union = get_origin(annotation) in (Union, UnionType)
    kinds = [k for k in (get_args(annotation) if union else (annotation,)) if k is not type(None)]
    if len(kinds) != 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], Section)):
        return None
    return kinds[0]


def _part_of_value(kind: type[Section], change: str) -> str:
    """The key of whose value a line of TOML ``table.key.part = value`` names a part; else none."""
    try:
        place: Any = tomllib.loads(f"{change.partition('=')[0]}= 0")
    except tomllib.TOMLDecodeError:  # more than a line
        return ""
    names: list[str] = []
    here: type[Section] | None = kind
    while isinstance(place, dict):
        (key,) = place
        if here is None:
            return ".".join(names)
        if key not in here.model_fields:
            return ""
        names.append(key)
        here, place = section_of(here, key), place[key]
    return ""


def validate(settings: dict[str, Any], kind: type[_Config], where: str) -> _Config:
    """Check settings.

    Parameters
    ----------
    settings : dict
    kind : subclass of Section
        What they must describe.
    where : str
        What to call them in messages.

    Raises
    ------
    ConfigError
        Naming `where` and the key.
    """
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{where}: {sentence(error)}.") from error


def sentence(error: ValidationError, prefix: str = "") -> str:
    """What is wrong first, in words.

    Parameters
    ----------
    error : pydantic.ValidationError
    prefix : str
        Of the keys.
    """
    found = error.errors()
    key = _key(found[0]["loc"])
    # Of a key that may be of several kinds, each says why not: the one that got farthest.
    same = [e for e in found if f"{_key(e['loc'])} ".startswith(f"{key} ")]
    first = max(same, key=_depth)
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    key = prefix + _key(first["loc"])
    return {
        "extra_forbidden": f"unknown key {key!r}",
        "missing": f"missing key {key!r}",
    }.get(first["type"], f"key {key!r}: {first['msg'].removeprefix('Value error, ')}")


#: What pydantic puts into the place of an error beside keys and numbers: kinds of values, and its
#: mark of what is wrong with a key of a table.
_NO_KEY = re.compile(r"(constrained-)?(bool|float|int|str)|.*\[.*")


def _depth(error: Any) -> int:
    return sum(isinstance(part, int) for part in error["loc"])


def _key(place: Sequence[int | str]) -> str:
    """A key as it is in the file; of several tables or numbers the first is 1."""
    key = ""
    for part in place:
        if isinstance(part, int):
            key += f" {part + 1}"
        elif not _NO_KEY.fullmatch(part):
            key += f".{part}" if key else part
    return key
