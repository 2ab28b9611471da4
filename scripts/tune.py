"""Search for hyperparameters with Optuna; one trial is one training, kept as a run.

    python scripts/tune.py --study widths --trials 20 \\
        --range model.causal_flow.hidden_features=int:32:256:log \\
        --range model.causal_training.learning_rate=float:1e-4:1e-2:log \\
        --choice model.causal_flow.num_bins=4,8,16 \\
        experiment=quickstart

minimises the validation loss of the best epochs, summed over all parts: for parts that model
conditional densities in a chain, the negative log-likelihood of a whole shower. With only=STAGE
the search is of that stage alone. Keys that change what the loss is of, such as noise or units,
must not be searched.

The study lies in RUNS_FOLDER/studies/NAME.journal. The same command goes on; several at once, on
machines that see the folder, share the study. A trial that was interrupted is trained to its end
first. Needs the extra `tune`: pip install 'calo-train[tune]'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.tables import table
from calo_train.errors import UsageError
from calo_train.training.compose import compose_config
from calo_train.training.config import check_config
from calo_train.training.lock import describe_owner, owned
from calo_train.training.processes import STOP_CODES, Task, job_command, run_at_once
from calo_train.training.run_folder import RunFolder
from calo_train.training.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna

_log = logging.getLogger("calo_train.tune")
_WORDS, _RUN, _EXIT_CODE = "words", "run", "exit_code"  # attributes of a trial


@dataclass(frozen=True)
class Dimension:
    """A key that is searched: between two numbers, or among choices."""

    key: str
    kind: str  # int, float or choice
    low: float = 0.0
    high: float = 0.0
    is_logarithmic: bool = False
    choices: tuple[str, ...] = ()

    def suggest(self, trial: optuna.Trial) -> str:
        """Let the study choose a value; give it as a word of calo-train."""
        if self.kind == "choice":
            return f"{self.key}={trial.suggest_categorical(self.key, self.choices)}"
        if self.kind == "int":
            low, high = int(self.low), int(self.high)
            return f"{self.key}={trial.suggest_int(self.key, low, high, log=self.is_logarithmic)}"
        value = trial.suggest_float(self.key, self.low, self.high, log=self.is_logarithmic)
        return f"{self.key}={value!r}"


def main() -> int:
    """Run trials; give an exit code."""
    options = _parser().parse_args()

    def command() -> None:
        dimensions = [parse_range(text) for text in options.range]
        dimensions += [parse_choice(text) for text in options.choice]
        if not dimensions:
            raise UsageError(
                "nothing is searched", where="--range, --choice", do=f"see {sys.argv[0]} --help"
            )
        search(options.words, dimensions, name=options.study, num_trials=options.trials)

    with log_to_stderr():
        return run_command(command)


def search(
    words: Sequence[str], dimensions: Sequence[Dimension], *, name: str, num_trials: int
) -> None:
    """Run trials until the study has `num_trials` that ended, and print the best ones."""
    _require_optuna()
    import optuna

    folder = check_config(compose_config(words)).runs_folder / "studies"
    study = _open_study(folder / f"{name}.journal", name)
    stop = StopRequest()
    stop.listen()
    while len(_ended(study)) < num_trials:
        _take_up_interrupted(study, folder)
        trial = study.ask()
        chosen = [dimension.suggest(trial) for dimension in dimensions]
        with owned(_lock_file(folder, name, trial.number)):
            value = _train([*words, *chosen], f"{name}-{_short_hash(chosen)}", trial, stop)
        if stop.is_raised:  # the trial stays open; it is taken up again
            raise stop.error(str(folder / f"{name}.journal"))
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, value)
    print(summary(study))


def validation_loss(run: RunFolder) -> float:
    """Sum the validation loss of the best epochs of all parts that a run has trained."""
    from safetensors import safe_open

    losses = []
    for path in sorted(run.path.glob("stages/*/parts/*.safetensors")):
        with safe_open(path, framework="numpy") as stored:
            losses.append(float(stored.metadata()["validation_loss"]))
    return sum(losses)


def summary(study: optuna.Study, *, num_shown: int = 10) -> str:
    """Write the best trials as a table, and the best one's run."""
    done = [trial for trial in study.trials if trial.value is not None]
    if not done:
        return "no trial has finished"
    done.sort(key=lambda trial: trial.value)
    rows = [
        {"trial": trial.number, "loss": f"{trial.value:.4f}", **trial.params,
         "run": trial.user_attrs[_RUN]}
        for trial in done[:num_shown]
    ]  # fmt: skip
    best = done[0].user_attrs
    return f"{table(rows)}\nbest: {best[_RUN]}\nwords: {' '.join(best[_WORDS])}"


def parse_range(text: str) -> Dimension:
    """Read `key=int:32:256`, `key=float:1e-4:1e-2:log`."""
    key, _, rest = text.partition("=")
    kind, *ends = rest.split(":")
    try:
        low, high = float(ends[0]), float(ends[1])
        scales = ends[2:]
        if kind not in ("int", "float") or scales not in ([], ["log"]) or not low < high:
            raise ValueError(rest)
        if scales and low <= 0:
            raise ValueError(rest)
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"'{rest}' is not a range", where=f"--range {text}",
            do="write key=float:1e-4:1e-2:log or key=int:2:8, the lower end first",
        ) from error  # fmt: skip
    return Dimension(key, kind, low, high, bool(scales))


def parse_choice(text: str) -> Dimension:
    """Read `key=4,8,16`."""
    key, has_value, rest = text.partition("=")
    choices = tuple(rest.split(","))
    if not has_value or len(choices) < 2 or not all(choices):
        raise UsageError(f"'{text}' names no choices", where="--choice", do="write key=4,8,16")
    return Dimension(key, "choice", choices=choices)


def _train(
    words: Sequence[str], name: str, trial: optuna.Trial, stop: StopRequest
) -> float | None:
    """Train one trial in a process of its own; None when it failed."""
    config = check_config(compose_config([*words, f"name={name}"]))
    run = RunFolder(config.folder)
    trial.set_user_attr(_RUN, str(run.path))
    trial.set_user_attr(_WORDS, list(words))
    codes: list[int] = []
    with tempfile.TemporaryDirectory(prefix="calo-train-") as folder:
        file = Path(folder) / "trial.json"
        file.write_text(json.dumps({"config": dict(config.resolved)}), encoding="utf-8")
        _log.info("trial %d: %s", trial.number, " ".join(words))
        run_at_once(
            [Task(name, job_command(file))], [{}], stop, lambda _, code: codes.append(code)
        )
    if codes == [0]:
        return validation_loss(run)
    if codes and codes[0] not in STOP_CODES:
        _log.warning("trial %d failed with exit code %d", trial.number, codes[0])
        trial.set_user_attr(_EXIT_CODE, codes[0])
    return None


def _take_up_interrupted(study: optuna.Study, folder: Path) -> None:
    """Ask for the values of a trial whose process is gone once more: its run then goes on.

    The folder of a run is named by its values, so that it is found again.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _RUN not in trial.user_attrs:
            continue  # one that is only beginning
        run = Path(trial.user_attrs[_RUN])
        locks = [_lock_file(folder, study.study_name, trial.number), *run.glob("lock*")]
        if any(describe_owner(lock) is not None for lock in locks):
            continue  # another worker's
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)


def _lock_file(folder: Path, name: str, number: int) -> Path:
    """What a worker holds until the training of a trial holds its run."""
    return folder / f"{name}.trial-{number}.lock"


def _open_study(path: Path, name: str) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lock is a file that must not exist, which network file systems do well.
    backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    return optuna.create_study(
        study_name=name, storage=JournalStorage(backend), load_if_exists=True
    )


def _ended(study: optuna.Study) -> list[Any]:
    """Give trials with a value, and those that failed by themselves."""
    from optuna.trial import TrialState

    return [
        trial
        for trial in study.trials
        if trial.state is TrialState.COMPLETE
        or (trial.state is TrialState.FAIL and _EXIT_CODE in trial.user_attrs)
    ]


def _short_hash(words: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(sorted(words)).encode()).hexdigest()[:8]


def _require_optuna() -> None:
    if find_spec("optuna") is None:
        raise UsageError(
            "the search needs the package optuna, which is not installed",
            where="scripts/tune.py",
            do="pip install 'calo-train[tune]'",
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", required=True, help="name of the study and of its runs")
    parser.add_argument("--trials", type=int, default=20, help="trials of the whole study")
    parser.add_argument("--range", action="append", default=[], metavar="KEY=KIND:LOW:HIGH[:log]")
    parser.add_argument("--choice", action="append", default=[], metavar="KEY=A,B,C")
    parser.add_argument("words", nargs="*", help="words of calo-train")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
