"""A server of published records on the loopback interface, with what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Archive:
    """Files of one record, and how they are sent: `fault` names what goes wrong."""

    files: dict[str, bytes]
    fault: str = ""  # page, cut, stall, no range, altered, longer, missing, busy
    cut_after: int = 0  # bytes of a connection
    ranges: list[str] = field(default_factory=list)  # Range header of each request for a file
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def zenodo(self) -> dict[str, Any]:
        """The record as Zenodo describes it, with links to its own address."""
        return {
            "files": [
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",  # noqa: S324 - as Zenodo does
                    "links": {"self": f"https://zenodo.org/content/{name}"},
                }
                for name, content in self.files.items()
            ]
        }

    def mendeley(self) -> list[dict[str, Any]]:
        """The file list as Mendeley Data gives it."""
        return [
            {
                "filename": name,
                "content_details": {
                    "size": len(content),
                    "sha256_hash": hashlib.sha256(content).hexdigest(),
                    "download_url": f"https://data.mendeley.com/content/{name}",
                },
            }
            for name, content in self.files.items()
        ]


@contextmanager
def serving(archive: Archive) -> Iterator[Archive]:
    """Serve an archive; its `url` stands in for the home of Zenodo and Mendeley Data."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/records/"):
                self._send(json.dumps(archive.zenodo()).encode(), "application/json")
            elif self.path.startswith("/public-api/datasets/"):
                self._send(json.dumps(archive.mendeley()).encode(), "application/json")
            else:
                self._send_file(archive.files[self.path.removeprefix("/content/")])

        def _send_file(self, content: bytes) -> None:
            wanted = self.headers.get("Range", "")
            archive.ranges.append(wanted)
            first = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            if archive.fault == "page":
                return self._send(b"<html>log in</html>", "text/html; charset=utf-8")
            if archive.fault in ("missing", "busy"):
                return self.send_error(404 if archive.fault == "missing" else 503)
            if archive.fault == "altered":
                content = content[:-1] + bytes([content[-1] ^ 1])
            if archive.fault == "longer":
                content += b"more"
            if archive.fault == "no range" or not wanted:
                return self._send(content, "application/octet-stream")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            return self._send_body(content[first:])

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self._send_body(content)

        def _send_body(self, content: bytes) -> None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            is_file = self.path.startswith("/content/")
            end = archive.cut_after if is_file and archive.cut_after else len(content)
            self.wfile.write(content[:end])
            if is_file and archive.fault == "stall":
                archive.released.wait(60)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        archive.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
