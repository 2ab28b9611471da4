"""calo-data: what is in files of showers, whether they fit, and other files from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.file_words import checked, described, detector_flag
from calo_train.errors import CaloTrainError, DataError, UsageError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from calo_train.geometry import Geometry
    from calo_train.showers.dataset import DatasetConfig

app = typer.Typer(
    help="Fetch files of showers, look at them, check, convert and merge them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="HDF5 files.")]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="A data set of conf/dataset, such as ild_photons.")
]
GeometryOption = Annotated[
    str | None,
    typer.Option("--geometry", help="The detector: a name of conf/geometry or a yaml file."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Print only errors and the result.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]


@app.command()
def info(
    files: FilesArgument,
    *,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say what is in files: layout, showers, conditions, storage, attributes."""

    def command() -> None:
        from calo_train.showers.inspect import describe_file

        found = [describe_file(_given(path)) for path in files]
        if as_json:
            print(json.dumps([description.as_mapping() for description in found]))
            return
        print("\n\n".join(described(description) for description in found))

    _finish(command, quiet=quiet, debug=debug)


@app.command()
def check(
    files: FilesArgument,
    *,
    dataset: DatasetOption = None,
    geometry: GeometryOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check every shower of files, whether they fit a data set, and how fast they read."""

    def command() -> None:
        config, detector = _detector(dataset, geometry)
        results: list[dict[str, Any]] = []
        failed: list[CaloTrainError] = []
        for path in files:
            try:
                results.append(_check(path, config, detector, as_text=not as_json))
            except DataError as error:
                failed.append(error)
                results.append({"file": str(path), "error": error.what, "where": error.where})
                if not as_json and len(files) > 1:
                    print(f"{path}: refused: {error.what}")
        if as_json:
            print(json.dumps(results))
        if failed:
            raise failed[0]

    _finish(command, quiet=quiet, debug=debug)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The file to read.")],
    *,
    out: OutOption,
    layout: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Layout to write: native, getting_high, calochallenge, calogan or showerdata.",
        ),
    ] = None,
    energy_unit: Annotated[
        str | None, typer.Option("--energy-unit", help="Unit of the incident energies in FILE.")
    ] = None,
    voxel_unit: Annotated[
        str | None, typer.Option("--voxel-unit", help="Unit of the voxel energies in FILE.")
    ] = None,
    dataset: DatasetOption = None,
    geometry: GeometryOption = None,
    force: ForceFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write the showers of a file into a new one; FILE itself is never changed."""

    def command() -> None:
        from calo_train.showers.convert import Conversion
        from calo_train.showers.convert import convert as run_conversion
        from calo_train.showers.layouts import Units, layout_named

        config, detector = _detector(dataset, geometry)
        request = Conversion(
            _given(source),
            out.expanduser(),
            layout=layout if layout is None else layout_named(layout).name,
            units=Units(_energy_unit(energy_unit), _energy_unit(voxel_unit))
            if energy_unit or voxel_unit
            else None,
            geometry=detector,
            crop=None if config is None else config.core,
        )
        done = run_conversion(request, force=force)
        state = "already done" if done.was_done else "wrote"
        print(f"{state}: {done.path} ({done.num_showers} showers, layout {done.layout})")
        if not quiet:
            print(
                f"next: calo-data check {quote(str(done.path))}{detector_flag(dataset, geometry)}"
            )

    _finish(command, quiet=quiet, debug=debug)


@app.command()
def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARD...", help="All shards of one request.")
    ],
    *,
    out: OutOption,
    force: ForceFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Join the shards that calo-sample --shard i/n wrote into one file."""

    def command() -> None:
        from calo_train.sampling.merge import merge_shards

        merge_shards([_given(path) for path in shards], out.expanduser(), force=force)
        print(f"wrote: {out}")
        if not quiet:
            print(f"next: calo-data info {quote(str(out))}")

    _finish(command, quiet=quiet, debug=debug)


@app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A data set, such as calochallenge_ds2.")
    ],
    *,
    folder: Annotated[
        Path, typer.Option("--to", help="Folder for the files [default: this one].")
    ] = Path(),
    only: Annotated[
        str | None, typer.Option("--only", help="Files to fetch, as a glob: '*_1.hdf5'.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show the files and their sizes; fetch nothing.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            envvar="CALO_TRAIN_MIRROR",
            help="Address in place of the archive's own, such as https://mirror.example.org.",
        ),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Fetch the published files of a data set, by its DOI; run it again to go on after a stop."""

    def command() -> None:
        from calo_train.cli.published import listed, published
        from calo_train.showers.download import download_all

        files = published(name, _given(folder), only, mirror)
        if show:
            found = [vars(file) for file in files]
            print(json.dumps(found) if as_json else listed(found))
            return
        paths = download_all(files, _given(folder))
        if as_json:
            print(json.dumps([str(path) for path in paths]))
            return
        for path in paths:
            print(f"wrote: {path}")
        if not quiet:
            first = quote(str(paths[0]))
            print(f"next: calo-data check {first} --dataset {name}")
            print(f"      calo-train dataset={name} dataset.path={first}")

    _finish(command, quiet=quiet, debug=debug)


@app.command()
def simulate(
    *,
    dataset: Annotated[
        str, typer.Option("--dataset", help="A data set of conf/dataset with a stack of matter.")
    ],
    out: OutOption,
    num_showers: Annotated[int, typer.Option("-n", help="How many showers.")],
    energy: Annotated[
        str | None,
        typer.Option("--energy", help="50GeV, 10:100GeV or log:1:1000GeV; else the data set's."),
    ] = None,
    particle: Annotated[
        str | None,
        typer.Option("--particle", help="electron, photon or pion; else the data set's."),
    ] = None,
    polar_angle: Annotated[
        str | None,
        typer.Option("--polar-angle", help="Angle to the normal, such as 0.2rad or 0:30deg."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the showers.")] = 0,
    force: ForceFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make showers by a parametrisation: for tests and demonstrations, not for physics."""

    def command() -> None:
        from calo_train.showers.dataset import simulated_showers
        from calo_train.showers.simulator.writing import write_simulated

        beam = {"particle": particle, "polar_angle": polar_angle, "seed": str(seed)}
        config = _beamed(dataset, energy, beam)
        rows = simulated_showers(config, num_showers)
        layout = write_simulated(rows, out.expanduser(), config.layout, force=force)
        print(f"wrote: {out} ({num_showers} showers, layout {layout})")
        if not quiet:
            print(f"next: calo-data check {quote(str(out))} --dataset {quote(dataset)}")

    _finish(command, quiet=quiet, debug=debug)


def main() -> None:
    """Run the command."""
    app()


def _beamed(dataset: str, energy: str | None, beam: dict[str, str | None]) -> DatasetConfig:
    """Read a data set with another beam; options that were not given leave what it says."""
    from calo_train.cli.inputs import named_dataset

    if named_dataset(dataset).simulator is None:
        raise UsageError(
            f"{dataset} does not say of what matter its layers are",
            where=f"--dataset {dataset}",
            do="choose a data set that does, such as ild_photons_core",
        )
    overrides = {f"simulator.{key}": value for key, value in beam.items()}
    overrides["energy_range"] = energy
    given = {key: value for key, value in overrides.items() if value is not None}
    return named_dataset(dataset, given)


def _given(path: Path) -> Path:
    return path.expanduser()


def _detector(
    dataset: str | None, geometry: str | None
) -> tuple[DatasetConfig | None, Geometry | None]:
    """Give the named data set and the detector that files are of; at most one may be named."""
    if dataset is not None and geometry is not None:
        raise UsageError(
            "a data set already says its geometry",
            where=f"--dataset {dataset} --geometry {geometry}",
            do="give one of the two",
        )
    if dataset is not None:
        from calo_train.cli.inputs import named_dataset

        config = named_dataset(dataset)
        return config, config.detector
    return None, None if geometry is None else _geometry(geometry)


def _geometry(name: str) -> Geometry:
    import yaml

    from calo_train.config_folder import conf_folder, config_groups
    from calo_train.geometry import geometry_from_mapping

    known = config_groups().get("geometry", {})
    path = (
        conf_folder() / "geometry" / f"{name}.yaml" if name in known else Path(name).expanduser()
    )
    if not path.is_file():
        raise UsageError(
            f"no geometry '{name}'",
            where="--geometry",
            do=f"name one; {nearest_names(name, known)}",
        )
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            f"not a yaml file: {str(error).splitlines()[0]}", where=str(path), do="mend the file"
        ) from error
    return geometry_from_mapping(mapping, where=str(path))


def _energy_unit(unit: str | None) -> str | None:
    from calo_train.quantities import parse_quantity

    if unit is not None:
        parse_quantity(f"1{unit}", "energy", where="--energy-unit, --voxel-unit")
    return unit


def _check(
    path: Path, config: DatasetConfig | None, detector: Geometry | None, *, as_text: bool
) -> dict[str, Any]:
    from calo_train.showers.inspect import check_file

    result = check_file(_given(path), config, geometry=detector)
    if as_text:
        print(checked(result, None if config is None else config.name))
    return result.as_mapping()


def _finish(command: Callable[[], None], *, quiet: bool, debug: bool) -> None:
    with log_to_stderr(is_quiet=quiet, is_debug=debug):
        code = run_command(command, is_debug=debug)
    sys.exit(code)


if __name__ == "__main__":
    main()
