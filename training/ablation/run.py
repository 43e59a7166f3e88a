"""An ablation: every variant fitted, judged on unseen families, timed, and reported on.

==============  ===================================================================================
variants.jsonl  a line for each variant: what it changes, its errors by family, its time
base-*.joblib   the potential of the configuration, timed in turns with every other
ablation.json   every command that was given, and the versions it was given with
ablation.txt    the table, what its rows are, where it comes from
ablation.csv    every number, by variant and family
ablation.png    bars
==============  ===================================================================================

A run that was killed goes on where it was; nothing in ``variants.jsonl`` is computed again as long
as configuration, data and timing are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ase_hmlp.errors import DataError, OutputExistsError
from ase_hmlp.files import refuse_foreign, write_whole
from ase_hmlp.simulate.run import versions
from ase_hmlp.training.ablation.report import (
    FIGURE,
    TABLE,
    TEXT,
    Ablation,
    Provenance,
    Row,
    write_report,
)
from ase_hmlp.training.ablation.variants import variants
from ase_hmlp.training.append_only import RecordFile, split_lines
from ase_hmlp.training.fit import Progress, silent
from ase_hmlp.training.frames import file_digest
from ase_hmlp.training.search.config import TimingSection
from ase_hmlp.training.search.evaluate import Evaluator
from ase_hmlp.training.search.settings import Base

RECORDS, COMMANDS = "variants.jsonl", "ablation.json"


@dataclass(frozen=True, eq=False)
class AblationResult:
    """What an ablation leaves.

    Attributes
    ----------
    ablation : Ablation
    computed : int
        Variants that were not in the folder before.
    paths : list of Path
        What was written.
    """

    ablation: Ablation
    computed: int
    paths: list[Path]


def ablate(
    path,
    output=None,
    progress: Progress = silent,
    command: str = "Python",
    timing: TimingSection | None = None,
    every: int = 1,
) -> AblationResult:
    """Fit what has not been fitted yet of the variants of a configuration, and report on all.

    Parameters
    ----------
    path : str or Path
        Training configuration, see `ase_hmlp.training.config.TrainingConfig`.
    output : str or Path, optional
        Folder; ``NAME-ablation`` beside the configuration unless given.
    progress : callable
        Called with a stage, the steps done and the steps in all.
    command : str
        How this was called, for the report.
    timing : TimingSection, optional
        What is evaluated to see how long it takes.
    every : int
        Of each family every so manieth frame, but for those that the bond is fitted to.

    Raises
    ------
    ConfigError, DataError
        Before anything is done, if it cannot be.
    OutputExistsError
        If another run is at work in the folder, or it holds something else.
    """
    path = Path(path)
    base = Base.read(path)
    rows = variants(base.config)
    for variant in rows:
        base.changed(variant.changes, f"Variant {variant.name!r} of {path}")
    for file in base.files:
        if not file.exists():
            raise DataError(f"Data file {file} does not exist.")
    folder = Path(output) if output else path.parent / f"{base.config.name}-ablation"
    refuse_foreign(folder, [TEXT, TABLE, FIGURE], COMMANDS)
    folder.mkdir(parents=True, exist_ok=True)
    with RecordFile(folder / RECORDS, split_lines) as records:
        commands, made_with = _noted(folder / COMMANDS, command)
        evaluator = Evaluator(base, timing or TimingSection(), folder, records, progress, every)
        # The configuration itself first: its time is what all others are divided by.
        evaluator({})
        found = []
        for k, variant in enumerate(rows):
            progress("variants", k, len(rows))
            found.append(Row(variant.name, evaluator(variant.changes)))
        progress("variants", len(rows), len(rows))
    ablation = Ablation(base.config.name, found, evaluator({}))
    files = [path, *base.files]
    hashes = {file.name: file_digest(file) for file in files}
    provenance = Provenance(hashes, made_with, commands)
    return AblationResult(ablation, evaluator.computed, write_report(ablation, provenance, folder))


def _noted(path: Path, command: str) -> tuple[list[str], list[str]]:
    """Note a command and the versions it runs with; gives all there are."""
    noted: dict[str, list[str]] = {"commands": [], "versions": []}
    if path.exists():
        try:
            noted = json.loads(path.read_text())
            commands, made_with = list(noted["commands"]), list(noted["versions"])
        except (ValueError, KeyError, TypeError):
            raise OutputExistsError(f"{path} is no record of an ablation.") from None
    else:
        commands, made_with = [], []
    now = ", ".join(f"{name} {number}" for name, number in versions().items())
    for known, new in ((commands, command), (made_with, now)):
        if new not in known:
            known.append(new)
    write_whole(path, json.dumps({"commands": commands, "versions": made_with}, indent=2) + "\n")
    return commands, made_with
