"""Running `dus` as a user of a local Hub does: in a process of its own, with its environment."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.hub.server import Hub


def environment(hub: Hub, *, token: str | None = None) -> dict[str, str]:
    """This process's environment without traces of the user's Hub account, for `hub` instead.

    The cache lies in `hub.home` and so lives as long as the server.
    """
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_", "XDG_")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    env |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(hub.home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "COLUMNS": "80",
    }
    return env | ({"HF_TOKEN": token} if token else {})


def run_dus(
    hub: Hub,
    *words: str | Path,
    token: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """`dus` with these words against `hub`. `env` is added to the environment.

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    return subprocess.run(
        [sys.executable, "-m", "dus_cli", *(str(word) for word in words)],
        env={**environment(hub, token=token), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
