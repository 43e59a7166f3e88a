"""The tables and figures there are, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ase_hmlp.reproduce import fig2, fig3b, fig4, fig5, fig6, table1
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.reproduce.report import Report


@dataclass(frozen=True)
class Target:
    """A table or figure.

    Attributes
    ----------
    wanted : callable
        Points of a recipe with a model.
    report : callable
        From whatever points are finished.
    """

    wanted: Callable[[Recipe, str], list[Wanted]]
    report: Callable[[Reproduction], Report]


TARGETS = {
    module.NAME: Target(module.wanted, module.report)
    for module in (table1, fig2, fig3b, fig4, fig5, fig6)
}
