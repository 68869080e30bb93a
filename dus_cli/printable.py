"""Text that came from a file, made fit for a terminal, a log and a Markdown page."""

from typing import Final

_QUOTED_CHARACTERS: Final = 120


def printable(text: str) -> str:
    r"""`text` with everything that is not a visible character escaped, on one line.

    Control characters, bidi marks, line breaks and lone surrogates become `\x1b`, `\u202e` and
    so on. CI systems take a line that begins with `::` or holds `##[` for a command, so these are
    broken up as well.
    """
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return text.replace("::", ":\\x3a").replace("##[", "#\\x23[")


def markdown_code(text: str) -> str:
    """`text` as inline code that nothing in it can end."""
    return "`" + printable(text).replace("`", "\\x60").replace("|", "\\x7c") + "`"


def quoted(value: object) -> str:
    """`repr(value)`, its middle left out where it is long: a name in a file may be megabytes."""
    half = _QUOTED_CHARACTERS // 2
    # The ends are all that is shown, and a hostile file has its values quoted by the million.
    if isinstance(value, str) and len(value) > _QUOTED_CHARACTERS:
        value = value[:half] + value[-half:]
    elif isinstance(value, list | tuple) and len(value) > _QUOTED_CHARACTERS:
        value = type(value)((*value[:half], *value[-half:]))
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    except ValueError:
        # The interpreter prints 4,300 digits at most; sums and products may have more.
        return "a number of thousands of digits"
    if len(text) <= _QUOTED_CHARACTERS:
        return text
    return f"{text[:half]}…{text[-half:]}"
