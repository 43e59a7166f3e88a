"""The search: group by group, round by round, until nothing gets better.

The output folder::

    candidates.jsonl      a line for each candidate: what it changes, its errors by family, its time
    base-*.joblib         the base's potential, timed in turns with every other
    report.md, search.png all candidates, the Pareto front, its knee
    NAME-knee.toml        a training configuration for `hmlp train`

A run that was killed goes on where it was; nothing that is in ``candidates.jsonl`` is computed
again, as long as base, data and timing are the same. So a search may also be extended: with more
groups or rounds, or another score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from ase_hmlp.errors import DataError
from ase_hmlp.files import refuse_foreign, write_whole
from ase_hmlp.training.append_only import RecordFile, split_records
from ase_hmlp.training.fit import Progress, silent
from ase_hmlp.training.search import pareto, report
from ase_hmlp.training.search.candidates import Judge
from ase_hmlp.training.search.config import SearchConfig
from ase_hmlp.training.search.evaluate import Evaluator
from ase_hmlp.training.search.report import Findings, Step
from ase_hmlp.training.search.settings import Base, alternatives, check
from ase_hmlp.training.sections import read_toml

#: The candidates' file.
RECORDS = "candidates.jsonl"


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    findings : Findings
    computed : int
        Candidates that were not in the folder before.
    report, config : Path
        The report, and the training configuration of the knee.
    """

    findings: Findings
    computed: int
    report: Path
    config: Path


def search_from_config(path, output=None, progress: Progress = silent) -> SearchResult:
    """Run the search a configuration file describes, or go on with it.

    Parameters
    ----------
    path : str or Path
        TOML file, see `SearchConfig`.
    output : str or Path, optional
        Folder; beside the configuration, and named like it, unless given.
    progress : callable
        Called with a stage, the steps done and the steps in all.

    Raises
    ------
    ConfigError, DataError
        Before anything is done, if it cannot be.
    OutputExistsError
        If another run is at work in the folder, or it holds files of no search under the names of
        those above.
    """
    path = Path(path)
    search = read_toml(path, SearchConfig)
    base = Base.read(path.parent / search.base)
    check(search, base, f"Configuration {path}")
    for file in base.files:
        if not file.exists():
            raise DataError(f"Data file {file} does not exist.")
    folder = Path(output) if output else path.with_suffix("")
    config = folder / f"{base.config.name}-knee.toml"
    refuse_foreign(folder, [*report.FILES, config.name], RECORDS)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        opened = RecordFile(folder / RECORDS, split_records)
    except DataError as error:
        raise DataError(f"{folder / RECORDS} is of no search: {error}.") from error
    with opened as records:
        evaluator = Evaluator(base, search.timing, folder, records, progress, search.every)
        findings = _search(search, base, evaluator, progress)
    write_whole(config, tomli_w.dumps(base.toml(findings.knee.changes, folder)))
    written = report.write(findings, base.config.name, folder)
    return SearchResult(findings, evaluator.computed, written, config)


def _search(search: SearchConfig, base: Base, evaluator: Evaluator, progress: Progress) -> Findings:
    first = best = evaluator({})
    judge = Judge(search.score, first)
    steps: list[Step] = []
    for number in range(1, search.rounds + 1):
        before = best
        for name, group in search.group.items():
            stage = f"round {number}, {name}"
            everything = list(alternatives(group, base, best.changes, f"Group {name}"))
            tried = []
            for k, changes in enumerate(everything):
                progress(stage, k, len(everything))
                tried.append(evaluator(changes))
            progress(stage, len(everything), len(everything))
            found = judge.best(tried)
            kept = judge.score(found) < judge.score(best) - search.score.gain
            best = found if kept else best
            steps.append(Step(number, name, len(tried), kept, best, judge.score(best)))
        if best is before:
            break
    return _findings(judge, search.score, first, best, list(evaluator.known.values()), steps)


def _findings(judge, score, base, best, candidates, steps) -> Findings:
    """Front and knee; without a knee, the best by score stands in for it."""
    good = [c for c in candidates if np.isfinite(judge.score(c))]
    cost = np.array([c.ratio for c in good])
    error = np.array([judge.error(c) for c in good])
    front = pareto.front(cost, error, score.resolution)
    bend = pareto.knee(cost[front], error[front])
    return Findings(
        judge=judge,
        base=base,
        best=best,
        candidates=candidates,
        front=[good[k] for k in front],
        knee=best if bend is None else good[front[bend]],
        bends=bend is not None,
        steps=steps,
    )
