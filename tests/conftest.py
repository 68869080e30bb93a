"""What holds for all tests."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# No test reaches the real Hub, its user's account or cache. huggingface_hub reads this when it is
# imported; port 9 refuses at once.
os.environ |= {
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HOME": tempfile.mkdtemp(prefix="dus-tests-"),
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
os.environ.pop("HF_TOKEN", None)
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

# How long an example takes depends on what else the machine does; no test is about that.
settings.register_profile("dus", deadline=None)
settings.load_profile("dus")
