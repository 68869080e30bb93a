"""The parts of the documentation that are made from the code.

They stand in the pages between `<!-- generated: NAME -->` and `<!-- end of NAME -->`.
"""

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import typer.main

from dus_cli import errors
from dus_cli.cli.app import app
from dus_cli.errors import INTERRUPTED_EXIT_CODE, DusError
from dus_cli.findings import CHECKS, Finding, Group
from dus_cli.format import folder
from dus_cli.format.dtypes import BITS_PER_ELEMENT
from dus_cli.model import architecture
from dus_cli.model.config_rules import (
    COUPLED_MODEL_TYPES,
    FIELDS,
    PLAIN_MODEL_TYPES,
    REFUSED_MODEL_TYPES,
    REFUSING_FIELDS,
    TENSOR_REFUSALS,
    TYPED_FIELDS,
    FieldKind,
)
from dus_cli.model.features import FEATURE_FIELDS
from dus_cli.model.position_rules import POSITION_RULES
from dus_cli.printable import printable
from dus_cli.verify.run import verify
from tests.test_layering import FLOORS
from tests.verify.faults import FAULTS, verify_request, write_faulty, write_pair

_PART: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n)"
    r".*?"
    r"(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)


_COMPUTED: Final = re.compile(r"(?P<text>.*?) \[(?P<default>[^]]*)\]\.?")


def regenerated(text: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(
        lambda match: f"{match['begin']}{PARTS[match['name']]()}\n{match['end']}", text
    )


def part_names(text: str) -> list[str]:
    """The names of a page's generated parts."""
    return [match["name"] for match in _PART.finditer(text)]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def commands() -> str:
    """A section for every sub-command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    sections = [f"## `dus`\n\n{_parameters(group)}"]
    for name, command in group.commands.items():
        about, _, examples = inspect.cleandoc(command.help).partition("\n\nExamples:\n\n")
        shown = "\n".join(line.strip() for line in examples.splitlines() if line.strip())
        sections.append(
            f"## `dus {name}`\n\n{about}\n\n```text\n{_usage(name, command)}\n```\n\n"
            f"{_parameters(command)}\n\nExamples:\n\n```text\n{shown}\n```"
        )
    return "\n\n".join(sections)


def _usage(name: str, command: Any) -> str:
    words = ["dus", name]
    for parameter in _arguments(command):
        word = _argument_name(parameter)
        words.append(word if parameter.required else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"])


def _parameters(command: Any) -> str:
    rows = [
        (_code(_argument_name(parameter)), "required" if parameter.required else "", parameter.help)
        for parameter in _arguments(command)
    ]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            value = f" {parameter.metavar}" if parameter.metavar else ""
            about, default = _about(parameter)
            rows.append((_codes(option + value for option in parameter.opts), default, about))
    rows.append(("`-h`, `--help`", "off", "Show this message and exit."))
    return _table(("argument or option", "default", "meaning"), rows)


def _arguments(command: Any) -> list[Any]:
    return [entry for entry in command.params if entry.param_type_name == "argument"]


def _argument_name(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


def _about(parameter: Any) -> tuple[str, str]:
    """Help text and default; a computed default stands in brackets at the end of the help."""
    text = parameter.help.replace(r"\[", "[")
    computed = _COMPUTED.fullmatch(text)
    if computed:
        return f"{_plain(computed['text'])}.", _plain(computed["default"])
    if parameter.is_flag:
        return _plain(text), "off"
    return _plain(text), "" if parameter.default is None else _code(str(parameter.default))


def _plain(text: str) -> str:
    """Help text for Markdown, in which nothing looks like a tag."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def count_fields() -> str:
    """The names of config fields that hold a layer count."""
    rows = [("any stack", _codes(architecture._COUNT_FIELDS))]
    rows += [
        (f"a stack with `{side}` in its prefix", _codes(names))
        for side, names in architecture._SIDED_COUNT_FIELDS.items()
    ]
    return _table(("counts", "fields"), rows)


_KIND_MEANINGS: Final = MappingProxyType(
    {
        FieldKind.GATHER: "One entry a layer, in a list or a string: taken by the layer map. "
        "Entries behind the last layer's stay at the end.",
        FieldKind.REKEY: "An object whose keys are layer numbers: each entry goes to all copies "
        "of its layer.",
        FieldKind.REINDEX: "A list of layer numbers, or a string of them with commas between: "
        "becomes the numbers of all copies. Numbers of trailing layers move with these.",
        FieldKind.KEEP: "Has nothing to do with layers, whatever its length: stays as it is.",
    }
)


def fields() -> str:
    """Known config fields by kind."""
    rows = []
    for kind in FieldKind:
        names = [
            _code(name) + (f" (counted from {rule.first})" if rule.first else "")
            for name, rule in FIELDS.items()
            if rule.kind is kind
        ]
        rows.append((_code(kind), _KIND_MEANINGS[kind], ", ".join(names)))
    return _table(("kind", "what happens", "fields"), rows)


def typed_fields() -> str:
    """Fields that are by layer in some model types only."""
    return _table(
        ("model type", "kind", "fields"),
        [
            (
                _code(model_type),
                _code(kind),
                ", ".join(
                    _code(name) + (f" (of the {rule.side})" if rule.side else "")
                    for name, rule in known.items()
                    if rule.kind is kind
                ),
            )
            for model_type, known in TYPED_FIELDS.items()
            for kind in FieldKind
            if any(rule.kind is kind for rule in known.values())
        ],
    )


def feature_fields() -> str:
    """Fields that name hidden states."""
    rows = []
    for named in FEATURE_FIELDS:
        counted = "layers, from 0" if named.first else "hidden states: k is what k layers give"
        place = "around a vision or audio section" if named.around else "in the stack's section"
        rows.append((_code(named.name), counted, place))
    rows.append((_code("out_features"), "stages: `stage1` is the first layer", rows[0][2]))
    return _table(("field", "holds numbers of", "where"), rows)


def tensor_refusals() -> str:
    """Tensors without which, or with which, a model type is refused."""
    return _table(
        ("model type", "refused", "why"),
        [
            (
                _codes(sorted(refusal.model_types)) or "any",
                f"{'with' if refusal.present else 'without'} tensors `{refusal.part}`",
                refusal.reason,
            )
            for refusal in TENSOR_REFUSALS
        ],
    )


def position_rules() -> str:
    """The rules about layer numbers, in the order in which they are tried."""
    rows: list[tuple[str, ...]] = []
    for rule in POSITION_RULES:
        types = _codes(sorted(rule.model_types)) or "any other that has the field"
        way = "stated in the config" if rule.encode else "kept if still right, else refused"
        rows.append((_code(rule.field), rule.what, types, way))
    return _table(("field", "decides", "model types", "in the result"), rows)


def refused_types() -> str:
    """Model types that cannot be up-scaled, with the reason."""
    refused = {**REFUSED_MODEL_TYPES, **COUPLED_MODEL_TYPES}
    return _table(("model type", "why"), [(_code(k), v) for k, v in refused.items()])


def refusing_fields() -> str:
    """Switches that make an up-scaling impossible while they are on."""
    return _table(("field", "why"), [(_code(k), v) for k, v in REFUSING_FIELDS.items()])


def plain_types() -> str:
    """Model types without anything but known fields."""
    return _codes(sorted(PLAIN_MODEL_TYPES)) + "."


_CODE_MEANINGS: Final = MappingProxyType(
    {
        0: "Done.",
        1: "`dus verify` found an error. From any other command, a bug in `dus` that nobody "
        "foresaw, with a traceback: please report it.",
        2: "Wrong usage, or a request that is impossible for this checkpoint.",
        3: "The source cannot be read, or it contradicts itself.",
        4: "The result could not be written. The target is as it was before.",
        INTERRUPTED_EXIT_CODE: "Interrupted by Ctrl-C. The same command goes on from there.",
    }
)


def exit_codes() -> str:
    """Exit codes with the kinds of error that give them."""
    kinds: dict[int, dict[str, None]] = {}
    for error in _error_classes():
        kinds.setdefault(error.exit_code, {})[error.kind] = None
    rows = [
        (str(code), _CODE_MEANINGS[code], _codes(kinds.get(code, ())))
        for code in sorted({*_CODE_MEANINGS, *kinds})
    ]
    return _table(("code", "meaning", "`kind` in JSON"), rows)


def _error_classes() -> list[type[DusError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, DusError) and value is not DusError
    ]


def left_out() -> str:
    """Files that do not go along, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for pattern, reason in folder._LEFT_OUT_FILES:
        reasons.setdefault(reason, []).append(pattern)
    for pattern, reason in folder._LEFT_OUT_FOLDERS:
        reasons.setdefault(reason, []).append(f"{pattern}/")
    rows = [(reason, _codes(names)) for reason, names in reasons.items()]
    return _table(("reason", "names"), rows)


def floors() -> str:
    """The order of imports, as the layering test has it."""
    return "\n".join(f"{number}. {_codes(names)}" for number, names in enumerate(FLOORS, start=1))


def dtypes() -> str:
    """The dtypes of the format with their widths."""
    widths: dict[int, list[str]] = {}
    for name, bits in BITS_PER_ELEMENT.items():
        widths.setdefault(bits, []).append(name)
    return _table(
        ("bits", "dtypes"), [(str(bits), _codes(names)) for bits, names in sorted(widths.items())]
    )


_GROUP_TITLES: Final = MappingProxyType(
    {
        Group.FILES: "Files",
        Group.HEADERS: "Headers",
        Group.INDEX: "Index and shards",
        Group.CONFIG: "config.json",
        Group.LAYERS: "Layers",
        Group.RECORD: "dus.json",
        Group.WEIGHTS: "Weights (`--deep`)",
        Group.BASE: "Provenance (`--base`)",
        Group.CHECKSUMS: "Checksums (`--checksums`)",
    }
)


def findings() -> str:
    """Every code with its severity, its meaning, and what is said of a checkpoint that has it."""
    examples = _example_findings()
    lines: list[str] = []
    for group in Group:
        lines += [f"## {_GROUP_TITLES[group]}", ""]
        for code, check in CHECKS.items():
            if check.group is group:
                name, finding = examples[code]
                lines += [f"### {code}", "", f"{check.severity.capitalize()}. {check.meaning}", ""]
                lines += [f"Example: {name}.", "", "```text", finding.text]
                lines += [finding.hint] if finding.hint else []
                lines += ["```", ""]
    return "\n".join(lines).rstrip()


def _example_findings() -> dict[str, tuple[str, Finding]]:
    """Code -> the first fault that has it, and the finding that `dus verify` makes of it."""
    examples: dict[str, tuple[str, Finding]] = {}
    with tempfile.TemporaryDirectory() as place:
        sound = Path(place).resolve() / "sound"
        write_pair(sound)
        for number, fault in enumerate(FAULTS):
            if fault.code in examples:
                continue
            case = Path(place).resolve() / str(number)
            model = write_faulty(sound, case, fault)
            outcome = verify(model, verify_request(fault, case))
            finding = next(found for found in outcome.findings if found.code == fault.code)
            message = printable(finding.message.replace(str(case), "..."))
            examples[fault.code] = (fault.name, replace(finding, message=message))
    return examples


PARTS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "commands": commands,
        "count-fields": count_fields,
        "dtypes": dtypes,
        "exit-codes": exit_codes,
        "feature-fields": feature_fields,
        "fields": fields,
        "findings": findings,
        "floors": floors,
        "left-out": left_out,
        "plain-types": plain_types,
        "position-rules": position_rules,
        "refused-types": refused_types,
        "refusing-fields": refusing_fields,
        "tensor-refusals": tensor_refusals,
        "typed-fields": typed_fields,
    }
)
"""What can stand in a page, by name."""
