"""One call from a config and layers to the config that `dus` writes."""

from collections.abc import Iterable, Mapping
from typing import Any

from dus_cli.model.architecture import choose_stacks
from dus_cli.model.config_rewrite import RewrittenConfig, ScaledStack, rewrite_config
from dus_cli.model.config_rules import FieldKind
from dus_cli.model.layer_map import LayerMap
from dus_cli.model.stack import find_stacks

PARAMETERS = ("attn.q.weight", "mlp.up.weight")


def layer_names(
    prefix: str, layers: int, special: Mapping[int, Iterable[str]] | None = None
) -> list[str]:
    """Names of a stack's tensors; `special` layers have others than PARAMETERS."""
    return [
        f"{prefix}.{layer}.{parameter}"
        for layer in range(layers)
        for parameter in (special or {}).get(layer, PARAMETERS)
    ]


def rewritten(
    config: Mapping[str, Any],
    names: Iterable[str],
    drop: int,
    *,
    stack: str | None = None,
    rules: Mapping[str, FieldKind] | None = None,
) -> RewrittenConfig:
    """The config of the model with these tensors after `--drop`."""
    names = list(names)
    scaled = [
        ScaledStack(counted=counted, layer_map=LayerMap.depth_upscale(counted.layer_count, drop))
        for counted in choose_stacks(config, find_stacks(names), stack)
    ]
    return rewrite_config(config, scaled, rules or {}, names)
