"""The small files that a plan writes anew: config.json, the index, the model card, dus.json."""

from collections.abc import Mapping
from typing import Any, Final

from dus_cli.format.strict_json import Json, dump_pretty
from dus_cli.model.config_rewrite import ConfigChange, ScaledStack
from dus_cli.plan import Plan
from dus_cli.printable import markdown_code

_INHERITED: Final = (
    "license",
    "license_name",
    "license_link",
    "language",
    "library_name",
    "pipeline_tag",
    "tags",
)
"""What of the source's card still holds for a deeper copy of its model."""

_MAX_INHERITED: Final = 100
_TAG: Final = "depth-up-scaling"


def write_documents(plan: Plan, source_card: str | None) -> dict[str, bytes]:
    """File name -> content, in the order in which they are written."""
    documents = {plan.config_name: plan.config_file, **plan.rewritten_files}
    if plan.index_file is not None:
        name, content = plan.index_file
        documents[name] = content
    documents["README.md"] = _model_card(plan, source_card).encode("utf-8")
    documents["dus.json"] = dump_pretty(plan.to_json())
    return documents


def _model_card(plan: Plan, source_card: str | None) -> str:
    base = plan.request.base_model or plan.source_name
    at = f" at commit {markdown_code(plan.request.revision)}" if plan.request.revision else ""
    rows = "\n".join(_row(stack) for stack in plan.scaling.scaled)
    changes = "\n".join(
        f"- {markdown_code(change.field)}: {_values(change)}"
        for change in plan.scaling.config_changes
    )
    return f"""{_front_matter(base, source_card)}
# {markdown_code(plan.source_name)}, depth up-scaled

[Depth up-scaling](https://arxiv.org/abs/2312.15166) of {markdown_code(base)}{at}, made by `dus`:
layers were copied, nothing was trained. Continue its pretraining before you use it.

| stack | layers before | layers | source layers, ends included |
|---|---|---|---|
{rows}

Parameters: {plan.scaling.before.parameters:,} before, {plan.scaling.after.parameters:,} now.

Changed in {plan.config_name}:

{changes}

`dus.json` says for every byte of the weights where in the source it comes from.
"""


def _row(scaled: ScaledStack) -> str:
    sources = scaled.layer_map.sources
    ranges = ", ".join(
        f"{sources[part[0]]} to {sources[part[-1]]}" for part in scaled.layer_map.segments()
    )
    return (
        f"| {markdown_code(scaled.counted.stack.prefix)} | {scaled.counted.layer_count} "
        f"| {scaled.layer_map.layer_count} | {ranges} |"
    )


def _values(change: ConfigChange) -> str:
    """Old and new value where they are short, else the rule that made the new one."""
    values = (change.before, change.after)
    if all(isinstance(value, int | float | str | bool) for value in values):
        return " to ".join(markdown_code(str(value)) for value in values)
    return change.rule


def _front_matter(base: str, source_card: str | None) -> str:
    # Late, because only a finished plan needs it and every start of the program would pay.
    from huggingface_hub import ModelCardData

    inherited = _inherited_fields(source_card)
    own_tags = inherited.pop("tags", [])
    tags = [*(own_tags if isinstance(own_tags, list) else [own_tags])]
    data = ModelCardData(
        base_model=base,
        tags=list(dict.fromkeys([*tags, _TAG])),
        ignore_metadata_errors=True,
        **inherited,
    )
    return f"---\n{data.to_yaml()}\n---"


def _inherited_fields(source_card: str | None) -> dict[str, Json]:
    """The fields of the source's card that hold for the result; none where it cannot be parsed."""
    import yaml
    from huggingface_hub import ModelCard

    if source_card is None:
        return {}
    try:
        card: Any = ModelCard(source_card)
        fields: Mapping[str, Json] = card.data.to_dict()
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        # A card is prose for people; one that is malformed must not stop an up-scaling.
        return {}
    return {key: fields[key] for key in _INHERITED if _is_plain(fields.get(key))}


def _is_plain(value: Json) -> bool:
    """Whether `value` is a short text or a list of some: aliases in YAML can make monsters."""
    if isinstance(value, list):
        return len(value) <= _MAX_INHERITED and all(
            isinstance(entry, str) and len(entry) <= _MAX_INHERITED for entry in value
        )
    return isinstance(value, str) and len(value) <= 10 * _MAX_INHERITED
