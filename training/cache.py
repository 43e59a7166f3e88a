"""Results kept in files, so that a killed run computes nothing twice."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import joblib

from ase_hmlp.files import write_whole

_Result = TypeVar("_Result")


def cached(path: Path, compute: Callable[[], _Result]) -> _Result:
    """The stored result, or a new one stored at once.

    Parameters
    ----------
    path : Path
        Written by this program into the user's own folder: reading it runs what it pickled.
    compute : callable
        Without arguments.
    """
    if path.exists():
        try:
            return joblib.load(path)
        except Exception:  # damaged by a crash of the machine: compute it again
            path.unlink()
    result = compute()
    store(path, result)
    return result


def store(path: Path, result) -> None:
    """Write a result for `cached`: all of it, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    joblib.dump(result, stream)
    write_whole(path, stream.getvalue())
