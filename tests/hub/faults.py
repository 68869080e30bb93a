"""Faults to inject: what goes wrong, at which requests, how often.

    hub.inject(Fault(Cut(after=100), method="GET", path="*/model.safetensors", times=2))

Paths that occur, unquoted, those of the storage last:

    /api/models/ORG/NAME and below it /revision/REV, /tree/REV, /preupload/REV, /commit/REV, ...
    /ORG/NAME/resolve/REV/FILE
    /api/whoami-v2, /api/repos/create, /api/validate-yaml
    /ORG/NAME.git/info/lfs/objects/batch and .../verify, /api/complete_multipart/...
    /repos/ORG/NAME/COMMIT/FILE to download, /upload/ORG/NAME/SHA256 to upload, .../ID/PART in parts

A kind of fault acts at one or more of three moments: it changes the request, it answers instead of
the server (which then does nothing of what was asked), or it spoils the server's answer (and what
was asked has been done).
"""

import gzip
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from tests.hub.answers import (
    Answer,
    Call,
    DisconnectError,
    Headers,
    RefusedError,
    content_of,
    redirect,
    size_of,
)


class Kind:
    """A kind of fault; by default it changes nothing."""

    __slots__ = ()

    def request(self, call: Call) -> Call:
        return call

    def instead(self, call: Call) -> Answer | None:  # noqa: ARG002
        return None

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Kind):
    """Another status, with the headers and error code that the Hub would give with it."""

    status: int
    message: str = "Internal Error - We're working hard to fix this as soon as possible!"
    code: str | None = None
    headers: Headers = ()

    def instead(self, call: Call) -> Answer:  # noqa: ARG002
        return RefusedError(self.status, self.message, code=self.code, headers=self.headers).answer


def rate_limited(seconds: int) -> Refuse:
    """429 as the Hub gives it: the limit is reached, and is lifted after `seconds`."""
    return Refuse(
        status=429,
        message="We had to rate limit your IP. To continue using our service, create a token.",
        headers=(
            ("Retry-After", str(seconds)),
            ("RateLimit", f'"api";r=0;t={seconds}'),
            ("RateLimit-Policy", '"fixed window";"api";q=500;w=300'),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Kind):
    """The connection is closed before any answer; nothing of what was asked is done."""

    def instead(self, call: Call) -> Answer:  # noqa: ARG002
        raise DisconnectError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Kind):
    """The connection is closed after so many bytes of the answer's body, or reset."""

    after: int
    reset: bool = False

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        return replace(answer, cut_after=self.after, reset=self.reset)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutUpload(Kind):
    """The connection is closed after so many bytes of the request's body."""

    after: int

    def request(self, call: Call) -> Call:
        call.body.cut_after = self.after
        return call


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall(Kind):
    """So many seconds pass before byte `after` of the body is sent; for 0, before the headers."""

    seconds: float
    after: int = 0

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        return replace(answer, stall_after=self.after, stall_seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip(Kind):
    """One bit is wrong in byte `at` of the body; nothing else gives it away."""

    at: int

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        return replace(answer, flip_at=self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRange(Kind):
    """The whole file is sent with status 200 whatever range was asked for."""

    def request(self, call: Call) -> Call:
        return replace(call, headers={**call.headers, "range": ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compress(Kind):
    """The whole file is sent with gzip to clients that accept it, whatever range was asked for.

    The storage behind the Hub does so with texts. Only for what fits into memory.
    """

    def request(self, call: Call) -> Call:
        ranged = "" if self._accepted(call) else call.headers.get("range", "")
        return replace(call, headers={**call.headers, "range": ranged})

    def answer(self, call: Call, answer: Answer) -> Answer:
        if not self._accepted(call):
            return answer
        coding = ("Content-Encoding", "gzip")
        content = gzip.compress(content_of(answer.body))
        return replace(answer, headers=(*answer.headers, coding), body=content)

    @staticmethod
    def _accepted(call: Call) -> bool:
        return "gzip" in call.headers.get("accept-encoding", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Short(Kind):
    """A well-formed answer whose length and body lack the last bytes, as of a bad proxy."""

    by: int

    def answer(self, call: Call, answer: Answer) -> Answer:  # noqa: ARG002
        return replace(answer, missing=min(self.by, size_of(answer.body)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectLoop(Kind):
    """A redirect to the address that was asked."""

    status: int = 302

    def instead(self, call: Call) -> Answer:
        return redirect(self.status, call.target)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault at requests of `method` whose unquoted path matches the pattern `path`.

    In the pattern `*` also stands for slashes. The first `skip` requests pass, then every
    `every`-th meets the fault, `times` times in all (None: for ever).
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    times: int | None = 1
    skip: int = 0
    every: int = 1

    def concerns(self, call: Call) -> bool:
        return fnmatchcase(call.method, self.method) and fnmatchcase(call.path, self.path)


class Injection:
    """A fault at work in a server: how many requests it concerned and how many met it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.concerned = 0
        self.fired = 0

    def meets(self, call: Call) -> bool:
        """Whether this call meets the fault; counts it. The caller holds the server's lock."""
        fault = self.fault
        if not fault.concerns(call) or self.fired == fault.times:
            return False
        self.concerned += 1
        turn = self.concerned - fault.skip - 1
        if turn < 0 or turn % fault.every:
            return False
        self.fired += 1
        return True
