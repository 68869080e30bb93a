"""What can go wrong between here and the Hub, as one line and what to do about it."""

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from dus_cli.errors import CheckpointError, DusError, RequestError
from dus_cli.printable import quoted
from dus_cli.sources.names import nearest_names

TRIES: Final = 5
"""How often in a row something may fail that may be better the next time."""

_LONGEST_WAIT: Final = 60.0
_FIRST_WAIT: Final = 0.5
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""

_NONSENSE: Final = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What the client raises about an answer that is not what it expects, such as a page for JSON."""

_LOG_IN: Final = "log in with hf auth login, or give --token or HF_TOKEN."

WHO_ELSE: Final = "Somebody else may have answered, a proxy or the login page of a network."

Remark = Callable[[str], None]
"""Takes a sentence that tells the user why nothing seems to happen."""

_T = TypeVar("_T")


class UnreachableError(CheckpointError):
    """The Hub gives no answer, or must not be asked; `reason` says which."""

    def __init__(self, subject: str, reason: str, fact: str, *, hint: str) -> None:
        super().__init__(f"{subject}: {reason}{fact}", hint=hint)
        self.reason = reason


def transport_error() -> type[Exception]:
    """What the HTTP library raises when a connection fails.

    huggingface_hub speaks through httpx or its successor, as its release has it.
    """
    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    error: type[Exception] = library.HTTPError
    return error


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in _PASSING
    return isinstance(error, transport_error())


def pause(error: Exception, failures: int, remark: Remark) -> None:
    """Waits before the next try after `failures` in a row: as long as the Hub asks for, else twice
    as long each time. Raises `error` when that is too long or too often."""
    seconds = _FIRST_WAIT * 2 ** (failures - 1)
    asked = _retry_after(error)
    # Without a network every try is in vain, and a name may just have been mistyped.
    tries = 3 if type(error).__name__ == "ConnectError" else TRIES
    if failures >= tries or (asked is not None and asked > _LONGEST_WAIT):
        raise error
    seconds = seconds if asked is None else asked
    if seconds > 1:
        remark(f"{_fact(error)}; trying again in {seconds:.0f} s")
    time.sleep(seconds)


def is_refused_for_now(error: Exception) -> bool:
    """Whether it may pass, and the Hub has answered: so nothing was done of what was asked."""
    return isinstance(error, HfHubHTTPError) and is_passing(error)


def patiently(
    call: Callable[[], _T], remark: Remark, *, passing: Callable[[Exception], bool] = is_passing
) -> _T:
    """What `call` returns, called again while it fails in a way that may pass."""
    failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            if not passing(error):
                raise
            failures += 1
            pause(error, failures, remark)


@contextmanager
def hub_errors(subject: str, *, raised: type[DusError] = CheckpointError) -> Iterator[None]:
    """Turns what the client raises about repository `subject` into errors of `dus`.

    Wrong names are RequestErrors; what the Hub refuses or cannot do is a `raised`.
    """
    try:
        yield
    except (DusError, KeyboardInterrupt):
        raise
    except Exception as error:
        translated = _translated(error, subject, raised)
        if translated is None:
            raise
        raise translated from error


def _translated(error: Exception, subject: str, raised: type[DusError]) -> DusError | None:
    if type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        # What goes wrong with an upload the client wraps so.
        return _translated(error.__cause__, subject, raised)
    if isinstance(error, GatedRepoError):
        return raised(
            f"{subject}: is gated, and this account has no access to it",
            hint=f"Ask for access on {constants.ENDPOINT}/{subject}; if you have it, " + _LOG_IN,
        )
    if isinstance(error, RepositoryNotFoundError):
        return RequestError(
            f"{subject}: the Hub has no such model, or it is private", hint=_not_found(subject)
        )
    if isinstance(error, RevisionNotFoundError):
        return RequestError(
            f"{subject}: the Hub has no such branch, tag or commit of this model",
            hint=f"{constants.ENDPOINT}/{subject}/tree/main lists the branches.",
        )
    if isinstance(error, OfflineModeIsEnabled):
        return UnreachableError(
            subject,
            "offline (HF_HUB_OFFLINE)",
            ", and not in the cache",
            hint="Unset HF_HUB_OFFLINE, or choose the right cache with --cache-dir.",
        )
    if isinstance(error, LocalTokenNotFoundError):
        return raised(
            f"{subject}: this needs a token of the Hub", hint="If you have one, " + _LOG_IN
        )
    if isinstance(error, HFValidationError):
        return RequestError(f"{subject}: {quoted(str(error))}")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _refused(error, subject, raised)
    if isinstance(error, (LocalEntryNotFoundError, transport_error())):
        reason = f"the Hub ({constants.ENDPOINT}) cannot be reached"
        hint = "Look at the network and HF_ENDPOINT; the same command goes on where it stopped."
        if raised is CheckpointError:
            return UnreachableError(subject, reason, f": {_fact(error)}", hint=hint)
        return raised(f"{subject}: {reason}: {_fact(error)}", hint=hint)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return raised(
            f"{subject}: the disk of the cache is full",
            hint="Choose another with --cache-dir, or keep nothing of the source with --stream.",
        )
    if isinstance(error, _NONSENSE):
        return raised(
            f"{subject}: the answer of the Hub ({constants.ENDPOINT}) makes no sense: "
            f"{type(error).__name__}: {_fact(error)}",
            hint=WHO_ELSE,
        )
    return None


def _refused(error: HfHubHTTPError, subject: str, raised: type[DusError]) -> DusError:
    status = error.response.status_code
    hints = {
        401: "The token is wrong or has expired: " + _LOG_IN,
        403: "This account or its token lacks the right for that.",
        429: "Too many requests from here: wait" + _asked_wait(error) + ", or log in for more.",
    }
    told = error.response.headers.get("X-Error-Message") or error.server_message
    reason = f": {quoted(told)}" if told else ""
    hint = hints.get(status, "Try again later." if status >= 500 else "Nothing was changed.")
    return raised(f"{subject}: the Hub answers {status}{reason}", hint=hint)


def _not_found(subject: str) -> str:
    near = nearest_names(subject)
    if near and near[0] != subject:
        return f"Names like it: {', '.join(near)}. If it is private, {_LOG_IN}"
    return f"Look at its name. If it is private, {_LOG_IN}"


def _retry_after(error: Exception) -> float | None:
    """Seconds that the Hub asks to wait, where it says."""
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After") if response is not None else None
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def _asked_wait(error: Exception) -> str:
    seconds = _retry_after(error)
    return f" {seconds:.0f} s" if seconds is not None else ""


def _fact(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return f"the Hub answers {error.response.status_code}"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return quoted(first.removesuffix("."))[1:-1]
