"""One pass over a trajectory for any number of analyses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ase_hmlp.analysis.result import Result
from ase_hmlp.analysis.trajectory import Snapshot, Trajectory
from ase_hmlp.errors import TooFewFramesError


class Analysis(ABC):
    """What is gathered from frame to frame, and what it comes to.

    Attributes
    ----------
    name : str
        Of the analysis, the command and the files it writes.
    least_frames : int
        Fewest frames it has an answer for.
    molecular : bool
        Whether it needs molecules.
    """

    name: str
    least_frames: int = 1
    molecular: bool = True

    def start(self, trajectory: Trajectory) -> None:  # noqa: B027 - nothing to do by default
        """Look at what is known before the first frame, and refuse what cannot be analysed."""

    def lead(self, snapshot: Snapshot) -> None:  # noqa: B027 - most need nothing of them
        """Look at a frame before the first that is used, see `Trajectory.require_beginning`."""

    @abstractmethod
    def add(self, snapshot: Snapshot) -> None:
        """Take in a frame."""

    @abstractmethod
    def result(self) -> Result:
        """What the frames so far come to; `analyse` adds ``inputs``."""

    def parameters(self) -> dict:
        """Settings, for the record: plain numbers and strings."""
        return {}


def analyse(
    trajectory: Trajectory,
    analyses: Sequence[Analysis],
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Stream a trajectory through analyses.

    Parameters
    ----------
    trajectory : Trajectory
    analyses : sequence of Analysis
        Each new: nothing added to it yet.
    progress : callable, optional
        Called with the number of frames done.

    Returns
    -------
    list of Result, one for each analysis

    Raises
    ------
    ase_hmlp.errors.TrajectoryError
        And those derived from it.
    """
    for analysis in analyses:
        analysis.start(trajectory)
    done = 0
    for snapshot in trajectory:
        if snapshot.before:
            for analysis in analyses:
                analysis.lead(snapshot)
            continue
        for analysis in analyses:
            analysis.add(snapshot)
        done += 1
        if progress is not None:
            progress(done)
    for analysis in analyses:
        if done < analysis.least_frames:
            raise TooFewFramesError(
                f"{trajectory.name} has {done} frames to analyse; {analysis.name} needs at least "
                f"{analysis.least_frames}."
            )
    record, notes = trajectory.describe(), _notes(trajectory)
    return [
        analysis.result()
        .with_inputs({"trajectory": record, "settings": analysis.parameters()})
        .with_notes(notes)
        for analysis in analyses
    ]


def _notes(trajectory: Trajectory) -> tuple[str, ...]:
    if not trajectory.doubled:
        return ()
    return (f"Frames left out, for they are the one before again: {trajectory.doubled}.",)
