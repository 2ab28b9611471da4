"""Where the config groups lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from calo_train.errors import MachineError

_ROOT_FILE = "train.yaml"


def conf_folder() -> Path:
    """Give the absolute path of the config groups."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / _ROOT_FILE).is_file():
            return folder
    raise MachineError(
        "the config groups are missing from this installation",
        where=str(package / "conf"),
        do="install calo-train again",
    )


def config_groups(own_folder: Path | None = None) -> dict[str, dict[str, str]]:
    """List groups and choices, `group -> {choice: first comment line}`; the user's own first."""
    found: dict[str, dict[str, str]] = {}
    for folder in [*([own_folder] if own_folder else []), conf_folder()]:
        for path in sorted(folder.glob("*/*.yaml")):
            found.setdefault(path.parent.name, {}).setdefault(path.stem, _summary(path))
    return found


def _summary(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@package")), "")
