"""The process that speaks with Weights & Biases for a command; lines of JSON are its input.

The first line says which run (`calo_train.tracking.TrackedRun`), the others what to add. It ends
with its input, within the limit that the last line gives, whatever the server does; words for the
user go to stdout as `LEVEL TEXT`. When the command is killed the input ends, and this process too.
"""

from __future__ import annotations

import json
import netrc
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_START = 30.0  # seconds that a server may take to answer at first
_SYNC = "wandb sync FOLDER/wandb/*run-*"


def main() -> None:
    """Serve one run until the input ends."""
    first = json.loads(sys.stdin.readline())
    run = _start(first)
    limit = float(first["finish_limit"])
    stages: set[str] = set()
    for line in sys.stdin:
        message = json.loads(line)
        if "finish" in message:
            limit = float(message["finish"])
        elif "log" in message:
            _log_epoch(run, message["stage"], message["log"], stages)
        else:
            _add_report(run, message)
    _finish(run, limit)


def _start(spec: Mapping[str, Any]) -> Any:
    import wandb

    is_online = spec["is_online"]
    if is_online and not _has_key():
        _say("info", "W&B has no key here (wandb login), so the run is kept offline")
        is_online = False
    try:
        run = _init(spec, is_online=is_online)
    except (wandb.errors.Error, OSError, TimeoutError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _say("warning", f"W&B cannot be reached ({reason}), so the run is kept offline")
        is_online = False
        run = _init(spec, is_online=False)
    if not is_online:
        _say("info", f"W&B is offline; send the run later with: {_SYNC}")
    return run


def _init(spec: Mapping[str, Any], *, is_online: bool) -> Any:
    import wandb

    # Sent are config, metrics and reports; no host, program path, environment, console or code.
    settings = wandb.Settings(
        console="off",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        disable_git=True,
        disable_code=True,
        host="anon",
        x_save_requirements=False,
        silent=True,
        init_timeout=_LONGEST_START,
    )
    return wandb.init(
        project=spec["project"],
        name=spec["name"],
        id=spec["run_id"],
        dir=spec["folder"],
        mode="online" if is_online else "offline",
        resume="allow",
        config=dict(spec["config"]),
        settings=settings,
    )


def _has_key() -> bool:
    """Whether there is a key for the server: in the environment, or by `wandb login`."""
    import wandb

    settings = wandb.setup().settings
    if settings.api_key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(settings.base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _log_epoch(run: Any, stage: str, values: Mapping[str, float], stages: set[str]) -> None:
    """Add a row; every stage counts its own epochs."""
    if stage not in stages:
        stages.add(stage)
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    run.log(dict(values))


def _add_report(run: Any, message: Mapping[str, Any]) -> None:
    import wandb

    title = message["report"]
    header, *rows = message["rows"]
    entries: dict[str, Any] = {
        f"{title}/{name}": wandb.Image(path)
        for name, path in message["figures"].items()
        if Path(path).is_file()
    }
    entries[f"{title}/metrics"] = wandb.Table(columns=header, data=rows)
    run.log(entries)


def _finish(run: Any, limit: float) -> None:
    """Wait for the server for so long, then leave in whatever state it is."""

    def give_up() -> None:
        _say("warning", f"W&B did not take all in {limit:.0f} s; send the rest with: {_SYNC}")
        os._exit(0)

    timer = threading.Timer(limit, give_up)
    timer.daemon = True
    timer.start()
    run.finish()
    timer.cancel()


def _say(level: str, text: str) -> None:
    with suppress(OSError):  # nobody listens when the command was killed; the run goes on
        sys.stdout.write(f"{level} {text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
