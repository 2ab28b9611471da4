"""The event display: true positions in mm, pairs of equal incident energy, nothing invented."""

from __future__ import annotations

import base64

import detectors
import judged
import numpy as np
import pytest

from calo_train.evaluation.event_display import (
    event_display,
    nearest_rows,
    page_data,
    spread_rows,
    voxel_positions,
)


def test_positions_of_cartesian_cells_are_their_centres():
    positions = voxel_positions(detectors.cartesian())
    assert positions[0].tolist() == [-7.5, -7.5, 2.5]
    assert positions[-1].tolist() == [7.5, 7.5, 12.5]


def test_positions_of_polar_cells_lie_around_the_axis():
    """First angle of four: the middle of -pi to -pi/2; radii 5 and 15 mm; layers of 3 mm."""
    positions = voxel_positions(detectors.polar())
    assert positions[1] == pytest.approx([-15 * 2**-0.5, -15 * 2**-0.5, 1.5])
    assert np.hypot(positions[:, 0], positions[:, 1]) == pytest.approx([5, 15] * 12)


def test_pairs_have_the_incident_energies_of_the_reference():
    energies = np.asarray([40.0, 10.0, 90.0, 20.0, 70.0, 55.0])
    rows = spread_rows(energies, 3)
    assert energies[rows].tolist() == [20.0, 55.0, 90.0]
    sample = np.asarray([91.0, 50.0, 56.0, 21.0])
    assert nearest_rows(sample, energies[rows]).tolist() == [3, 2, 0]


def test_no_shower_of_a_sample_is_shown_twice():
    assert nearest_rows(np.asarray([9.0, 10.0]), np.asarray([10.0, 10.0])).tolist() == [1, 0]


def test_hits_of_the_page_are_the_voxels_that_the_threshold_keeps():
    sample, reference = judged.independent_pair(60)
    display = event_display(judged.judge(sample, reference))
    shower = display.sets[1].showers[0]
    row = int(np.flatnonzero(sample.conditions["incident_energy"] == shower.incident_energy)[0])
    kept = sample.energies[row][sample.energies[row] >= judged.THRESHOLD]
    data = page_data(display)["sets"][1]["showers"][0]
    hits = np.frombuffer(base64.b64decode(data["hits"]), "<f4").reshape(-1, 4)
    assert hits[:, 3].tolist() == sorted(kept.tolist())
    assert data["num_hits"] == len(kept)
    voxel = int(np.argmax(sample.energies[row]))
    assert hits[-1, :3] == pytest.approx(voxel_positions(sample.geometry)[voxel])
