"""The wheel works alone: another environment, an empty folder with a space in its name."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from command_interface import CHECKOUT, command_modules


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout; needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own, its dependencies taken from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    interpreter = folder / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run([interpreter, "-c", asked], check=True, capture_output=True, text=True)
    site_packages = Path(answer.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    # Folders named in a .pth file come after site-packages and their own .pth files, such as the
    # one of an editable installation, are not read.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(shared), encoding="utf-8")
    return interpreter


def run_in(folder: Path, python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the environment's interpreter in an empty folder with a space in its name."""
    folder = folder / "no checkout here"
    folder.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_every_package_file_and_config_group(wheel: Path) -> None:
    """Config groups, embedded showers and report templates are data that builds forget easily."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    package = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "calo_train").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    config = {
        f"calo_train/{path.relative_to(CHECKOUT).as_posix()}"
        for path in (CHECKOUT / "conf").rglob("*.yaml")
    }
    assert "calo_train/showers/embedded/ild_sample.h5" in package
    assert package | config <= held


def test_wheel_holds_nothing_but_the_package_and_its_licence(wheel: Path) -> None:
    """Tests, data and local files of the checkout have no place in a user's environment."""
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert roots == {"calo_train", f"{wheel.name.partition('-py3')[0]}.dist-info"}
    assert len(licences) == 1


def test_wheel_declares_the_commands(wheel: Path) -> None:
    scripts = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        scripts.read_string(archive.read(name).decode())
    declared = {
        name: target.partition(":")[0] for name, target in scripts["console_scripts"].items()
    }
    assert declared == command_modules()


def test_installed_wheel_is_what_runs(python: Path, tmp_path: Path) -> None:
    """The checkout must not leak into the environment that judges the wheel."""
    answer = run_in(tmp_path, python, "-c", "import calo_train; print(calo_train.__file__)")
    assert Path(answer.stdout.strip()).is_relative_to(python.parents[1]), answer.stderr


def test_installed_wheel_lists_its_config_groups(python: Path, tmp_path: Path) -> None:
    shown = run_in(tmp_path, python, "-m", "calo_train.cli.train", "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"{python.parents[1]}" in shown.stdout
    assert "l2lflows" in shown.stdout


def test_installed_wheel_reads_the_embedded_showers(python: Path, tmp_path: Path) -> None:
    asked = (
        "from calo_train.showers.paths import embedded_file; print(embedded_file('ild_sample.h5'))"
    )
    embedded = run_in(tmp_path, python, "-c", asked).stdout.strip()
    shown = run_in(tmp_path, python, "-m", "calo_train.cli.data", "info", embedded)
    assert shown.returncode == 0, shown.stderr
    assert "3100" in shown.stdout


def test_installed_wheel_trains_in_a_folder_with_a_space(python: Path, tmp_path: Path) -> None:
    """U8 and the first contact: one epoch of a small energy flow, from an empty folder."""
    small = ["model.energy_flow.num_blocks=1", "model.energy_flow.hidden_features=8"]
    trained = run_in(
        tmp_path,
        python,
        *["-m", "calo_train.cli.train", "experiment=quickstart", "trainer.max_epochs=1"],
        *["only=energy", *small],
    )
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "no checkout here" / "runs" / "ild_sample" / "l2lflows" / "quickstart"
    assert (run / "stages" / "energy" / "parts" / "0.safetensors").is_file()
