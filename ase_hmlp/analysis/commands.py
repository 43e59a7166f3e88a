"""All of ``hmlp analyse``: importing a module of commands registers them."""

from ase_hmlp.analysis import (  # noqa: F401
    dynamics_commands,
    structure_commands,
    thermodynamics_commands,
)
from ase_hmlp.analysis.command_group import analyse

__all__ = ["analyse"]
