"""Tuning: options that do best on the validation tasks, for any method, within a number of trials.

A trial is a run that is trained and not tested. Its score is the best validation score, so that
test tasks are not used. Methods tuned with equally many trials and steps are compared fairly.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jsonargparse import Namespace
from rich.table import Table

from omnitraining.config.run_config import dump, parse
from omnitraining.config.values import read_values
from omnitraining.errors import InputError
from omnitraining.experiments.grid import Fields, checked, listed, value_of
from omnitraining.experiments.jobs import Job, Launch, train_only
from omnitraining.experiments.record import Values
from omnitraining.io.files import locked, write_atomic, write_json
from omnitraining.io.terminal import say
from omnitraining.runs.paths import absolute_paths, relative_paths
from omnitraining.runs.run import Run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

INTERVAL = "a range is {low: 0.001, high: 0.1}, with 'log: true' or not, or a list of choices"


@dataclass(frozen=True)
class Range:
    """The values that a field may take.

    Args:
        choices: any of these, as the command line has them; none for an interval.
        low: least value of the interval.
        high: greatest value.
        log: whether ratios count, and not differences.
    """

    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def extremes(self) -> tuple[str, ...]:
        """Values that must be allowed for all to be."""
        return self.choices or (f"{self.low:.15g}", f"{self.high:.15g}")

    def distribution(self, whole: bool) -> "BaseDistribution":
        """The range as a distribution of Optuna.

        Args:
            whole: the field takes integers only.
        """
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)


def read_range(field: str, given: Any) -> Range:
    """A range as a configuration declares it.

    Args:
        field: that it is for.
        given: a mapping with ``low``, ``high`` and perhaps ``log``; or a list of choices.

    Raises:
        InputError: it is neither, or the interval is empty.
    """
    if isinstance(given, list) and len(given) > 1:
        return Range(tuple(v if isinstance(v, str) else json.dumps(v) for v in given))
    if not isinstance(given, dict) or not {"low", "high"} <= {*given} <= {"low", "high", "log"}:
        raise InputError(f"range of {field} is {given}: {INTERVAL}")
    if not isinstance(log := given.get("log", False), bool):
        raise InputError(f"range of {field} is {given}: log must be true or false")
    try:
        found = Range((), float(given["low"]), float(given["high"]), log)
    except (TypeError, ValueError):
        raise InputError(f"range of {field} is {given}: low and high must be numbers") from None
    if not found.low < found.high or (found.log and found.low <= 0):
        least = " and, with log, greater than 0" if found.log else ""
        raise InputError(f"range of {field} is {given}: low must be below high{least}")
    return found


def split_fields(fields: Fields) -> tuple[Fields, dict[str, Range]]:
    """Fixed fields and fields with a range, from the command line.

    Args:
        fields: as ``0.001..0.1``, ``log:0.001..0.1``, ``0,1,3``; a single value is fixed.

    Raises:
        InputError: a range is wrong.
    """
    fixed, ranges = {}, {}
    for field, text in fields.items():
        low, dots, high = text.removeprefix("log:").partition("..")
        if dots:
            interval = {"low": low, "high": high, "log": text.startswith("log:")}
            ranges[field] = read_range(field, interval)
        elif len(parts := listed(text)) > 1:
            ranges[field] = read_range(field, parts)
        else:
            fixed[field] = text
    return fixed, ranges


def declared(path: Path) -> dict[str, Range]:
    """The ranges in the ``tune`` section of a configuration file.

    Raises:
        InputError: a range is wrong.
    """
    section = read_values(path).get("tune", {})
    if not isinstance(section, dict):
        raise InputError(f"{path}: tune is {section!r}: it must hold ranges by field")
    return {field: read_range(field, given) for field, given in section.items()}


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Attributes:
        number: of the trial, from 0.
        fields: values of the fields that are tuned, as texts.
        score: best validation score; none if the run failed.
        failure: why it failed, or "".
    """

    number: int
    fields: Fields
    score: float | None
    failure: str


def trials_table(title: str, trials: Sequence[Trial]) -> Table:
    """Trials of a search as rows, with the values that were tried and how well they did."""
    fields = list(dict.fromkeys(field for trial in trials for field in trial.fields))
    table = Table("trial", *fields, "best validation score", title=title)
    for trial in trials:
        score = "failed" if trial.score is None else f"{trial.score:.4g}"
        values = (_rounded(trial.fields[field]) for field in fields)
        table.add_row(str(trial.number), *values, score)
    return table


def _rounded(text: str) -> str:
    """A number with four digits; anything else as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


class Search:
    """Trials of a configuration, in a folder; finished trials are kept, interrupted ones resumed.

    The values of a trial depend only on the seed of the configuration, the trial's number, and the
    trials before it.

    Args:
        path: configuration file, or the name of a shipped one.
        fixed: fields that are the same in all trials.
        ranges: fields that are tuned.
        folder: of the trials.
        trust: whether runs that the configuration names, as ``start``, may run classes from outside
            this library.

    Raises:
        InputError: Optuna is not installed, a field or an end of a range is wrong, the seed is to
            be tuned, or the folder holds another search.
    """

    def __init__(
        self,
        path: Path,
        fixed: Fields,
        ranges: dict[str, Range],
        folder: Path,
        trust: bool = False,
    ) -> None:
        """Check everything, and open the search that is in the folder, if there is one."""
        self.path, self.fixed, self.folder, self.trust = path, fixed, folder, trust
        if not ranges:
            raise InputError(
                f"nothing to tune: declare ranges in a tune section of {path}, or give them as "
                "--training.lr log:0.001..0.1 --loss.distill_weight 0,1,3"
            )
        if "seed" in ranges:
            raise InputError(
                "seed cannot be tuned: the best of several seeds is luck, which no other run "
                "repeats; 'omni sweep' trains several and compares their mean"
            )
        _check_optuna()
        self.distributions = {}
        for field, values in ranges.items():
            ends = [value_of(checked(path, {**fixed, field: v}), field) for v in values.extremes]
            self.distributions[field] = values.distribution(whole=isinstance(ends[0], int))
        base = checked(path, fixed)
        self.seed, self.method = base.seed, base.method
        what = {field: asdict(values) for field, values in ranges.items()}
        self.study = _open_study(folder, base, json.loads(json.dumps(what)))

    def run(self, trials: int, processes: int, launch: Launch) -> None:
        """Train until there are ``trials`` trials; earlier and failed ones count.

        Args:
            trials: in all.
            processes: trials at a time, which are chosen independently of each other.
            launch: how runs are executed, from `cluster.launcher`.

        Raises:
            InputError: another program searches in the folder.
        """
        with _study_lock(self.folder):
            self._run(trials, processes, launch)

    def _run(self, trials: int, processes: int, launch: Launch) -> None:
        while True:
            known = self.study.get_trials(deepcopy=False)
            broken = [trial.number for trial in known if not trial.state.is_finished()]
            room = min(processes - len(broken), trials - len(known))
            numbers = [*broken, *(self._ask() for _ in range(room))]
            if not numbers:
                return
            self._finish(numbers, launch)

    def trials(self) -> list[Trial]:
        """The trials that have ended, the best first and failed ones last."""
        found = [
            Trial(
                trial.number,
                _texts(trial.params),
                trial.value if trial.state.name == "COMPLETE" else None,
                self.study.user_attrs.get(f"failure of {trial.number}", ""),
            )
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]
        return sorted(found, key=lambda t: (t.score is None, -(t.score or 0.0), t.number))

    def values(self, trial: Trial) -> Values:
        """The whole configuration of a trial."""
        config = dump(checked(self.path, {**self.fixed, **trial.fields}))
        values: Values = yaml.safe_load(config)
        return values

    def conclude(self, command: str) -> list[Trial]:
        """Write all trials and the best configuration.

        Args:
            command: of the search.

        Returns:
            The trials, the best first.
        """
        found = self.trials()
        record = {"command": command, "method": self.method, "trials": [asdict(t) for t in found]}
        write_json(self.folder / "trials.json", record)
        if found and found[0].score is not None:
            best = found[0]
            head = f"# Trial {best.number} of {len(found)}, validation score {best.score:.6g}: "
            text = yaml.safe_dump(self.values(best), sort_keys=False)
            write_atomic(self.folder / "best.yaml", f"{head}{command}\n{text}")
        return found

    def _ask(self) -> int:
        from optuna.samplers import TPESampler

        # Every trial has its own sampler, so that a search that was interrupted continues as if it
        # had not been.
        number = len(self.study.get_trials(deepcopy=False))
        state = np.random.SeedSequence([self.seed, number]).generate_state(1)
        self.study.sampler = TPESampler(seed=int(state[0]))
        return self.study.ask(self.distributions).number

    def _finish(self, numbers: list[int], launch: Launch) -> None:
        from optuna.trial import TrialState

        known = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        jobs = []
        for number in numbers:
            trial = Trial(number, _texts(known[number].params), None, "")
            place = self.folder / f"trial-{number}"
            jobs.append(Job("", "", place, self.values(trial), trust=self.trust))
        ended = {job.folder: reason for job, reason in launch(jobs, train_only)}
        for number, job in zip(numbers, jobs, strict=True):  # whichever ended first
            reason = ended[job.folder]
            if reason is None:
                score = Run(job.folder).load_provenance()["best"]
                self.study.tell(number, score)
            else:
                self.study.set_user_attr(f"failure of {number}", reason)
                self.study.tell(number, state=TrialState.FAIL)
            outcome = reason or f"validation score {score:.4g}"
            say(f"trial {number}: {outcome}")


def _texts(params: dict[str, Any]) -> Fields:
    """Values of a trial as the command line has them."""
    return {field: v if isinstance(v, str) else repr(v) for field, v in params.items()}


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError("tuning needs Optuna: pip install 'omnitraining[tune]'") from error


def _study_lock(folder: Path) -> AbstractContextManager[None]:
    """A lock that lets only one program search in a folder."""
    return locked(
        folder / ".lock",
        f"{folder} holds a search that another program goes on with: wait until it ends, or choose "
        "another --out",
    )


def _open_study(folder: Path, base: Namespace, ranges: Values) -> "Study":
    """The study in a folder, which is made if there is none.

    Raises:
        InputError: the folder holds a study of something else or a damaged one, or another program
            searches in it.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "study.log"
    folder.mkdir(parents=True, exist_ok=True)
    with _study_lock(folder):
        _repair_journal(journal)
        # No one else writes: it is of a search that was killed, and would be waited for.
        Path(f"{journal}.lock").unlink(missing_ok=True)
        try:
            storage = JournalStorage(JournalFileBackend(str(journal)))
            study = optuna.create_study(
                storage=storage, study_name="tune", direction="maximize", load_if_exists=True
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{journal} is damaged ({error!r}): choose another --out") from error
        if "what" not in study.user_attrs:
            what = {"config": dump(relative_paths(base, folder)), "ranges": ranges}
            study.set_user_attr("what", json.dumps(what))
        elif not _is_of(study.user_attrs["what"], folder, base, ranges):
            raise InputError(f"{folder} holds a search of something else: choose another --out")
    return study


def _is_of(what: str, folder: Path, base: Namespace, ranges: Values) -> bool:
    """Whether a search was begun with a configuration and ranges."""
    try:
        began = json.loads(what)
        config = absolute_paths(parse(yaml.safe_load(began["config"])), folder)
    except (InputError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
    return dump(config) == dump(base) and bool(began["ranges"] == ranges)


def _repair_journal(journal: Path) -> None:
    """Cut off the last line of a journal if it was not written whole, as when a search was killed.

    Raises:
        InputError: another line is damaged.
    """
    if not journal.is_file():
        return
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = 0
    for number, line in enumerate(lines, 1):
        if not _is_sound(line):
            if number < len(lines) or line.endswith(b"\n"):
                raise InputError(
                    f"{journal} is damaged in line {number}: choose another --out, or remove that "
                    "line and what follows, to go on from there"
                )
            with journal.open("r+b") as file:
                file.truncate(whole)
        whole += len(line)


def _is_sound(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
