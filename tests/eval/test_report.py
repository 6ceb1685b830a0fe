"""Reports against an HTML parser of the standard library, and results against what was passed in."""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btnet_eval.base import DataError, Problems
from btnet_eval.report import Result, Section, read_result, to_html, to_markdown, write_report, write_result

TEXT = st.text(st.characters() | st.sampled_from("\\`*_[]<>|&~#$!()-+=1.) \n\"':"), max_size=30)


class Page(HTMLParser):
    """What can be read on a page: (tag, text) in order, without markup; and the attributes of its images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        elif tag != "meta":
            self._open.append(tag)
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag != "img":
            assert self._open.pop() == tag, "elements must be nested"

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            tag, before = self.texts[-1]
            self.texts[-1] = (tag, before + data)

    def all_of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def result_of(**changes: Any) -> Result:
    result: Result = {
        "format": 1,
        "kind": "verification",
        "date": "2026-11-22T12:00:00+00:00",
        "command": ["btnet-eval", "pairs"],
        "versions": {"python": "3.11"},
        "models": {"res50": "abc"},
        "data": {},
        "problems": {"count": 0, "messages": []},
        "sections": [],
        "numbers": {},
    }
    return result | changes


def section(**changes: Any) -> dict[str, Any]:
    return {"title": "a", "note": "", "columns": [], "rows": [], "figure": None} | changes


def page_of(result: Result) -> Page:
    return Page(to_html(to_markdown(result), result["kind"]))


def legible(text: str) -> str:
    """What is to be read where text stands in a report, worked out character by character."""

    def characters() -> Iterator[str]:
        for char in text:
            if char.isspace():
                yield " "
            elif char.isprintable():
                yield char
            elif ord(char) < 0x100:
                yield f"\\x{ord(char):02x}"
            else:
                yield f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"

    return "".join(characters()).strip()


def write(path: Path, **changes: Any) -> Result:
    arguments: dict[str, Any] = {
        "kind": "verification",
        "numbers": {},
        "problems": Problems(),
        "models": {},
        "data": {},
        "command": ["btnet-eval"],
        "sections": [],
    }
    return write_result(path, **(arguments | changes))


@dataclass(frozen=True)
class Rate:
    far: float
    tar: np.float32


def test_the_file_holds_what_was_passed(tmp_path: Path) -> None:
    problems = Problems()
    problems.report("pairs.txt, line 3: there is no image x.jpg")
    path = tmp_path / "result.json"
    rows: list[Any] = [(7, np.float32(0.5)), (14, None)]
    returned = write(
        path,
        numbers={
            "accuracy": np.float64(0.1),
            "folds": np.array([[1, 2], [3, 4]]),
            "at": (Rate(1e-6, np.float32(0.5)),),
        },
        problems=problems,
        models={"res50": "ab12"},
        data={"val_pairs.tsv": "cd34"},
        command=["btnet-eval", "pairs", "a b"],
        sections=[Section("table", ["r", "tar"], rows, "a note", "plots/roc.png")],
    )
    read = json.loads(path.read_text())
    assert read == returned == read_result(path)
    assert read["numbers"] == {"accuracy": 0.1, "folds": [[1, 2], [3, 4]], "at": [{"far": 1e-6, "tar": 0.5}]}
    assert read["problems"] == {"count": 1, "messages": ["pairs.txt, line 3: there is no image x.jpg"]}
    assert (read["models"], read["data"]) == ({"res50": "ab12"}, {"val_pairs.tsv": "cd34"})
    assert read["command"] == ["btnet-eval", "pairs", "a b"]
    assert read["sections"] == [
        {
            "title": "table",
            "columns": ["r", "tar"],
            "rows": [[7, 0.5], [14, None]],
            "note": "a note",
            "figure": "plots/roc.png",
        }
    ]
    versions = read["versions"]
    assert (versions["python"], versions["platform"]) == (platform.python_version(), platform.platform())
    assert (versions["btnet-ext"], versions["numpy"]) == (metadata.version("btnet-ext"), np.__version__)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.array([1.0, np.nan]), object(), Rate, {1, 2}])
def test_what_json_cannot_hold_leaves_the_file_before(tmp_path: Path, value: object) -> None:
    path = tmp_path / "result.json"
    before = write(path)
    with pytest.raises(ValueError, match="the result verification cannot be written as JSON: "):
        write(path, numbers={"accuracy": value})
    assert read_result(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"format": 1', "not JSON"),
        (b"[]", "not a result of btnet-eval, format 1"),
        (b'{"format": 1}', "not a result of btnet-eval, format 1"),
        (json.dumps(result_of(format=2)).encode(), "not a result of btnet-eval, format 1"),
        (json.dumps(result_of(sections={})).encode(), "not a result of btnet-eval, format 1"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"result.json: {why}"):
        write_report(path)
    assert list(tmp_path.iterdir()) == [path]


def test_sections_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="row 1 of rates has 1 cells for 2 columns"):
        Section("rates", ["far", "tar"], [(0.1, 0.9), (0.01,)])


@pytest.mark.parametrize("figure", ["/roc.png", "../roc.png", "a/../../roc.png", "https://x.org/roc.png", "//x.org/a"])
def test_figures_elsewhere(figure: str) -> None:
    with pytest.raises(ValueError, match="figure of rates must be a path relative to the report, not "):
        Section("rates", [], [], figure=figure)
    with pytest.raises(ValueError, match="images must be relative to the page, not "):
        to_html(f"![roc]({figure})", "rates")


def test_markdown_by_hand() -> None:
    result = result_of(
        sections=[
            section(
                title="TAR",
                note="Of 3,000 pairs.",
                columns=["resolution", "pairs", "TAR", "FAR", "wide enough"],
                rows=[["14&112", 3000, 0.98765, 1e-6, True], ["7", 12, None, 0.25, False]],
                figure="roc 1.png",
            )
        ],
        problems={"count": 1234, "messages": ["a.txt, line 1: no *image* b_1.jpg"]},
    )
    assert to_markdown(result) == (
        "# verification\n\n"
        "## TAR\n\n"
        "Of 3,000 pairs.\n\n"
        "| resolution | pairs | TAR | FAR | wide enough |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| 14\\&112 | 3,000 | 0.9877 | 1e-06 | yes |\n"
        "| 7 | 12 | n/a | 0.2500 | no |\n\n"
        "![TAR](roc%201.png)\n\n"
        "## How it was made\n\n"
        "| models | digest |\n| --- | --- |\n| res50 | abc |\n\n"
        "| software | version |\n| --- | --- |\n| python | 3.11 |\n\n"
        "Date: 2026-11-22T12:00:00+00:00. Command:\n\n"
        "    btnet-eval pairs\n\n"
        "## Left out\n\n"
        "What was wrong with data, 1,234 in all, the first 1 of them:\n\n"
        "- a.txt, line 1: no \\*image\\* b_1.jpg\n"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0000"), (0.001, "0.0010"), (-0.5, "-0.5000"), (0.000999, "0.000999"), (999999.5, "999999.5000"),
     (1e6, "1e+06"), (-1234567, "-1,234,567"), (0, "0")],
)  # fmt: skip
def test_numbers(value: float, shown: str) -> None:
    assert page_of(result_of(sections=[section(columns=["x"], rows=[[value]])])).all_of("td")[0] == shown


OWN_TAGS = {"html", "head", "meta", "style", "title", "body", "h1", "h2", "p", "pre", "code"} | {
    "table", "thead", "tbody", "tr", "th", "td", "ul", "li"
}  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=60)
@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_text_is_read_as_it_is(title: str, note: str, column: str, cell: str, message: str) -> None:
    """Nothing of any text is taken for Markdown or HTML, wherever it stands."""
    result = result_of(
        kind=title,
        command=["btnet-eval", note],
        sections=[section(title=title, note=note, columns=[column, column], rows=[[cell, 1], [1, cell]])],
        problems={"count": 2, "messages": [message, message]},
    )
    page = page_of(result)

    def normal(*texts: str) -> list[str]:
        return [" ".join(text.split()) for text in texts]

    assert normal(*page.all_of("title", "h1", "h2")) == normal(*[legible(title)] * 3, "How it was made", "Left out")
    rows = [legible(cell), "1", "1", legible(cell), "res50", "abc", "python", "3.11"]
    assert normal(*page.all_of("td")) == normal(*rows)
    assert normal(*page.all_of("th"))[:2] == normal(legible(column), legible(column))
    assert normal(*page.all_of("li")) == normal(legible(message), legible(message))
    notes = [text for text in normal(*page.all_of("p")) if not text.startswith(("Date: ", "What was wrong"))]
    assert notes == [text for text in normal(legible(note)) if text]
    assert page.tags == OWN_TAGS


def test_the_command_can_be_copied() -> None:
    page = page_of(result_of(command=["btnet-eval", "pairs", "my faces/*.jpg", "```", "<b>"]))
    assert page.all_of("code") == ["btnet-eval pairs 'my faces/*.jpg' '```' '<b>'\n"]


def test_reports_stand_beside_the_result(tmp_path: Path) -> None:
    path = tmp_path / "lfw.json"
    write(path, sections=[Section("ROC", [], [], figure="lfw plots/roc.png")])
    markdown, page = write_report(path)
    assert (markdown, page) == (tmp_path / "lfw.md", tmp_path / "lfw.html")
    assert markdown.read_text(encoding="utf-8") == to_markdown(read_result(path))
    assert Page(page.read_text(encoding="utf-8")).images == [{"src": "lfw%20plots/roc.png", "alt": "ROC"}]
    assert "http" not in page.read_text(encoding="utf-8")
    first = markdown.read_bytes(), page.read_bytes()
    write_report(path)
    assert (markdown.read_bytes(), page.read_bytes()) == first


def test_html_in_markdown_is_text() -> None:
    page = Page(to_html("<script>alert(1)</script>\n\na <b>c</b>", "<i>"))
    assert "script" not in page.tags
    assert page.all_of("p") == ["<script>alert(1)</script>", "a <b>c</b>"]
    assert page.all_of("title") == ["<i>"]
