"""A local server that speaks the Hub's protocol, for the real client.

    with Hub() as hub:
        hub.add("org/name", {"config.json": b"{}", "model.safetensors": Path("big.safetensors")})
        HfApi(endpoint=hub.url).model_info("org/name")
        assert [request.path for request in hub.requests] == ["/api/models/org/name"]

As on the Hub, large files come from a storage of another origin: a second port, because the client
follows redirects within one origin and keeps its token to itself at another. By hand:

    python -m tests.hub.server --port 8090 --root FOLDER

serves every FOLDER/org/name; then `HF_ENDPOINT=http://127.0.0.1:8090 dus inspect org/name`.
"""

import argparse
import contextlib
import http
import io
import itertools
import signal
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub import reading, uploading, writing
from tests.hub.answers import (
    Answer,
    Call,
    DisconnectError,
    FileRange,
    MovedError,
    Origin,
    RefusedError,
    RequestBody,
    size_of,
)
from tests.hub.faults import Fault, Injection
from tests.hub.repositories import Account, Repository, Settings, State

MEMBER: Final = "hf_member"
"""Token of a member of `org`, who may write there."""
READER: Final = "hf_reader"
"""Token of the same account that may only read."""
STRANGER: Final = "hf_stranger"
"""Token of somebody else."""
EXPIRED: Final = "hf_expired"

ROUTES: Final = (*reading.ROUTES, *writing.ROUTES, *uploading.ROUTES, *reading.LAST_ROUTES)
PIECE: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked of the server and what came of it."""

    origin: Origin
    """`hub`, or `cdn` for the storage of large files."""
    method: str
    path: str
    """Unquoted, without query."""
    query: Mapping[str, tuple[str, ...]]
    range: str | None
    """The Range header."""
    token: str | None
    status: int = 0
    """0 where the connection was closed without an answer."""
    bytes_sent: int = 0
    """Of the answer's body."""
    bytes_received: int = 0
    """Of the request's body."""


class Hub:
    """The server, from entering the context to leaving it.

    On leaving, a failure inside the server is raised: the client has seen status 500 and may have
    hidden it.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        port: int = 0,
        report: Callable[[Request], None] | None = None,
    ) -> None:
        """`report` is called with each request as it ends; `port` 0 is any that is free."""
        self._temporary = tempfile.TemporaryDirectory(prefix="hub-")
        self.folder = Path(self._temporary.name)
        """For what the server stores; `home` in it is free for a client's cache."""
        self.home = self.folder / "home"
        objects = self.folder / "objects"
        objects.mkdir()
        self._state = State(objects, settings or Settings())
        self._state.tokens |= {
            MEMBER: Account(name="member", orgs=("org",)),
            READER: Account(name="member", orgs=("org",), role="read"),
            STRANGER: Account(name="stranger"),
            EXPIRED: Account(name="member", orgs=("org",), expired=True),
        }
        self._report = report
        self._requests: list[Request] = []
        self._injections: list[Injection] = []
        self._failures: list[Exception] = []
        self._quiet = threading.Condition()
        self._under_way = 0
        self.closing = threading.Event()
        self._servers = [_Server(self, "hub", port), _Server(self, "cdn", 0)]
        self._state.hub_url, self._state.cdn_url = (server.url for server in self._servers)
        self._threads = [
            # Tests start many servers, so each looks often, all 5 ms, whether it is to end.
            threading.Thread(target=server.serve_forever, args=(0.005,))
            for server in self._servers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.leave_clients()
            server.server_close()
        for thread in self._threads:
            thread.join()
        self._temporary.cleanup()
        if error is None and self._failures:
            raise self._failures[0]

    # --- What there is ---

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return self._state.hub_url

    @property
    def tokens(self) -> dict[str, Account]:
        """The accounts of all valid and expired tokens; may be changed."""
        return self._state.tokens

    @property
    def repositories(self) -> Mapping[str, Repository]:
        return self._state.repositories

    def add(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        private: bool = False,
        gated: bool = False,
        revision: str = "main",
        sha256: Mapping[str, str] | None = None,
    ) -> Repository:
        """A repository with a commit of exactly these files on the branch `revision`.

        In a repository that exists the commit is added to it. Files given by path are not copied:
        they stay where they are and are sent from there, holes and all. `sha256` states hashes
        that are to be taken as they are, for files too large to be hashed or for wrong content.
        """
        stated = sha256 or {}
        blobs = {
            file: self._state.blob(file, content, stated.get(file))
            for file, content in files.items()
        }
        with self._state.lock:
            repo = self._state.repositories.setdefault(name, Repository(id=name))
            repo.private, repo.gated = private, gated
            if not repo.branches and revision != "main":
                repo.append("main", {}, title="initial commit", author="system")
            repo.append(revision, blobs, title="Upload", author="system")
        return repo

    def tag(self, name: str, tag: str, *, revision: str = "main") -> None:
        repo = self._state.repositories[name]
        commit = repo.find(revision)
        if commit is None:
            raise ValueError(f"{name} has no revision {revision}")
        repo.tags[tag] = commit.oid

    def rename(self, old: str, new: str) -> None:
        """From now on `old` is redirected to `new`, as after a renaming on the Hub."""
        self._state.rename(old, new)

    def expire_links(self) -> None:
        """From now on the storage refuses (403) every address that was given out before."""
        self._state.expire_links()

    # --- What happened ---

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in the order of the ends; waits for what is under way."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._under_way, timeout=5)
            return list(self._requests)

    def forget(self) -> None:
        """From now on: no faults, and `requests` counts anew."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._under_way, timeout=5)
            self._requests.clear()
            self._injections.clear()

    def inject(self, fault: Fault) -> Injection:
        """Lets requests meet a fault; of several that a request concerns it meets the first due."""
        injection = Injection(fault)
        with self._quiet:
            self._injections.append(injection)
        return injection

    # --- For the handler ---

    def fault_for(self, call: Call) -> Fault | None:
        with self._quiet:
            return next((each.fault for each in self._injections if each.meets(call)), None)

    def answer(self, call: Call) -> Answer:
        for route in ROUTES:
            match = route.match(call)
            if match:
                names = {key: unquote(value) for key, value in match.groupdict().items() if value}
                break
        else:
            return RefusedError(404, "Sorry, we can't find the page you are looking for.").answer
        try:
            return route.handle(self._state, replace(call, names=names))
        except (RefusedError, MovedError) as ending:
            return ending.answer

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        with self._quiet:
            self._under_way += 1
        try:
            yield
        finally:
            with self._quiet:
                self._under_way -= 1
                self._quiet.notify_all()

    def note(self, outcome: Request | Exception) -> None:
        with self._quiet:
            if isinstance(outcome, Request):
                self._requests.append(outcome)
                if self._report is not None:
                    self._report(outcome)
            else:
                self._failures.append(outcome)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, hub: Hub, origin: Origin, port: int) -> None:
        self.hub = hub
        self.origin = origin
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def server_bind(self) -> None:
        # That of HTTPServer asks the name service, which may take seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.discard(request)
        super().shutdown_request(request)

    def leave_clients(self) -> None:
        """Ends the connections that clients keep open, and with them their threads."""
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.hub.note(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = RequestBody(self.rfile, headers)  # type: ignore[arg-type]
        call = Call(
            origin=self.server.origin,
            method=self.command,
            path=unquote(url.path),
            target=self.path,
            query={key: tuple(values) for key, values in parse_qs(url.query).items()},
            headers=headers,
            body=body,
        )
        request = Request(
            origin=call.origin,
            method=call.method,
            path=call.path,
            query=call.query,
            range=headers.get("range"),
            token=headers.get("authorization", "").partition(" ")[2] or None,
        )
        hub = self.server.hub
        with hub.under_way():
            sent = _Sent()
            try:
                self._deliver(call, self._answer(hub, call), sent)
            except (DisconnectError, EOFError, ConnectionError):
                self.close_connection = True
            finally:
                hub.note(
                    replace(
                        request,
                        status=sent.status,
                        bytes_sent=sent.count,
                        bytes_received=body.received,
                    )
                )

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _answer(self, hub: Hub, call: Call) -> Answer:
        fault = hub.fault_for(call)
        answer = None
        if fault is not None:
            call = fault.kind.request(call)
            answer = fault.kind.instead(call)
        try:
            answer = answer or hub.answer(call)
        except (DisconnectError, EOFError, ConnectionError):
            raise
        except Exception as error:
            hub.note(error)
            answer = RefusedError(500, f"in the server: {type(error).__name__}").answer
        # A client that is still sending would take an early close for a fault of the network.
        while call.body.read(PIECE):
            pass
        return fault.kind.answer(call, answer) if fault is not None else answer

    def _deliver(self, call: Call, answer: Answer, sent: "_Sent") -> None:
        length = size_of(answer.body) - answer.missing
        phrase = http.HTTPStatus(answer.status).phrase
        lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if "RateLimit" not in dict(answer.headers):
            lines.append('RateLimit: "api";r=499;t=300')
        lines += [f"Date: {self.date_time_string()}", "X-Request-Id: Root=1-local", "", ""]
        stop = length
        if call.method == "HEAD":
            stop = 0
        elif answer.cut_after is not None:
            stop = min(length, answer.cut_after)
        marks = {0, stop}
        if answer.stall_after is not None:
            marks.add(answer.stall_after)
        if answer.flip_at is not None:
            marks |= {answer.flip_at, answer.flip_at + 1}
        places = sorted(mark for mark in marks if mark <= stop)
        if answer.stall_after == 0:
            self._stall(answer.stall_seconds)
        head = "\r\n".join(lines).encode("latin-1")
        sent.status = answer.status
        self.connection.sendall(head)
        for begin, end in itertools.pairwise(places):
            if begin and begin == answer.stall_after:
                self._stall(answer.stall_seconds)
            self._send(answer.body, begin, end, sent, flip=begin == answer.flip_at)
        if answer.cut_after is not None:
            if answer.reset:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                # The base class shuts the connection down first, which would be an orderly end.
                self.connection.close()
            raise DisconnectError

    def _stall(self, seconds: float) -> None:
        """Waits, for as long as the client does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.server.hub.closing.wait(0.01):
            with contextlib.suppress(BlockingIOError):
                if not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise DisconnectError

    def _send(
        self, body: bytes | FileRange, begin: int, end: int, sent: "_Sent", *, flip: bool
    ) -> None:
        if isinstance(body, bytes):
            source: io.BufferedIOBase = io.BytesIO(body)
            first = begin
        else:
            source = body.path.open("rb")
            first = body.begin + begin
        with source:
            if flip:
                source.seek(first)
                self.connection.sendall(bytes([source.read(1)[0] ^ 1]))
                sent.count += 1
                return
            try:
                self.connection.sendfile(source, first, end - begin)
            finally:
                # Where it stopped is where the file stands, on errors too.
                sent.count += source.tell() - first
            if source.tell() != first + end - begin:
                raise DisconnectError


@dataclass(slots=True)
class _Sent:
    status: int = 0
    count: int = 0


def _print(request: Request) -> None:
    asked = f"{request.origin} {request.method} {request.path} {request.range or ''}"
    sys.stderr.write(f"{asked.rstrip()}: {request.status}, {request.bytes_sent} bytes\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub.server", description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--root", type=Path, required=True, help="holds org/name/files")
    parser.add_argument("--private", action="append", default=[], metavar="ORG/NAME")
    parser.add_argument("--gated", action="append", default=[], metavar="ORG/NAME")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Hub(port=options.port, report=_print) as hub:
        for folder in sorted(path for path in options.root.glob("*/*") if path.is_dir()):
            name = folder.relative_to(options.root).as_posix()
            files = {
                path.relative_to(folder).as_posix(): path
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            hub.add(name, files, private=name in options.private, gated=name in options.gated)
            sys.stdout.write(f"{name}: {len(files)} files\n")
        sys.stdout.write(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1\n")
        sys.stdout.write(f"tokens: {' '.join(hub.tokens)}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
