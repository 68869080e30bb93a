"""Text from files on its way to a terminal, a log or a Markdown page."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dus_cli.printable import markdown_code, printable, quoted

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.layers.0.mlp.weight", "model.layers.0.mlp.weight"),
        ("naïve 模型 😀", "naïve 模型 😀"),
        ("a\0b", r"a\x00b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x7f\x08", r"\x7f\x08"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u200b\u2066\ufeff\u061c", r"\u200b\u2066\ufeff\u061c"),
        ("\U000e0041", r"\U000e0041"),
        ("caf\udce9", r"caf\udce9"),
        ("a\u00a0b", r"a\xa0b"),
        ("::error file=x::boo", r":\x3aerror file=x:\x3aboo"),
        (":::", r":\x3a:"),
        ("::::", r":\x3a:\x3a"),
        ("##[group]x", r"#\x23[group]x"),
        ("###[x", r"##\x23[x"),
        ("", ""),
    ],
)
def test_what_is_invisible_or_a_command_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@settings(deadline=None)
@given(ANY_TEXT)
def test_printable_text_is_one_visible_line_that_any_stream_takes(text: str) -> None:
    shown = printable(text)
    assert all(sign == " " or unicodedata.category(sign)[0] not in "CZ" for sign in shown)
    assert "::" not in shown
    assert "##[" not in shown
    assert printable(shown) == shown
    shown.encode("utf-8")


@settings(deadline=None)
@given(ANY_TEXT)
def test_nothing_ends_inline_code_or_a_table_cell(text: str) -> None:
    code = markdown_code(text)
    assert code[0] == code[-1] == "`"
    assert "`" not in code[1:-1]
    assert "|" not in code
    assert printable(code) == code


def test_a_short_value_is_quoted_as_python_writes_it() -> None:
    assert quoted("a\n'b'") == "\"a\\n'b'\""
    assert quoted(None) == "None"
    assert quoted([1, 2]) == "[1, 2]"


@pytest.mark.parametrize("value", ["n" * 10**6, [0] * 10**6, {"n" * 200: 1}])
def test_a_long_value_is_quoted_by_its_two_ends(value: object) -> None:
    text = repr(value)
    assert quoted(value) == f"{text[:60]}…{text[-60:]}"


def test_quoting_a_long_value_costs_no_more_than_what_is_shown() -> None:
    shown = 0

    class Element:
        def __repr__(self) -> str:
            nonlocal shown
            shown += 1
            return "x"

    quoted([Element() for _ in range(10_000)])
    assert shown <= 120


def test_an_integer_that_python_does_not_print_is_named_by_its_kind() -> None:
    assert quoted(10**4300) == "a number of thousands of digits"
