"""What is asked of the server and what it answers, as values; bodies stay where they are."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal, NoReturn

Origin = Literal["hub", "cdn"]
Headers = tuple[tuple[str, str], ...]

_RANGE: Final = re.compile(r"bytes=(?P<begin>\d*)-(?P<end>\d*)")


class DisconnectError(Exception):
    """The connection is to be closed here, without a further byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRange:
    """Bytes `begin` to `end` of a file; they are sent from disk, never held in memory."""

    path: Path
    begin: int
    end: int


Body = bytes | FileRange


def size_of(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else body.end - body.begin


def content_of(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body
    with body.path.open("rb") as file:
        file.seek(body.begin)
        return file.read(body.end - body.begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, and what is to go wrong while its body is sent (offsets count from its begin)."""

    status: int
    headers: Headers = ()
    body: Body = b""
    cut_after: int | None = None
    reset: bool = False
    """Whether a cut is a reset (RST), which some clients take for another kind of error."""
    stall_after: int | None = None
    stall_seconds: float = 0
    flip_at: int | None = None
    missing: int = 0
    """How many bytes at the end neither Content-Length nor the body has."""


class RefusedError(Exception):
    """Ends the handling of a call with an answer as the Hub gives it for a failure."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        named = (("X-Error-Code", code),) if code else ()
        self.answer = as_json(
            {"error": message},
            status=status,
            headers=(*headers, *named, ("X-Error-Message", message)),
        )


class MovedError(Exception):
    """Ends the handling of a call with another address, which the client is to ask instead."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.answer = redirect(307, location)


def as_json(value: object, *, status: int = 200, headers: Headers = ()) -> Answer:
    kind = ("Content-Type", "application/json; charset=utf-8")
    return Answer(status=status, headers=(kind, *headers), body=json.dumps(value).encode())


def redirect(status: int, location: str, headers: Headers = ()) -> Answer:
    text = f"Redirecting to {location}".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return Answer(status=status, headers=(kind, *headers, ("Location", location)), body=text)


def whole_or_range(path: Path, size: int, wanted: str | None, headers: Headers) -> Answer:
    """The file, or the one range of it that a Range header asks for: 200, 206 or 416.

    Several ranges in one header get the whole file, as from most storages.
    """
    headers = (*headers, ("Accept-Ranges", "bytes"))
    match = _RANGE.fullmatch(wanted.strip()) if wanted else None
    if match is None or not (match["begin"] or match["end"]):
        return Answer(status=200, headers=headers, body=FileRange(path=path, begin=0, end=size))
    if match["begin"]:
        begin = int(match["begin"])
        end = min(int(match["end"]) + 1 if match["end"] else size, size)
    else:
        begin, end = max(size - int(match["end"]), 0), size
    if begin >= end:
        return Answer(status=416, headers=(*headers, ("Content-Range", f"bytes */{size}")))
    return Answer(
        status=206,
        headers=(*headers, ("Content-Range", f"bytes {begin}-{end - 1}/{size}")),
        body=FileRange(path=path, begin=begin, end=end),
    )


class RequestBody(io.RawIOBase):
    """The body of a request, of stated length or in chunks.

    Reading raises DisconnectError after `cut_after` bytes, EOFError when the client leaves early.
    """

    def __init__(self, stream: BinaryIO, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._stream = stream
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = 0 if self.chunked else int(headers.get("content-length", "0"))
        self._ended = not self.chunked and not self._left
        self.received = 0
        self.cut_after: int | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self.chunked and not self._left and not self._ended:
            self._begin_chunk()
        if self._ended:
            return 0
        wanted = min(len(buffer), self._left)
        if self.cut_after is not None:
            wanted = min(wanted, self.cut_after - self.received)
            if wanted <= 0:
                raise DisconnectError
        data = self._stream.read(wanted)
        if len(data) < wanted:
            _left_early()
        buffer[: len(data)] = data
        self.received += len(data)
        self._left -= len(data)
        if not self._left and self.chunked:
            self._stream.readline(8)
        elif not self._left:
            self._ended = True
        return len(data)

    def lines(self) -> Iterator[bytes]:
        """The lines of the body, one at a time."""
        rest = b""
        while piece := self.read(2**20):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _begin_chunk(self) -> None:
        line = self._stream.readline(100)
        if not line:
            _left_early()
        self._left = int(line.split(b";")[0], 16)
        if not self._left:
            self._ended = True
            while self._stream.readline(65_536).strip():
                pass  # trailers


def _left_early() -> NoReturn:
    raise EOFError("the client left before the end of its request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. Header names are in lower case; `path` is unquoted, `target` is as sent."""

    origin: Origin
    method: str
    path: str
    target: str
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: RequestBody
    names: Mapping[str, str] = field(default_factory=dict)
    """What the route found in the path: repo, revision, path and the like, unquoted."""

    def asks(self, name: str) -> bool:
        return self.query.get(name, ("",))[0].lower() in ("1", "true")

    def json(self) -> dict[str, object]:
        """The body as a JSON object; RefusedError (400) when it is none."""
        try:
            value = json.loads(self.body.readall())
        except ValueError:
            raise RefusedError(400, "Invalid JSON in the body") from None
        if not isinstance(value, dict):
            raise RefusedError(400, "Expected an object")
        return value

    def objects(self, name: str, *, limit: int) -> list[dict[str, object]]:
        """The list of objects that the body holds as `name`; RefusedError (400) when it is none."""
        values = self.json().get(name)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise RefusedError(400, f"{name} should be a list of objects")
        if len(values) > limit:
            raise RefusedError(400, f"{name} has more than {limit} entries")
        return values


def text(fields: Mapping[str, object], name: str, default: str = "") -> str:
    """The text in a field, `default` for an empty one; RefusedError (400) when it is none."""
    value = fields.get(name) or default
    if not isinstance(value, str):
        raise RefusedError(400, f"{name} should be a string")
    return value
