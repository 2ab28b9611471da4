"""The parametrised simulator beside EGSnrc showers of the same stacks: docs/results/simulator.md.

For each band of incident energy: mean visible fraction and its spread, layer of the mean maximum,
mean depth, mean radius, hits above the data set's threshold. Nothing of the simulator is fitted in
this comparison; what was measured on the same files before is in conf/simulator, with its source.

    python scripts/simulator_study.py ild_photons=photons.h5 calochallenge_ds2=electrons.h5
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calo_train.cli.inputs import named_dataset
from calo_train.showers.dataset import simulated_showers
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.showers.showers import Showers

PAGE = Path(__file__).parents[1] / "docs" / "results" / "simulator.md"
NUMBER = 1000  # simulated showers a band
BANDS = {  # GeV
    "ild_photons": ((10, 20), (45, 55), (90, 100)),
    "calochallenge_ds2": ((1, 2), (8, 12.5), (80, 125), (500, 1000)),
}
_HEAD = """\
# The parametrised simulator beside EGSnrc

Written by `scripts/simulator_study.py`: {number} simulated showers a band against EGSnrc
showers of the same stack, flat slabs at normal incidence. Errors of means are statistical, of
both. The files of EGSnrc showers are not part of the repository.
"""
_TABLE = """
## {name}

{stack} Hits: voxels above {threshold}.

| GeV | showers | visible | spread | maximum, layer | mean layer | mean radius, mm | hits |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Numbers:
    """What is compared of one set of showers."""

    fraction: float
    spread: float  # half of the central 68 % over the median
    maximum: int
    layer: tuple[float, float]  # mean and its error
    radius: tuple[float, float]  # mm
    hits: tuple[float, float]


def numbers_of(showers: Showers, threshold: float) -> Numbers:
    """Measure showers as they are, voxels below the threshold included except in hits."""
    geometry, energies = showers.geometry, showers.energies.astype(np.float64)
    incident = showers.conditions["incident_energy"]
    layers = np.stack([energies[:, piece].sum(axis=1) for piece in geometry.layer_slices], axis=1)
    total = np.maximum(layers.sum(axis=1), 1e-9)
    fraction = layers.sum(axis=1) / incident
    low, middle, high = np.quantile(fraction, (0.16, 0.5, 0.84))
    radius = np.hypot(*geometry.cartesian_centres)
    return Numbers(
        float(fraction.mean()),
        float((high - low) / 2 / middle),
        int(layers.mean(axis=0).argmax()),
        _mean(layers @ np.arange(geometry.num_layers) / total),
        _mean(energies @ radius / total),
        _mean((energies > threshold).sum(axis=1)),
    )


def compare(config: DatasetConfig, path: Path) -> str:
    """Give the rows of one data set."""
    assert config.detector is not None
    with open_paths([path], geometry=config.detector, crop=config.core) as source:
        reference = source.read(0, source.num_showers)
    incident = reference.conditions["incident_energy"]
    rows = ""
    for low, high in BANDS[config.name]:
        chosen = np.flatnonzero((incident > 1e3 * low) & (incident < 1e3 * high))
        law = {"energy_range": f"{low}:{high}GeV"}
        simulated = simulated_showers(named_dataset(config.name, law), NUMBER)
        sets = {"EGSnrc": reference.rows(chosen)}
        sets["simulator"] = simulated.read(0, NUMBER, simulated.detector)
        for label, showers in sets.items():
            found = numbers_of(showers, config.threshold_energy)
            cells = (
                f"{low:g} to {high:g}, {label}",
                len(showers),
                f"{found.fraction:.4f}",
                f"{100 * found.spread:.1f} %",
                found.maximum,
                *(f"{mean:.2f} ± {error:.2f}" for mean, error in (found.layer, found.radius)),
                f"{found.hits[0]:.0f} ± {found.hits[1]:.0f}",
            )
            rows += "| " + " | ".join(str(cell) for cell in cells) + " |\n"
    return rows


def stack_words(config: DatasetConfig) -> str:
    """Say what the effective medium of the first layers is."""
    assert config.simulator is not None
    medium = config.simulator.media[0]
    return (
        f"Effective medium of first layers: X0 {medium.radiation_length:.2f} mm, Moliere radius "
        f"{medium.moliere_radius:.1f} mm, critical energy {medium.critical_energy:.2f} MeV, "
        f"interaction length {medium.interaction_length:.0f} mm, Z {medium.atomic_number:.1f}."
    )


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def main() -> None:
    """Compare and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="DATASET=FILE")
    page = _HEAD.format(number=NUMBER)
    for pair in parser.parse_args().pairs:
        name, _, path = pair.partition("=")
        config = named_dataset(name)
        page += _TABLE.format(name=name, stack=stack_words(config), threshold=config.threshold)
        page += compare(config, Path(path).expanduser())
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote: {PAGE}")


if __name__ == "__main__":
    main()
