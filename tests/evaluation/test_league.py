"""E9: published results beside our own, by the same definitions."""

from __future__ import annotations

import math

import pytest

from calo_train.evaluation.league import JOINT, SEPARATIONS, published_results


def test_published_numbers_are_those_of_the_paper():
    """arXiv:2410.21611 on data set 2: CaloDREAM's classifiers, L2LFlows' separations."""
    published = published_results("2")
    assert len(published) == 18  # 17 submissions and the floor
    dream = published["CaloDREAM"]
    assert dream["binary cls low"].value == pytest.approx(0.5308, abs=5e-5)
    assert dream["binary cls low"].error == pytest.approx(0.0032, abs=5e-5)
    flows = published["conv. L2LFlows"]
    assert 1e3 * flows["sep E layer (mean)"].value == pytest.approx(0.82, abs=5e-3)
    assert math.isnan(flows["sep E layer (mean)"].error)
    assert published["GEANT4"]["FPD * 1e3"].value == pytest.approx(10.78, abs=5e-3)
    assert "time GPU 10000" not in dream  # not given


@pytest.mark.parametrize("dataset", ["1-photons", "1-pions", "2", "3"])
def test_every_data_set_has_every_column_of_the_tables(dataset):
    published = published_results(dataset)
    names = {name for numbers in published.values() for name in numbers}
    wanted = {column.published for column in (*SEPARATIONS, *JOINT)}
    if dataset.startswith("1"):
        wanted.remove("binary cls cnn")  # data sets 2 and 3 only
    assert wanted <= names
