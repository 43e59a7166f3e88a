"""Tasks side by side on a backend of joblib: processes here, or Dask over a cluster."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any, Literal

import joblib
from pydantic import Field, PositiveInt

from ase_hmlp.errors import ConfigError
from ase_hmlp.sections import Section


class WorkersSection(Section):
    """How many tasks at a time, and where.

    Attributes
    ----------
    workers : -1 for all that the backend has
    backend : of joblib; "dask" needs the package distributed
    backend_options : handed to the backend as they are; for Dask, the ``scheduler_host``
    """

    workers: PositiveInt | Literal[-1] = 2
    backend: str = "loky"
    backend_options: dict[str, Any] = Field(default_factory=dict)


def unordered(tasks, section: WorkersSection, where: str) -> Generator[Any, None, None]:
    """Results of tasks, as they finish.

    Parameters
    ----------
    tasks : iterable of joblib.delayed
    section : WorkersSection
    where : str
        Name of the section, for errors.

    Raises
    ------
    ConfigError
        If the backend is not there.
    """
    return _parallel(section, where)(tasks)


def stop(stream: Generator[Any, None, None]) -> None:
    """End the tasks that are in flight, without joblib's advice on how not to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stream.close()


def check_backend(section: WorkersSection, where: str) -> None:
    """Say at once, before any work, that a backend is not there.

    Raises
    ------
    ConfigError
    """
    _parallel(section, where)


def _parallel(section: WorkersSection, where: str) -> joblib.Parallel:
    try:
        # One task at a time to each worker: a batch would come back, and be lost, as a whole.
        with joblib.parallel_config(
            backend=section.backend, n_jobs=section.workers, **section.backend_options
        ):
            return joblib.Parallel(
                return_as="generator_unordered",
                batch_size=1,
                pre_dispatch="2*n_jobs",
                max_nbytes=None,  # no read-only memory maps of a model's arrays
            )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"{where}.backend: {' '.join(str(error).split())}") from error
