"""calo-sample: draw showers from a trained generator into an HDF5 file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calo_train.cli.errors import log_to_stderr, run_command

if TYPE_CHECKING:
    from calo_train.families.generator import Generator
    from calo_train.quantities import Spectrum
    from calo_train.sampling.coarse_showers import CoarseShowers
    from calo_train.sampling.draw import Drawn
    from calo_train.sampling.request import SampleRequest

_log = logging.getLogger("calo_train.cli.sample")  # also as python -m
app = typer.Typer(add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="A run folder or a generator folder.")],
    *,
    number: Annotated[int | None, typer.Option("-n", "--number", help="Showers to draw.")] = None,
    energy: Annotated[
        str | None,
        typer.Option(
            help="Incident energy: 50GeV, 10:100GeV (uniform), log:1:1000GeV or 1,2,4GeV (these "
            "values) [default: uniform over the trained domain]."
        ),
    ] = None,
    polar_angle: Annotated[str | None, typer.Option(help="Such as 90deg or 60:90deg.")] = None,
    azimuth: Annotated[str | None, typer.Option(help="Such as 0deg or -180:180deg.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="Take the conditions of this file, row by row.")
    ] = None,
    coarse: Annotated[
        Path | None,
        typer.Option(
            help="Refine the coarse showers of this file (model=supercalo), row by row; -n above "
            "their number goes through them again."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; shower k depends on it and on k alone.")] = 0,
    shard: Annotated[str, typer.Option(help="Draw piece i of n, from 0: i/n.")] = "0/1",
    out: Annotated[
        Path | None, typer.Option(help="Output file [default: in RUN/samples].")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the output [default: the data set's].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads [default: all cores].")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Showers in flight at most; the result does not depend on it."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Such as teacher or student, where the family has several."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float64 (as published) or float32.")] = "float64",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Allow conditions outside the trained domain.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Draw showers from a trained generator.

    The same request gives the same showers for every shard, batch size and number of threads; an
    interrupted command goes on when it is run again.
    """
    laws = {"incident_energy": energy, "polar_angle": polar_angle, "azimuth": azimuth}

    def command() -> None:
        generator = _open(run, sampler)
        from calo_train.sampling.request import SampleRequest, parse_shard

        to_refine = _coarse_showers(coarse, generator, like)
        num_showers, given = (
            _given_conditions(like, generator, number)
            if to_refine is None
            else _coarse_conditions(to_refine, generator, number)
        )
        chosen = _chosen_laws(generator, laws, given, like or coarse)
        request = SampleRequest(
            num_showers,
            chosen,
            given,
            seed,
            parse_shard(shard),
            is_extrapolating=extrapolate,
            coarse=to_refine,
        )
        target = out or _default_path(run, request, energy, like or coarse)
        from calo_train.machine import available_cores, processor_name
        from calo_train.sampling.draw import draw_to_file

        num_threads = threads or available_cores()
        if batch_size is not None:
            num_threads = min(num_threads, max(batch_size // generator.family.tile, 1))
        drawn = draw_to_file(
            generator,
            request,
            target.expanduser(),
            num_threads=num_threads,
            dtype=_dtype(dtype),
            device=_device(device),
            layout=layout,
            is_forced=force,
            attributes={"processor": processor_name()},
        )
        if as_json:
            print(json.dumps(drawn.as_mapping()))
            return
        _print_result(drawn, run, is_quiet=quiet)

    with log_to_stderr(is_quiet=quiet, is_debug=debug):
        raise typer.Exit(run_command(command, is_debug=debug))


def main() -> None:
    """Run the command."""
    app()


def _open(run: Path, sampler: str | None) -> Generator:
    """Open the generator of a run, or a generator folder itself, with the wanted sampler."""
    from calo_train.cli.inputs import generator_folder
    from calo_train.families.generator import load_generator

    generator = load_generator(generator_folder(run.expanduser()))
    return generator if sampler is None else generator.drawn_by(sampler)


def _chosen_laws(
    generator: Generator, texts: dict[str, str | None], given: dict[str, Any], file: Path | None
) -> dict[str, Spectrum]:
    """Read the laws of the conditions; without any, they are uniform over the trained domain."""
    from calo_train.errors import UsageError
    from calo_train.quantities import parse_spectrum
    from calo_train.sampling.request import trained_laws

    laws = {
        name: parse_spectrum(
            text, "energy" if name == "incident_energy" else "angle", where=_flag(name)
        )
        for name, text in texts.items()
        if text is not None
    }
    twice = [_flag(name) for name in laws if name in given]
    if twice:
        raise UsageError(
            f"{', '.join(twice)} and {file} both give a condition", where="options", do="give one"
        )
    if not laws and file is None:
        laws = trained_laws(generator)
        _log.info("no --energy was given: drawing over the trained domain, %s", _words(laws))
    return laws


def _given_conditions(
    like: Path | None, generator: Generator, number: int | None
) -> tuple[int, dict[str, Any]]:
    """Read the generator's conditions from the first `number` rows of a file, or all of them."""
    import numpy as np

    from calo_train.errors import UsageError
    from calo_train.showers.layouts import open_file

    if like is None:
        if number is None:
            raise UsageError("no number of showers", where="-n", do="give -n 1000, or --like FILE")
        return number, {}
    file = open_file(like.expanduser())
    try:
        if file.num_showers == 0:
            raise UsageError(
                "the file holds no showers", where=f"--like {like}", do="give a file with rows"
            )
        number = file.num_showers if number is None else number
        columns = file.read_conditions(0, min(max(number, 1), file.num_showers))
    finally:
        file.close()
    known = {name: columns[name] for name in columns if name in generator.condition_names}
    return number, {name: values.astype(np.float64) for name, values in known.items()}


def _coarse_showers(
    coarse: Path | None, generator: Generator, like: Path | None
) -> CoarseShowers | None:
    """Open the coarse showers that are to be refined."""
    from calo_train.errors import UsageError
    from calo_train.sampling.coarse_showers import open_coarse

    if coarse is None:
        return None
    if like is not None:
        raise UsageError(
            "--like and --coarse both give conditions",
            where="options",
            do="give one; coarse showers bring their own",
        )
    return open_coarse(coarse.expanduser(), generator)


def _coarse_conditions(
    coarse: CoarseShowers, generator: Generator, number: int | None
) -> tuple[int, dict[str, Any]]:
    """Take the generator's conditions from coarse showers, over and over where -n is larger."""
    number = len(coarse) if number is None else number
    columns = coarse.conditions(max(number, 1))
    known = {name: columns[name] for name in columns if name in generator.condition_names}
    return number, known


def _words(laws: dict[str, Spectrum]) -> str:
    from calo_train.quantities import format_energy

    def ends(name: str, law: Spectrum) -> str:
        if name == "incident_energy":
            return f"{format_energy(law.low)} to {format_energy(law.high)}"
        return f"{law.low:.3g} to {law.high:.3g} rad"

    return ", ".join(
        f"{name} {ends(name, law)}" + (f" ({len(law.values)} values)" if law.values else "")
        for name, law in laws.items()
    )


def _default_path(
    run: Path, request: SampleRequest, energy: str | None, file: Path | None
) -> Path:
    words = file.stem if file is not None else (energy or "all").replace(":", "-")
    name = f"{request.num_showers}_{words}_seed{request.seed}"
    if request.shard.count > 1:
        name += f"_shard{request.shard.index}of{request.shard.count}"
    base = run.expanduser()
    has_samples = (base / "config.yaml").is_file()
    return (base / "samples" if has_samples else Path.cwd()) / f"{name}.h5"


def _print_result(drawn: Drawn, run: Path, *, is_quiet: bool) -> None:
    from calo_train.quantities import format_duration

    num_new = drawn.num_showers - drawn.num_resumed
    each = f", {1000 * drawn.seconds / num_new:.3g} ms a shower" if num_new else ""
    print(
        f"wrote: {drawn.path}, {drawn.num_showers} showers "
        f"({format_duration(drawn.seconds)}{each})"
    )
    for note in drawn.notes:
        print(f"note: {note}")
    if not is_quiet:
        print(f"next: calo-data info {quote(str(drawn.path))}\n      calo-eval {quote(str(run))}")


def _flag(name: str) -> str:
    return "--energy" if name == "incident_energy" else f"--{name.replace('_', '-')}"


def _dtype(name: str) -> Any:
    import torch

    from calo_train.errors import UsageError

    if name not in ("float64", "float32"):
        raise UsageError(
            f"dtype '{name}' is unknown", where="--dtype", do="use float64 or float32"
        )
    return getattr(torch, name)


def _device(name: str) -> Any:
    import torch

    from calo_train.errors import MachineError, UsageError

    if name not in ("cpu", "cuda"):
        raise UsageError(f"device '{name}' is unknown", where="--device", do="use cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "no GPU is visible",
            where=f"--device cuda; torch {torch.__version__}",
            do="sample with --device cpu, or check the driver and the torch build",
        )
    return torch.device(name)


if __name__ == "__main__":
    main()
