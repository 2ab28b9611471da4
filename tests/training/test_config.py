"""Configurations: what is composed, and what is refused with the nearest names."""

from __future__ import annotations

from pathlib import Path

import pytest

from calo_train.errors import CaloTrainError, UsageError
from calo_train.families.l2lflows import L2LFlows
from calo_train.training.compose import composed_run
from calo_train.training.config import differing_keys


def test_defaults_are_the_papers_model_on_the_embedded_sample() -> None:
    config = composed_run([])
    assert isinstance(config.family, L2LFlows)
    assert config.folder == Path("runs/ild_sample/l2lflows/default")
    assert config.family.causal_flow.hidden_features == 128


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.causal_flow.hiden_features=3", "hidden_features"),
        ("+model.causal_flow.hiden_features=3", "hidden_features"),
        ("modle=l2lflows", "model"),
        ("model=l2lflow", "l2lflows"),
        ("dataset=ild_foton", "ild_photons"),
        ("sede=3", "seed"),
        ("model.causal_flow.hidden_features=many", "hidden_features"),
        ("trainer.accelerator=tpu", "cpu, gpu"),
        ("trainer.checkpoint_interval=5", "duration"),
        ("dataset.threshold=0.1", "unit"),
        ("model.causal_training.schedule=warm", "onecycle"),
        ("name=a/b", "folder"),
        ("seed=-1", "seed"),
        ("dataset=ild_photons", "dataset.path"),
        ("model._target_=os.system", "outside"),
        ("model._target_=calo_train.families.l2lflows.family.parse_quantity", "not a family"),
        ("+model.causal_flow._partial_=true", "_partial_"),
        ("+dataset._target_=os.system", "_target_"),
    ],
)
def test_wrong_override_is_refused_with_a_way_out(override: str, words: str) -> None:
    """U2, X2."""
    with pytest.raises(UsageError) as refused:
        composed_run([override])
    assert words in str(refused.value)


def test_paths_need_no_second_quoting() -> None:
    """U8."""
    path = "~/my data/a=b, c'd ü.h5"
    config = composed_run(["dataset=ild_photons", f"dataset.path={path}"])
    assert config.dataset.path == path


def test_own_config_folder_is_found_and_checked(tmp_path: Path) -> None:
    """U11."""
    (tmp_path / "model").mkdir()
    own = tmp_path / "model" / "mine.yaml"
    own.write_text("_target_: calo_train.families.l2lflows.L2LFlows\ntile: 7\n", encoding="utf-8")
    config = composed_run(["model=mine"], config_dir=tmp_path)
    assert config.family.tile == 7
    own.write_text("_target_: calo_train.families.l2lflows.L2LFlows\ntle: 7\n", encoding="utf-8")
    with pytest.raises(CaloTrainError, match="tile"):
        composed_run(["model=mine"], config_dir=tmp_path)


def test_hardware_may_change_on_resume_and_hyperparameters_may_not() -> None:
    old = {"seed": 0, "trainer": {"accelerator": "cpu"}, "model": {"tile": 5}}
    new = {"seed": 0, "trainer": {"accelerator": "gpu"}, "model": {"tile": 6}}
    assert differing_keys(old, new) == {"model.tile": "5 -> 6"}
