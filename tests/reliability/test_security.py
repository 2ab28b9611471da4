"""What strangers may send: archives, links, YAML, addresses; and what must never be written."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import commands
import forked
import numpy as np
import pytest
import torch
import yaml

from calo_train.errors import CaloTrainError, DataError
from calo_train.families.generator import load_generator
from calo_train.showers.web import open_url
from calo_train.yaml_text import YamlError, parse_yaml, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD_GENERATOR = Path(__file__).parents[1] / "families/generator_format_1"


def test_generator_of_format_1_loads_and_draws_what_it_drew() -> None:
    """R19: a folder as the first format wrote it; its showers are those of the day it was written.

    The normals are numbers that no library has to keep: sin(1), sin(2), ...
    """
    generator = load_generator(OLD_GENERATOR)
    sampler = generator.sampler(dtype=torch.float64, device=torch.device("cpu"))
    shape = (sampler.tile, sampler.num_normals)
    count = torch.arange(1, shape[0] * shape[1] + 1, dtype=torch.float64)
    energies = torch.linspace(20e3, 90e3, sampler.tile, dtype=torch.float64)
    drawn = sampler.draw(torch.sin(count).view(shape), {"incident_energy": energies}).energies
    expected = json.loads((OLD_GENERATOR / "drawn.json").read_text())
    np.testing.assert_allclose(drawn.numpy(), expected["energies_mev"], rtol=1e-6, atol=1e-6)


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    """A copy of a small generator, to be tampered with."""
    folder = tmp_path / "generator"
    folder.mkdir()
    for path in OLD_GENERATOR.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "energy-1.safetensors"])
def test_part_outside_its_folder_is_refused(name: str, generator: Path) -> None:
    """X4: a manifest cannot name another file than the part's own."""
    path = generator / "generator.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["parts"]["energy/0"]["file"] = name
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(DataError, match="points to"):
        load_generator(generator)


@pytest.mark.parametrize("key", ["../../evil/0", "energy/../../x", "/energy/0"])
def test_key_of_a_part_is_no_path(key: str, generator: Path) -> None:
    """X4."""
    path = generator / "generator.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["parts"][key] = manifest["parts"].pop("energy/0")
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(DataError):
        load_generator(generator)


def test_link_in_a_generator_is_refused(generator: Path) -> None:
    """X4: not even to an intact part."""
    part = generator / "energy-0.safetensors"
    part.rename(generator.parent / "elsewhere")
    part.symlink_to(generator.parent / "elsewhere")
    with pytest.raises(DataError, match="points to"):
        load_generator(generator)


BILLION_VALUES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "[" * 20_000, "- " * 5_000, "a: &a [*a]",
     BILLION_VALUES, "{", "\x00", "2001-99-99: 1"],
    ids=["tag", "depth", "lists", "cycle", "anchors", "cut off", "control", "date"],
)  # fmt: skip
def test_hostile_yaml_is_refused_quickly(text: str) -> None:
    """X3: tags, depth, cycles, exploding anchors; within seconds, without gigabytes."""
    started = time.process_time()
    with pytest.raises(YamlError):
        parse_yaml(text)
    assert time.process_time() - started < 10


def test_huge_yaml_is_not_read(tmp_path: Path) -> None:
    """X3."""
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(YamlError, match="larger than 16 MiB"):
        read_yaml(path)


class _Redirecting(BaseHTTPRequestHandler):
    target = ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.target)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def redirecting_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Redirecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/photons.h5"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_download_does_not_follow_a_redirect_to_a_file(
    target: str, redirecting_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X8: a server cannot make us read what lies here, nor leave the web."""
    monkeypatch.setattr(_Redirecting, "target", target)
    with pytest.raises(CaloTrainError):
        open_url(redirecting_server)


SECRETS = {
    "WANDB_API_KEY": "5ec2e7" * 7, "MY_TOKEN": "T0K3N-OF-MINE", "AWS_SECRET": "ABC-S3CRET"
}  # fmt: skip


def set_secrets() -> None:
    """Put what looks like keys into the environment of a command."""
    os.environ.update(SECRETS)


def test_secrets_are_in_no_file_and_no_message(tmp_path: Path, tiny_data: Path) -> None:
    """X9: config, logs, report of a failing and of a working training."""
    words = commands.tiny_training(tiny_data, "only=energy")
    done = forked.run("calo-train", *words, "logger=tensorboard", cwd=tmp_path,
                      log=tmp_path / "log", prepare=set_secrets)  # fmt: skip
    assert done.process.exitcode == 0, done.log
    bad = forked.run("calo-train", *words, "model.energy_training.learning_rate=1e30", "name=b",
                     "--debug", cwd=tmp_path, log=tmp_path / "bad log",
                     prepare=set_secrets)  # fmt: skip
    assert bad.process.exitcode == 4, bad.log
    host = os.uname().nodename
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in (*SECRETS.values(), host):
            assert secret.encode() not in content, path
            assert secret not in path.name
