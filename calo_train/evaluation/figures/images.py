"""Average and single showers as pictures: layer against transverse axis, beside the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.event_display import paired_showers
from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    Column,
    FloatArray,
    ReportFigure,
    caption_tail,
    new_figure,
    suffix_of,
    words_of,
)
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from calo_train.evaluation.deposits import Profile
    from calo_train.evaluation.results import Evaluation, SampleResult

_FAINT = 1e-3  # of the brightest bin: differences of fainter ones are not shown
_DIFFERENCE_RANGE = 20.0  # per cent
_DECADES = 4
_NUM_SINGLE = 3  # showers of each set


def axis_profiles(evaluation: Evaluation) -> list[Profile]:
    """Give the bins along the transverse axes; none where no layer is divided."""
    return [entry for name, entry in evaluation.grid.profiles.items() if name != "radius"]


@shows("Showers", rank=10)
def average_shower_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the mean showers of every sample; nothing where no layer is divided."""
    if axis_profiles(evaluation):
        for result in evaluation.samples:
            yield _average_shower_figure(evaluation, result, section)


@shows("Showers", rank=20)
def single_showers_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw some showers of every set; nothing where no layer is divided."""
    if axis_profiles(evaluation):
        yield _single_showers_figure(evaluation, section)


def _average_shower_figure(
    evaluation: Evaluation, result: SampleResult, section: str
) -> ReportFigure:
    """Draw the mean shower of reference and sample and their relative difference."""
    profiles = axis_profiles(evaluation)
    figure = new_figure(11.0, 3.1 * len(profiles) + 0.3)
    panels = figure.subplots(len(profiles), 3, squeeze=False)
    numbers: dict[str, list[npt.NDArray[Any]]] = {}
    for row, profile in zip(panels, profiles, strict=True):
        reference = _project(evaluation, evaluation.reference_table.mean_energies, profile)
        sample = _project(evaluation, result.table.mean_energies, profile)
        highest = float(max(reference.max(), sample.max()))
        for axes, image, title in (
            (row[0], reference, "reference"),
            (row[1], sample, result.showers.label),
        ):
            mesh = _draw_energies(axes, image, profile, highest)
            axes.set_title(title, fontsize=11)
            figure.colorbar(mesh, ax=axes, label="mean energy [MeV]", pad=0.02)
        mesh = _draw_difference(row[2], reference, sample, profile)
        row[2].set_title("difference", fontsize=11)
        figure.colorbar(mesh, ax=row[2], label="(sample - reference) / reference [%]", pad=0.02)
        row[0].set_ylabel(f"{profile.name} [{profile.unit}]")
        _add_numbers(numbers, profile, reference, sample)
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    return ReportFigure(
        name=f"average_shower{suffix_of(evaluation, result)}",
        title="Average shower" + words_of(evaluation, result),
        section=section,
        caption="Mean energy per layer and cell, summed over the other transverse axis. "
        f"{caption_tail(evaluation)}",
        figure=figure,
        numbers=_axis_columns(numbers, profiles),
        is_wide=True,
    )


def _single_showers_figure(evaluation: Evaluation, section: str) -> ReportFigure:
    """Draw showers of reference and samples of about equal incident energy above each other."""
    rows = [
        PictureRow(entry.label if place else "reference", entry.energies, entry.incident_energy)
        for place, entry in enumerate(paired_showers(evaluation, _NUM_SINGLE))
    ]
    figure, numbers = draw_shower_rows(evaluation, rows)
    return ReportFigure(
        name="single_showers",
        title="Single showers",
        section=section,
        caption="Showers of low, middle and high incident energy, chosen by it alone, each "
        f"sample's as close as there is to the reference's. {caption_tail(evaluation)}",
        figure=figure,
        numbers=numbers,
        is_wide=True,
    )


@dataclass(frozen=True, eq=False)
class PictureRow:
    """Showers (k, voxels) drawn beside each other; energies and scores may be of more."""

    label: str
    energies: npt.NDArray[np.float32]
    incident_energy: FloatArray
    scores: FloatArray | None = None

    def title(self, index: int) -> str:
        """Say which shower a picture shows."""
        energy = format_energy(float(f"{self.incident_energy[index]:.3g}"))
        score = "" if self.scores is None else f", score {self.scores[index]:.2g}"
        return f"{self.label}, {energy}{score}"


def draw_shower_rows(
    evaluation: Evaluation, rows: Sequence[PictureRow]
) -> tuple[Figure, dict[str, Column]]:
    """Draw rows of showers in one colour scale, the reference first; give their numbers too."""
    profile = axis_profiles(evaluation)[0]
    num_columns = min(len(row.energies) for row in rows)
    figure = new_figure(3.6 * num_columns + 0.8, 2.8 * len(rows))
    panels = figure.subplots(len(rows), num_columns, squeeze=False, sharex=True, sharey=True)
    images = [[_project(evaluation, shower, profile) for shower in row.energies] for row in rows]
    highest = max(float(image.max()) for row_images in images for image in row_images)
    numbers: dict[str, list[npt.NDArray[Any]]] = {}
    for place, (row, axes_row) in enumerate(zip(rows, panels, strict=True)):
        for index, axes in enumerate(axes_row):
            image = images[place][index]
            mesh = _draw_energies(axes, image, profile, highest)
            axes.set_title(row.title(index), fontsize=10.5)
            numbers.setdefault("shower", []).append(np.full(image.size, index))
            numbers.setdefault("energy", []).append(image.ravel())
            numbers.setdefault("is_reference", []).append(np.full(image.size, place == 0))
        axes_row[0].set_ylabel(f"{profile.name} [{profile.unit}]")
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    figure.colorbar(mesh, ax=panels, label="energy [MeV]", pad=0.01)
    return figure, {key: np.concatenate(values) for key, values in numbers.items()}


def _project(evaluation: Evaluation, energies: npt.ArrayLike, profile: Profile) -> FloatArray:
    """Sum a shower (voxels,) to (bins, layers)."""
    geometry = evaluation.reference.geometry
    inside = profile.bin_of_voxel >= 0
    target = profile.bin_of_voxel[inside] * geometry.num_layers + geometry.layer_of_voxel[inside]
    sums = np.bincount(
        target,
        weights=np.asarray(energies, dtype=np.float64)[inside],
        minlength=profile.num_bins * geometry.num_layers,
    )
    return np.asarray(sums, dtype=np.float64).reshape(profile.num_bins, geometry.num_layers)


def _draw_energies(axes: Axes, image: FloatArray, profile: Profile, highest: float) -> QuadMesh:
    from matplotlib.colors import LogNorm

    norm = LogNorm(max(highest, 1e-9) / 10**_DECADES, max(highest, 1e-9))
    edges = np.arange(image.shape[1] + 1) - 0.5
    shown = np.ma.masked_less_equal(image, 0)
    axes.minorticks_off()
    return axes.pcolormesh(edges, profile.edges, shown, norm=norm, cmap="viridis", rasterized=True)


def _draw_difference(
    axes: Axes, reference: FloatArray, sample: FloatArray, profile: Profile
) -> QuadMesh:
    edges = np.arange(reference.shape[1] + 1) - 0.5
    faint = reference <= _FAINT * reference.max()
    difference = 100 * (sample - reference) / np.where(faint, 1.0, reference)
    axes.set_facecolor("#eeeeee")
    axes.minorticks_off()
    return axes.pcolormesh(
        edges, profile.edges, np.ma.masked_where(faint, difference), cmap="RdBu_r",
        vmin=-_DIFFERENCE_RANGE, vmax=_DIFFERENCE_RANGE, rasterized=True,
    )  # fmt: skip


def _add_numbers(
    numbers: dict[str, list[npt.NDArray[Any]]],
    profile: Profile,
    reference: FloatArray,
    sample: FloatArray,
) -> None:
    bins, layers = np.indices(reference.shape)
    columns = {
        "bin_low": profile.edges[:-1][bins.ravel()],
        "layer": layers.ravel(),
        "reference": reference.ravel(),
        "sample": sample.ravel(),
    }
    for key, values in columns.items():
        numbers.setdefault(key, []).append(values)


def _axis_columns(
    numbers: dict[str, list[npt.NDArray[Any]]], profiles: list[Profile]
) -> dict[str, Column]:
    lengths = [len(piece) for piece in numbers["layer"]]
    names: Column = np.repeat([profile.name for profile in profiles], lengths)
    return {"axis": names} | {key: np.concatenate(values) for key, values in numbers.items()}
