"""Requests to web servers, with errors that say what a person can do.

Only http and https. Proxies are taken from the environment and certificates are checked, as
Python's urllib does both.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from calo_train import __version__
from calo_train.errors import DataError, MachineError

if TYPE_CHECKING:
    from http.client import HTTPResponse

# What a connection may fail with at any time: URLError and timeouts are OSErrors.
CONNECTION_ERRORS = (OSError, HTTPException)
_TIMEOUT = 60.0  # seconds without a byte
_MAX_JSON_BYTES = 16 << 20


class Unreachable(MachineError):
    """No server answers: no network, a proxy in between, a wrong address."""


class Refused(MachineError):
    """A server answers with something else than what was asked for."""

    def __init__(self, what: str, *, where: str, do: str, status: int = 0) -> None:
        super().__init__(what, where=where, do=do)
        self.status = status


def open_url(url: str, *, first_byte: int = 0) -> HTTPResponse:
    """Ask for a file, from `first_byte` on where the server can; the caller closes the answer."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(
            f"'{url}' is not a web address", where="the record", do="give an http or https address"
        )
    headers = {"User-Agent": f"calo-train/{__version__}"}
    if first_byte:
        headers["Range"] = f"bytes={first_byte}-"
    try:
        answer: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)  # noqa: S310 - the scheme is checked above
    except HTTPError as error:
        error.close()
        raise Refused(
            f"the server answered {error.code} {error.reason}",
            where=url,
            do="look at the address in a browser; try again later",
            status=error.code,
        ) from error
    except CONNECTION_ERRORS as error:
        raise Unreachable(
            f"no connection: {getattr(error, 'reason', error) or type(error).__name__}",
            where=url,
            do="check the network, or name a mirror with --mirror",
        ) from error
    _require_no_page(answer, url)
    return answer


def get_json(url: str) -> Any:
    """Ask for a JSON document, at most 16 MiB."""
    try:
        with open_url(url) as answer:
            text = answer.read(_MAX_JSON_BYTES)
    except CONNECTION_ERRORS as error:
        raise Unreachable(f"the connection broke: {error}", where=url, do="try again") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(
            "the server sent no JSON", where=url, do="look at the address in a browser"
        ) from error


def is_partial(answer: HTTPResponse, first_byte: int) -> bool:
    """Say whether an answer begins at `first_byte`, as was asked, and not at the start."""
    place = answer.headers.get("Content-Range", "")
    return answer.status == HTTPStatus.PARTIAL_CONTENT and place.startswith(f"bytes {first_byte}-")


def _require_no_page(answer: HTTPResponse, url: str) -> None:
    """Raise Refused for a web page: a login, a portal or an error where a file was asked for."""
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        answer.close()
        raise Refused(
            "the server sent a web page, not what was asked for",
            where=url,
            do="look at the address in a browser: a login, a portal or a moved file",
        )
