"""Structures that tripped, as `hmlp label` takes them."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from ase_hmlp.simulate.sweep import Point
from ase_hmlp.training.frames import iterate_structures
from ase_hmlp.training.stability.config import FramesSection
from ase_hmlp.training.stability.watch import CAUGHT


def worth_labelling(point: Point, folder: Path, settings: FramesSection) -> list[Atoms]:
    """What of a run shall be labelled, in the order of time.

    Those that did not meet a criterion come first, then the others by their largest deviation; each
    is some time apart from all that were taken before.

    Parameters
    ----------
    point : Point
    folder : Path
        Of its run.
    settings : FramesSection
    """
    path = folder / CAUGHT
    if not path.exists() or not path.stat().st_size:
        return []
    caught = list(iterate_structures(path))
    caught.sort(key=_rank)
    apart = 1000.0 * settings.apart / point.config.dynamics.timestep
    taken: list[Atoms] = []
    for atoms in caught:
        step = atoms.info["step"]
        if len(taken) < settings.most and all(abs(step - t.info["step"]) >= apart for t in taken):
            taken.append(atoms)
    taken.sort(key=lambda atoms: atoms.info["step"])
    for atoms in taken:
        atoms.info = {
            "group": settings.family,
            "source": f"{point.name}/{atoms.info['step']}",
            **{key: atoms.info[key] for key in ("trips", "excess_A", "deviation_meV")},
        }
    return taken


def _rank(atoms: Atoms) -> tuple[bool, float, int]:
    info = atoms.info
    return info["trips"] == "uncertainty", -info["deviation_meV"], info["step"]
