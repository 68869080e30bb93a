"""The files of a checkpoint: shard names, links, and the small files beside the weights."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dus_cli.findings import Finding, Report, reported
from dus_cli.format.checkpoint import SHARD_NAME, Checkpoint
from dus_cli.format.files import read_small
from dus_cli.format.folder import UNNAMED_WEIGHTS
from dus_cli.format.index import INDEX_SUFFIX
from dus_cli.format.strict_json import Json
from dus_cli.printable import quoted

_MAX_JSON_BYTES: Final = 100_000_000
"""The largest tokenizer.json seen in the wild holds 35 MB."""

_TOKENIZER_NAMES: Final = frozenset(
    "tokenizer.json tokenizer.model vocab.json vocab.txt tekken.json source.spm bpe.codes".split()
)
_TOKENIZER_SUFFIXES: Final = (".tiktoken", ".spm", ".bpe.model", "piece.model", ".tokenizer")
_GENERATING: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def check_folder(checkpoint: Checkpoint, report: Report) -> tuple[int, int]:
    """Reports what is wrong with the files around the tensors.

    Returns how many files there are, and how many bytes were read. A file given alone has no
    folder that could be checked.
    """
    if checkpoint.stands_alone:
        return 1, 0
    names = [
        *(shard.name for shard in checkpoint.shards),
        *(file.path for file in checkpoint.carried_files),
        *(file.path for file in checkpoint.left_out_files),
    ]
    _check_numbering(checkpoint, report)
    _check_total_size(checkpoint, report)
    for file in checkpoint.left_out_files:
        if file.reason == UNNAMED_WEIGHTS and not file.path.startswith("consolidated"):
            report(
                Finding(
                    code="shard-stray",
                    file=file.path,
                    message="no loader takes this file, for the checkpoint does not name it",
                    hint="Remove it, or fetch the index that goes with it.",
                )
            )
    _check_links(checkpoint.folder, names, report)
    bytes_read, largest_token = _check_documents(checkpoint, report)
    if checkpoint.config is not None:
        _check_tokenizer(checkpoint, checkpoint.config, largest_token, report)
        _check_generation(checkpoint, checkpoint.config, report)
        _check_code(checkpoint, checkpoint.config, report)
    return len(names), bytes_read


def _check_numbering(checkpoint: Checkpoint, report: Report) -> None:
    """Shards are called `stem-00001-of-00003` and so on; each number occurs, and no other."""
    if checkpoint.index is None:
        return
    shard_names = (*(shard.name for shard in checkpoint.shards), *checkpoint.unread_shards)
    parts = [SHARD_NAME.fullmatch(name.removesuffix(".safetensors")) for name in shard_names]
    matched = [part for part in parts if part is not None]
    if len(matched) < len(parts) or not matched:
        return  # Names of another kind are legal; only these promise a count.
    due = {str(number).zfill(5) for number in range(1, len(matched) + 1)}
    stated = {part["count"].lstrip("0") for part in matched}
    if {part["number"] for part in matched} != due or stated != {str(len(matched))}:
        report(
            Finding(
                code="shard-numbering",
                file=f"{checkpoint.stem}{INDEX_SUFFIX}",
                message=f"names {len(matched)} shards, but their names do not count from 1 to "
                f"{len(matched)} (the first is {quoted(shard_names[0])})",
                hint="Some tools find the shards by their names alone; save the checkpoint anew.",
            )
        )


def _check_total_size(checkpoint: Checkpoint, report: Report) -> None:
    if checkpoint.index is None or checkpoint.is_partial:
        return
    stated = checkpoint.index.metadata.get("total_size")
    if stated is not None and stated != checkpoint.tensor_bytes:
        report(
            Finding(
                code="index-total-size",
                file=f"{checkpoint.stem}{INDEX_SUFFIX}",
                field="metadata.total_size",
                message=f"total_size is {quoted(stated)}, but the tensors take "
                f"{checkpoint.tensor_bytes} bytes",
                hint="Loaders that reserve memory by it take the wrong amount.",
            )
        )


def _check_links(folder: Path, names: list[str], report: Report) -> None:
    inside = Path(os.path.realpath(folder))
    allowed = [inside]
    if inside.parent.name == "snapshots":
        # The Hub's cache keeps the files themselves in blobs/, beside the snapshots.
        allowed.append(Path(os.path.realpath(inside.parent.parent / "blobs")))
    for name in names:
        path = folder / name
        if not path.is_symlink():
            continue
        target = Path(os.path.realpath(path))
        if not any(place in target.parents for place in allowed):
            report(
                Finding(
                    code="file-link",
                    file=name,
                    message=f"is a link that leads out of the checkpoint, to {quoted(str(target))}",
                    hint="Whoever copies or uploads the checkpoint takes that file along.",
                )
            )


def _check_documents(checkpoint: Checkpoint, report: Report) -> tuple[int, int | None]:
    """Parses every JSON file that goes along, as leniently as its readers do, and reports those
    that are broken.

    Returns how many bytes were read, and the highest number that tokenizer.json gives.
    """
    bytes_read, largest = 0, None
    for file in checkpoint.carried_files:
        if not file.path.endswith(".json") or file.path in checkpoint.unfetched:
            continue
        with reported(report, file.path, broken="file-json"):
            raw = read_small(checkpoint.folder / file.path, file.path, limit=_MAX_JSON_BYTES)
            bytes_read += len(raw)
            try:
                # Values are not kept: a folder may hold a hundred files of the limit's size.
                if file.path == "tokenizer.json":
                    largest = _largest_token(json.loads(raw))
                else:
                    json.loads(raw)
            except (ValueError, RecursionError) as error:
                fact = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
                report(
                    Finding(
                        code="file-json",
                        file=file.path,
                        message=f"is not JSON: {fact}",
                        hint="Fetch it again; its readers will fail on it.",
                    )
                )
    return bytes_read, largest


def _check_tokenizer(
    checkpoint: Checkpoint,
    config: Mapping[str, Json],
    largest: int | None,
    report: Report,
) -> None:
    """`largest` is the highest number that the tokenizer gives, where that is known."""
    text = next(
        (
            section
            for section in (config.get("text_config"), config)
            if isinstance(section, dict) and type(section.get("vocab_size")) is int
        ),
        None,
    )
    if text is None:
        return
    names = [Path(file.path).name for file in checkpoint.carried_files]
    if not any(n in _TOKENIZER_NAMES or n.endswith(_TOKENIZER_SUFFIXES) for n in names):
        report(
            Finding(
                code="tokenizer-missing",
                message="there is no tokenizer file (tokenizer.json, tokenizer.model, vocab.txt …)",
                hint="Trainers and servers look for one in the checkpoint; copy it from the base.",
            )
        )
    if largest is not None and largest >= text["vocab_size"]:
        report(
            Finding(
                code="tokenizer-vocabulary",
                file="tokenizer.json",
                message=f"gives the number {quoted(largest)}, but vocab_size is "
                f"{quoted(text['vocab_size'])}",
                hint="Such a token has no embedding: resize the embeddings, or drop the token.",
            )
        )


def _largest_token(tokenizer: Json) -> int | None:
    """The highest number in a tokenizer.json, whichever of its forms the vocabulary has."""
    if not isinstance(tokenizer, dict):
        return None
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers: list[Json] = []
    if isinstance(vocabulary, dict):
        numbers += vocabulary.values()
    elif isinstance(vocabulary, list):
        numbers.append(len(vocabulary) - 1)
    if isinstance(added, list):
        numbers += (token.get("id") for token in added if isinstance(token, dict))
    return max((number for number in numbers if type(number) is int), default=None)


def _check_generation(checkpoint: Checkpoint, config: Mapping[str, Json], report: Report) -> None:
    architectures = config.get("architectures")
    generates = isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(_GENERATING) for name in architectures
    )
    if generates and all(f.path != "generation_config.json" for f in checkpoint.carried_files):
        report(
            Finding(
                code="generation-config-missing",
                message="there is no generation_config.json, so generation takes its defaults",
            )
        )


def _check_code(checkpoint: Checkpoint, config: Mapping[str, Json], report: Report) -> None:
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return
    present = {file.path for file in checkpoint.carried_files}
    named: dict[str, None] = {}
    for value in auto_map.values():
        for reference in value if isinstance(value, list) else [value]:
            # `org/repo--module.Class` is code of another repository.
            if isinstance(reference, str) and "--" not in reference and "." in reference:
                named[reference.rpartition(".")[0].replace(".", "/") + ".py"] = None
    for path in named:
        if path not in present:
            report(
                Finding(
                    code="code-missing",
                    file=checkpoint.config_name,
                    field="auto_map",
                    message=f"auto_map names {quoted(path)}, which is not there",
                    hint="The model cannot be loaded without its code; fetch that file too.",
                )
            )
