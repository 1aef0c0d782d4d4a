"""Every quirk that a data file may have."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from had.errors import HadError
from had.tasks.reading import Columns, read_rows

Write = Callable[[str, str | bytes], Path]
TEXT = Columns(["text"], "label")


def test_tsv_with_byte_order_mark_and_windows_line_ends(write: Write) -> None:
    path = write("x.tsv", b"\xef\xbb\xbflabel\ttext\r\n1\tone\r\n0\ttwo\r\n")
    rows = read_rows(path, TEXT)
    assert rows.texts == (["one", "two"],)
    assert rows.labels == ["1", "0"]
    assert rows.where(1) == f"{path}:3"


def test_tsv_quotes_are_text(write: Write) -> None:
    rows = read_rows(write("x.tsv", 'text\tlabel\n"unpaired\t1\nsaid "x"\t0\n'), TEXT)
    assert rows.texts == (['"unpaired', 'said "x"'],)


def test_tsv_keeps_unicode_line_separators_inside_a_text(write: Write) -> None:
    rows = read_rows(write("x.tsv", "text\tlabel\na\u2028b\x85c\t1\n"), TEXT)
    assert rows.texts == (["a\u2028b\x85c"],)


def test_tsv_without_header(write: Write) -> None:
    rows = read_rows(write("x.tsv", "g\t1\t\tone\ng\t0\t*\ttwo\n"), Columns([3], 1), header=False)
    assert rows.texts == (["one", "two"],)
    assert rows.labels == ["1", "0"]
    assert list(rows.lines) == [1, 2]


def test_blank_lines_are_no_examples(write: Write) -> None:
    rows = read_rows(write("x.tsv", "text\tlabel\none\t1\n\n\ntwo\t0\n\n"), TEXT)
    assert list(rows.lines) == [2, 5]


def test_few_ragged_lines_are_skipped_with_one_warning(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    good = "text\t1\n" * 199
    path = write("x.tsv", f"text\tlabel\n{good}text 1\n{good}x\ty\t0\n")
    with caplog.at_level(logging.WARNING):
        rows = read_rows(path, TEXT)
    assert len(rows) == 398
    assert len(caplog.records) == 1
    assert "2 of 400 lines" in caplog.text
    assert f"{path}:201" in caplog.text


def test_ragged_first_line_without_header(write: Write) -> None:
    path = write("x.tsv", "1\ta b\n" + "2\ta\tb\n" * 200)
    rows = read_rows(path, Columns([1, 2], 0), header=False)
    assert len(rows) == 200
    assert rows.where(0) == f"{path}:2"


def test_many_ragged_lines_are_an_error(write: Write) -> None:
    path = write("x.tsv", "text\tlabel\n" + "one\t1\n" * 97 + "two\n" * 3)
    with pytest.raises(HadError, match=r"3 of 100 lines .*x\.tsv:99"):
        read_rows(path, TEXT)


def test_csv_quoting(write: Write) -> None:
    path = write("x.csv", 'label,text\r\npos,"a, ""b""\r\nc"\r\nneg,plain\r\n')
    rows = read_rows(path, TEXT)
    assert rows.texts == (['a, "b"\r\nc', "plain"],)
    assert rows.where(1) == f"{path}:4"


def test_csv_field_of_any_length(write: Write) -> None:
    long = "x" * 300_000  # the module's own limit is 131,072
    assert read_rows(write("x.csv", f"text,label\n{long},1\n"), TEXT).texts == ([long],)


def test_csv_with_an_unclosed_quote_names_its_line(write: Write) -> None:
    path = write("x.csv", 'text,label\nok,1\n"open,0\nswallowed,1\n')
    with pytest.raises(HadError, match=r"x\.csv:3: malformed CSV"):
        read_rows(path, TEXT)


def test_jsonl(write: Write) -> None:
    path = write(
        "x.jsonl", '{"text": "é", "label": 2}\n\n{"label": "2", "extra": [], "text": "b"}\n'
    )
    rows = read_rows(path, TEXT)
    assert rows.texts == (["é", "b"],)
    assert rows.labels == ["2", "2"]
    assert list(rows.lines) == [1, 3]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', r":2: malformed JSON"),
        ('["x", 1]', r":2: expected one JSON object a line, found list"),
        ('{"text": "x"}', r":2: no column 'label'; there are: text"),
        ('{"text": null, "label": 1}', r":2: 'text' is neither text nor a number: null"),
    ],
)
def test_bad_jsonl_names_its_line(write: Write, line: str, message: str) -> None:
    path = write("x.jsonl", '{"text": "x", "label": 1}\n' + line + "\n")
    with pytest.raises(HadError, match=message):
        read_rows(path, TEXT)


@pytest.mark.parametrize("content", ["", "text\tlabel\n", "\n\n", b"\xef\xbb\xbf"])
def test_empty_file(write: Write, content: str | bytes) -> None:
    with pytest.raises(HadError, match=r"x\.tsv: the file (is empty|has no examples)"):
        read_rows(write("x.tsv", content), TEXT)


def test_undecodable_file_names_the_byte(write: Write) -> None:
    path = write("x.tsv", b"\xef\xbb\xbftext\tlabel\n" + b"ab\xff\t1\n")
    with pytest.raises(HadError, match=r"x\.tsv: byte 16 is not valid UTF-8"):  # 3 + 11 + 2
        read_rows(path, TEXT)


def test_missing_column_suggests_a_close_one(write: Write) -> None:
    path = write("x.csv", "text,lable\none,1\n")
    with pytest.raises(HadError, match=r"no column 'label'.*text, lable.*did you mean 'lable'"):
        read_rows(path, TEXT)


def test_column_index_out_of_range(write: Write) -> None:
    with pytest.raises(HadError, match="no column 2; there are 2"):
        read_rows(write("x.tsv", "a\tb\n"), Columns([0], 2), header=False)


def test_column_name_without_header(write: Write) -> None:
    with pytest.raises(HadError, match="'text' needs a header"):
        read_rows(write("x.tsv", "a\tb\n"), TEXT, header=False)


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(HadError, match=r"none\.tsv: no such file"):
        read_rows(tmp_path / "none.tsv", TEXT)
    with pytest.raises(HadError, match=r"unknown suffix '\.xlsx'; known: \.tsv, \.csv"):
        read_rows(tmp_path / "x.xlsx", TEXT)
