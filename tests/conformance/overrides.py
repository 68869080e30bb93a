"""What single model types need beyond the recipes of `shrink`: arguments of their configuration."""

from collections.abc import Mapping
from typing import Any, Final

OVERRIDES: Final[Mapping[str, Mapping[str, Any]]] = {}
