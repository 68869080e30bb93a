"""The judge: is a checkpoint that `dus` made the model that torch composes from the same layers?

The reference is the ORIGINAL model in memory, its lists of layers replaced by deep copies in the
order of the layer map. What a forward pass looks up in the config by a layer's place in the list
(masks by `layer_types[i]`) is gathered too; nothing else of the config is read.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dus_cli.documents import write_documents
from dus_cli.execute.write import execute
from dus_cli.format.checkpoint import open_checkpoint
from dus_cli.plan import plan_upscale
from dus_cli.scaling import UpscaleRequest

TOKENS = 24
"""Longer than every sliding window of the models here."""

BY_PLACE = (
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "indexer_types",
    "layer_rope_theta",
)
"""Lists in a config that forward passes index by the place of a layer."""

NUMBERS = ("layer_idx", "layer_id", "layer_number", "layer_index", "block_idx")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tiny model of one type: its class, its configuration, how to find its layers."""

    name: str
    config_class: str
    model_class: str
    config: Mapping[str, Any]
    layers: int = 5
    drop: int = 2
    count_field: str = "num_hidden_layers"
    also_counts: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ("model.layers",)
    """Where the lists of layers are in the model in memory."""
    request: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[Any, Any], dict[str, Any]] | None = None
    shard_size: str = "1GB"
    file_edits: Mapping[str, Any] = field(default_factory=dict)
    """Changes to config.json before dus sees it (None removes a field): older files."""
    text_section: bool = False

    def __str__(self) -> str:
        return self.name


def build(family: Family, torch: Any, transformers: Any) -> Any:
    """The family's model with random weights, none of which is a norm's 1 or a bias's 0."""
    torch.manual_seed(0)
    counts = dict.fromkeys((family.count_field, *family.also_counts), family.layers)
    fields = dict(family.config)
    if family.text_section:
        fields = {**fields, "text_config": {**fields["text_config"], **counts}}
    else:
        fields |= counts
    config = getattr(transformers, family.config_class)(**fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, family.model_class)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Sinusoids are not saved, so they must stay what the class makes of them.
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.tie_weights()
    return model


def upscale(source: Path, target: Path, family: Family) -> tuple[tuple[int, ...], ...]:
    """Runs dus; the layer maps of the scaled stacks, in its order."""
    checkpoint = open_checkpoint(source)
    plan = plan_upscale(checkpoint, UpscaleRequest(drop=family.drop, **family.request))
    execute(plan, source, target, write_documents(plan, checkpoint.card))
    return tuple(scaled.layer_map.sources for scaled in plan.scaling.scaled)


def composed(model: Any, family: Family, sources: Sequence[int], torch: Any) -> Any:
    """A copy of `model` whose stacks hold deep copies of its layers in the order of `sources`."""
    reference = copy.deepcopy(model)
    for path in family.stacks:
        owner, _, name = path.rpartition(".")
        parent = reference.get_submodule(owner)
        layers = [copy.deepcopy(getattr(parent, name)[source]) for source in sources]
        for number, layer in enumerate(layers):
            for module in layer.modules():
                for attribute in NUMBERS:
                    # Where a layer keeps its cache; what it computes was settled when it was made.
                    if isinstance(getattr(module, attribute, None), int):
                        setattr(module, attribute, number)
        setattr(parent, name, torch.nn.ModuleList(layers))
    seen: set[int] = set()
    for module in reference.modules():
        config = getattr(module, "config", None)
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            _gather_by_place(config, family, sources)
    return reference


def _gather_by_place(config: Any, family: Family, sources: Sequence[int]) -> None:
    for name in BY_PLACE:
        values = vars(config).get(name)
        if isinstance(values, list) and len(values) == family.layers:
            setattr(config, name, [values[source] for source in sources])
    for name in (family.count_field, *family.also_counts, "num_hidden_layers"):
        # Loops of the form `for layer in self.layers[: config.num_hidden_layers]`.
        if vars(config).get(name) == family.layers:
            vars(config)[name] = len(sources)


def logits(model: Any, family: Family, torch: Any) -> Any:
    """The model's output for one fixed input."""
    generator = torch.Generator().manual_seed(1)
    if family.inputs is not None:
        inputs = family.inputs(torch, generator)
    else:
        inputs = {"input_ids": torch.randint(3, 90, (2, TOKENS), generator=generator)}
    with torch.no_grad():
        output = model(**inputs, use_cache=False) if _takes_cache(model) else model(**inputs)
    return output.logits if getattr(output, "logits", None) is not None else output[0]


def _takes_cache(model: Any) -> bool:
    import inspect

    parameters = inspect.signature(model.forward).parameters
    return "use_cache" in parameters or "kwargs" in parameters
