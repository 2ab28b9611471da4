"""calo-eval: judge generated showers by independent ones; metrics.json, figures and one page."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.evaluation_inputs import InputRequest, open_inputs
from calo_train.cli.generation_timing import (
    require_generators,
    time_all,
    timing_repetitions,
)
from calo_train.cli.judging import (
    Compare,
    FailIf,
    compare_files,
    parse_conditions,
    require_targets,
)
from calo_train.cli.report_logging import log_report
from calo_train.cli.sweep_evaluation import judged_sweep, table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calo_train.cli.evaluation_inputs import Inputs
    from calo_train.evaluation.report_folder import ReportFolder
    from calo_train.evaluation.results import Evaluation, Settings

_log = logging.getLogger("calo_train.cli.evaluate")  # also as python -m
app = typer.Typer(add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)


Targets = Annotated[
    list[Path] | None,
    typer.Argument(help="Run folders, generator folders, files of showers, or one sweep."),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(help="Independent showers to judge by [default: those a run held out]."),
]
Training = Annotated[
    list[str] | None,
    typer.Option(help="Showers that the samples were trained on [default: those of a run]."),
]
SelfCheck = Annotated[
    bool,
    typer.Option(
        "--self-check", help="Judge the reference by itself, too: all must lie at its floor."
    ),
]
DifferentEnergies = Annotated[
    bool,
    typer.Option(
        "--allow-different-energies",
        help="Go on with another incident spectrum than the reference's.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the report [default: in RUN/reports].")]
Dataset = Annotated[
    str | None, typer.Option(help="Data set of conf/dataset that the files are of.")
]
Threshold = Annotated[
    str | None, typer.Option(help="Readout threshold, such as 0.1MeV [default: the data set's].")
]
Number = Annotated[
    int | None,
    typer.Option("-n", "--number", min=1, help="Use the first N showers of each file."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of samples, halves and classifiers.")]
Classifier = Annotated[
    list[str] | None,
    typer.Option(
        help="Classifier to train, may be repeated: l2lflows, low, low_normed, high, resnet, "
        "multi (among samples), none [default: l2lflows, high, multi]."
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full", help="Train classifiers by the published protocols (hours; low, high, resnet)."
    ),
]
Runs = Annotated[
    int | None,
    typer.Option(min=0, help="Trainings of each classifier; 0 leaves them out [default: 3]."),
]
MetricsOnly = Annotated[
    bool,
    typer.Option(
        "--metrics-only", help="Write metrics.json alone: no figures, no page (for scripts)."
    ),
]
Extrapolate = Annotated[
    bool, typer.Option("--extrapolate", help="Allow conditions outside the trained domain.")
]
Coarse = Annotated[
    list[str] | None,
    typer.Option(
        help="Compare neighbouring layers inside coarse voxels, such as r=1,alpha=2,z=5 (z: "
        "layers); may be repeated."
    ),
]
Timing = Annotated[
    bool,
    typer.Option("--timing", help="Measure the time that a shower takes (batch 1, 100, 10000)."),
]
Wandb = Annotated[
    bool,
    typer.Option("--wandb", help="Add figures and table to the W&B run [default: as trained]."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a report of other inputs.")]
Json = Annotated[bool, typer.Option("--json", help="Print metrics.json.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def evaluate(
    targets: Targets = None,
    *,
    reference: Reference = None,
    training: Training = None,
    out: Out = None,
    dataset: Dataset = None,
    threshold: Threshold = None,
    number: Number = None,
    seed: Seed = 0,
    classifier: Classifier = None,
    full: Full = False,
    classifier_runs: Runs = None,
    extrapolate: Extrapolate = False,
    allow_different_energies: DifferentEnergies = False,
    coarse: Coarse = None,
    timing: Timing = False,
    self_check: SelfCheck = False,
    metrics_only: MetricsOnly = False,
    compare: Compare = None,
    fail_conditions: FailIf = None,
    wandb: Wandb = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Judge showers by independent Monte Carlo showers of the same detector.

    Every number stands beside its floor, the same number of reference against reference. A run or
    generator is sampled at the reference's conditions; several targets share one report.
    """
    request = InputRequest(
        targets or [], tuple(reference or ()), dataset, threshold, seed, number, extrapolate,
        tuple(training or ()), self_check,
    )  # fmt: skip

    def command() -> None:
        from calo_train.evaluation.classifiers.catalogue import ClassifierRequest

        conditions = parse_conditions(fail_conditions)
        if compare is not None:
            compare_files(*compare, conditions, is_json=as_json)
            return
        if not self_check:
            require_targets(request.targets)
        from calo_train.evaluation.coarse_cosine import CoarseCells
        from calo_train.evaluation.report import write_metrics, write_report
        from calo_train.evaluation.results import Settings

        # Before anything is drawn.
        wanted = ClassifierRequest(tuple(classifier or ()), full, classifier_runs)
        cells = tuple(CoarseCells.parse(text) for text in dict.fromkeys(coarse or ()))
        sweep = judged_sweep(request.targets)
        judged = request if sweep is None else replace(request, targets=sweep.targets)
        inputs = open_inputs(judged)
        default = inputs.report if sweep is None else sweep.report
        folder = default if out is None else out.expanduser()
        written, metrics = _report(
            inputs,
            folder,
            Settings(
                inputs.threshold,
                seed=seed,
                classifiers=wanted.protocols(inputs.reference.geometry),
                allow_different_energies=allow_different_energies,
                coarse=cells,
            ),
            is_forced=force,
            repetitions=timing_repetitions(is_full=full) if timing else None,
            write=write_metrics if metrics_only else write_report,
        )
        log_report(judged.targets, written, metrics, is_wandb=wandb)
        _print_result(written, metrics, is_json=as_json, is_quiet=quiet)
        if sweep is not None:
            found = sweep.write_table(metrics, folder)
            print(table_text(found, folder), file=sys.stderr if as_json else sys.stdout)
        from calo_train.evaluation.conditions import require_none_holds

        require_none_holds(conditions, metrics, written.with_name("metrics.json"))

    _finish(command, quiet=quiet, debug=debug)


def main() -> None:
    """Run the command."""
    app()


def _report(
    inputs: Inputs,
    folder: Path,
    settings: Settings,
    *,
    is_forced: bool,
    repetitions: int | None,
    write: Callable[[ReportFolder, Evaluation, Mapping[str, Any]], Path],
) -> tuple[Path, Mapping[str, Any]]:
    from calo_train.atomic_files import require_writable
    from calo_train.evaluation.comparison import evaluate
    from calo_train.evaluation.metrics import metrics_of, planned_inputs
    from calo_train.evaluation.report_folder import ReportFolder
    from calo_train.evaluation.timing import with_timings
    from calo_train.machine import peak_memory
    from calo_train.quantities import format_duration, format_size

    started = time.monotonic()
    if repetitions is not None:
        require_generators(inputs.generators)
    report = ReportFolder(folder)
    # Before the work, so that it is not lost at its end.
    report.require_replaceable(
        planned_inputs(inputs.samples, inputs.reference, settings), is_forced=is_forced
    )
    require_writable(folder)
    evaluation = evaluate(inputs.samples, inputs.reference, settings, inputs.training)
    if repetitions is not None:
        evaluation = with_timings(evaluation, time_all(inputs.generators, repetitions))
    metrics = metrics_of(evaluation)
    written = write(report, evaluation, metrics)
    taken = format_duration(time.monotonic() - started)
    _log.info("took %s, peak memory %s", taken, format_size(peak_memory()))
    return written, metrics


def _print_result(
    written: Path, metrics: Mapping[str, Any], *, is_json: bool, is_quiet: bool
) -> None:
    from calo_train.evaluation.report_folder import as_json
    from calo_train.evaluation.terminal import summary

    if is_json:
        print(as_json(metrics), end="")
        return
    print(summary(metrics))
    is_page = written.suffix == ".html"
    print(f"\n{'report' if is_page else 'metrics'}: {written}")
    if is_page and not is_quiet:
        print(f"next: {_next(written)}")


def _next(page: Path) -> str:
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    return f"{opener} {quote(str(page))}"


def _finish(command: Callable[[], None], *, quiet: bool, debug: bool) -> None:
    with log_to_stderr(is_quiet=quiet, is_debug=debug):
        raise typer.Exit(run_command(command, is_debug=debug))


if __name__ == "__main__":
    main()
