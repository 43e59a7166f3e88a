"""Work spread over processes, or over a cluster, by joblib."""

from __future__ import annotations

from typing import Any, Literal

import joblib
from pydantic import Field, PositiveInt

from ase_hmlp.errors import ConfigError
from ase_hmlp.training.sections import Section


class ParallelSection(Section):
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

    def unordered(self) -> joblib.Parallel:
        """What runs tasks one at a time on each worker and gives results as they finish.

        A batch of tasks would come back, and be lost by a kill, as a whole.

        Raises
        ------
        ConfigError
            If the backend is not there, or does not take these options.
        """
        try:
            with joblib.parallel_config(
                backend=self.backend, n_jobs=self.workers, **self.backend_options
            ):
                return joblib.Parallel(
                    return_as="generator_unordered",
                    batch_size=1,
                    pre_dispatch="2*n_jobs",
                    max_nbytes=None,  # no read-only memory maps of a model's arrays
                )
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"run.backend: {' '.join(str(error).split())}") from error
