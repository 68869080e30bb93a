"""A server for each test, and the real client for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, constants

from tests.hub.command import Dus, dus_against
from tests.hub.server import MEMBER, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture(scope="session")
def _session() -> Iterator[None]:
    """The client's connections, which it keeps for the process; to open them anew takes 40 ms."""
    close_session()
    yield
    close_session()


@pytest.fixture
def client(hub: Hub, monkeypatch: pytest.MonkeyPatch, _session: None) -> HfApi:
    """The real client as a member of `org`; its cache is that of `hub`.

    What it read from the environment when it was imported is set for this test: no Xet, no cache
    or token of the user's, no proxy.
    """
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(hub.home / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return HfApi(endpoint=hub.url, token=MEMBER)


@pytest.fixture
def dus(hub: Hub, tmp_path: Path, _session: None) -> Iterator[Dus]:
    """`dus(*words, token=None)` in an empty folder, against `hub`."""
    with dus_against(hub, tmp_path) as run:
        yield run
