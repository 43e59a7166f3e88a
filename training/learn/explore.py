"""Exploration: relaxations and dynamics of the current potential, to find what it does not know.

Every starting structure (crystals, files, random packings) is relaxed at every pressure; Phase I
and liquids are made there. Then dynamics at constant pressure takes each on a tour of the grid of
pressures and temperatures, from one point to the next: "cycling the pressure and temperature
between the regions expected for Phases I, II and III to ensure that all phase transitions were
between the fitted phases" (Zong, Wiebe and Ackland 2020, Results). Tours begin at different points,
go in both directions, and go on elsewhere in the next round. Where dynamics leaves what the
potential was trained for it ends, the structure is kept, and the tour goes on from the relaxed
structure at the next point.

Crystals move with all components of the cell; liquids, and random packings, which may be liquid
too, would flow into any shape and keep theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ase_hmlp.errors import LearningError
from ase_hmlp.model_io import Model
from ase_hmlp.parallel import WorkersSection, stop, unordered
from ase_hmlp.training.cache import cached, store
from ase_hmlp.training.fit import Progress
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.learn.config import ExploreSection
from ase_hmlp.training.learn.starts import Start, volume_at
from ase_hmlp.training.learn.trajectories import (
    Trajectory,
    compactness,
    dynamics,
    relaxation,
    stillborn,
)


def route(pressures: Sequence[float], temperatures: Sequence[float]) -> list[tuple[float, float]]:
    """A round trip through all points of a grid.

    Out through the higher temperatures, up and down in turn, back at the lowest one, so that the
    pressure changes by one step of the grid at a time; with a single temperature by two.

    Parameters
    ----------
    pressures, temperatures : GPa, K

    Returns
    -------
    list of (pressure, temperature)
    """
    p, t = sorted(pressures), sorted(temperatures)
    if len(t) == 1:
        return [(x, t[0]) for x in (*p[::2], *p[1::2][::-1])]
    way = t[1:]
    out = [(x, y) for k, x in enumerate(p) for y in (way if k % 2 else way[::-1])]
    return out + [(x, t[0]) for x in p[::-1]]


def seed_of(*parts) -> int:
    """A seed for a random generator that belongs to a name."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def explore(
    folder: Path,
    model: Model,
    starts: list[Start],
    frames: list[Frame],
    settings: ExploreSection,
    seed: int,
    number: int,
    progress: Progress,
) -> list[Trajectory]:
    """Run the exploration of a round, or what is missing of it.

    Parameters
    ----------
    folder : Path
        Where trajectories are kept.
    model : Model
    starts : list of Start
    frames : list of Frame
        Labelled ones, for the volumes of random packings.
    settings : ExploreSection
    seed : int
    number : int
        Of the round; others begin elsewhere, with other velocities and packings.
    progress : callable
        Told the stage, the runs done and the runs in all.

    Raises
    ------
    LearningError
        If a run kills the process it runs in.
    """
    keys = [(start, pressure) for start in starts for pressure in settings.pressures]
    tasks = [
        (
            folder / f"{start.name}-{pressure:g}GPa.joblib",
            partial(
                relaxation,
                model,
                start,
                pressure,
                volume_at(frames, pressure),
                settings,
                seed_of(seed, number, start.name, pressure),
            ),
        )
        for start, pressure in keys
    ]
    found = _run(tasks, settings.run, lambda done: progress("relaxations", done, len(tasks)))
    relaxed = {(t.start, t.pressure): t for t in found}
    points = [
        point
        for point in route(settings.pressures, settings.temperatures)
        if point not in settings.leave_out
    ]
    now: dict[str, Trajectory] = {}
    for k in range(len(points)):
        tasks = []
        for s, start in enumerate(starts):
            # Spread over the grid, in both directions; one point farther in every round.
            first = s * len(points) // len(starts) + number
            point = points[(first + (k if (s + number) % 2 else -k)) % len(points)]
            fresh = relaxed[start.name, point[0]]
            before = now.get(start.name, fresh)
            tasks.append(
                (
                    folder / f"{start.name}-{k:03d}.joblib",
                    partial(
                        _leg,
                        model,
                        before if before.goes_on else fresh,
                        fresh,
                        point,
                        start.flows,
                        settings,
                        seed_of(seed, number, start.name, k),
                    ),
                )
            )
        legs = _run(
            tasks,
            settings.run,
            lambda done, wave=k: progress(
                "dynamics", wave * len(starts) + done, len(points) * len(starts)
            ),
        )
        now = {leg.start: leg for leg in legs}
        found += legs
    return found


def _leg(
    model, before: Trajectory, fresh: Trajectory, point, rigid: bool, settings, seed: int
) -> Trajectory:
    """Dynamics from what there is, if there is anything."""
    if not before.goes_on:
        return stillborn(before, point)
    compact = compactness((fresh if len(fresh) else before).cells[-1])
    return dynamics(model, before, point, rigid, compact, settings, seed)


def _run(tasks: Sequence[tuple[Path, Callable]], run: WorkersSection, progress) -> list[Trajectory]:
    """Results of all tasks in order, those that are missing computed side by side."""
    missing = [task for task in tasks if not task[0].exists()]
    done = len(tasks) - len(missing)
    progress(done)
    try:
        calls = (joblib.delayed(_named)(path, compute) for path, compute in missing)
        with ExitStack() as in_flight:
            stream = unordered(calls, run, "explore.run")
            in_flight.callback(stop, stream)
            for path, result in stream:
                store(path, result)
                done += 1
                progress(done)
    except TerminatedWorkerError as error:
        raise LearningError(
            "A run of the exploration killed the process it ran in (memory?); what had finished "
            "is kept."
        ) from error
    return [cached(path, compute) for path, compute in tasks]


def _named(path: Path, compute: Callable) -> tuple[Path, Trajectory]:
    return path, compute()
