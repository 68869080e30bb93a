"""Loads model and tokenizer with transformers, and reports what it raises, lists or logs."""

import logging
import sys
import warnings
from collections.abc import Callable

from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.compare.probes import answer, raised


class Listener(logging.Handler):
    """Keeps the messages of all records that reach it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def load_model(folder: str) -> list[str]:
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    return [f"{kind}: {key}" for kind, keys in info.items() for key in sorted(map(str, keys))]


def load_tokenizer(folder: str) -> list[str]:
    AutoTokenizer.from_pretrained(folder)
    return []


def main(folder: str) -> None:
    listener = Listener()
    for name in (None, "transformers"):  # transformers' logger does not propagate
        logging.getLogger(name).addHandler(listener)
    errors: list[str] = []
    steps: tuple[Callable[[str], list[str]], ...] = (load_model, load_tokenizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in steps:
            try:
                errors += step(folder)
            except Exception as error:  # whatever a loader raises is its complaint
                errors.append(raised(error))
    answer(errors, listener.messages + [str(warning.message) for warning in caught])


if __name__ == "__main__":
    main(sys.argv[1])
