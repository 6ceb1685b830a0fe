"""What a run leaves behind: one JSON, and a Markdown and an HTML report that are made from nothing else.

The JSON holds everything: numbers, tables, what was left out, versions, digests and the command. From it `write_report`
can make the reports again at any time.
"""

import html
import json
import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

import numpy as np
from markdown_it import MarkdownIt

from btnet_eval.base import DataError, Problems
from btnet_ext.whole_files import whole_file

Cell: TypeAlias = str | int | float | None
"""Of a table. None: not defined for this row."""

Result: TypeAlias = dict[str, Any]
"""What `write_result` wrote, as it is read from the file."""

_FORMAT = 1
# What numbers may depend on, beside Python.
_PACKAGES = ("btnet-ext", "numpy", "openvino", "pillow", "scikit-learn", "scipy", "faiss-cpu", "matplotlib")
_KINDS = {"format": int, "kind": str, "date": str, "command": list, "versions": dict, "models": dict, "data": dict} | {
    "problems": dict,
    "sections": list,
    "numbers": dict,
}


@dataclass(frozen=True)
class Section:
    """A part of the report: a title, a table, and what there is to say about it, all in plain text.

    rows: a cell for each column. note: a paragraph before the table, or empty. figure: a PNG, by its path relative to
    the report with / between folders, or None. Raises ValueError for rows of another length, and figures elsewhere.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    figure: str | None = None

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} of {self.title} has {len(row)} cells for {len(self.columns)} columns")
        if self.figure is not None and not _is_beside(self.figure):
            raise ValueError(f"figure of {self.title} must be a path relative to the report, not {self.figure}")


def write_result(
    path: Path,
    kind: str,
    numbers: Mapping[str, Any],
    problems: Problems,
    models: Mapping[str, str],
    data: Mapping[str, str],
    command: Sequence[str],
    *,
    sections: Sequence[Section],
) -> Result:
    """Write the JSON of a run, whole or not at all, and return it as it will be read.

    Args:
        path: of the JSON.
        kind: what was measured; the title of the report.
        numbers: all that was measured, with full precision: what JSON can hold, NumPy's numbers and arrays, and
            dataclasses of those.
        problems: what was left out.
        models: digest by name.
        data: digest by name.
        command: the command line, program first.
        sections: the tables of the report.

    Versions, platform and date (UTC) are added. Raises ValueError for what JSON cannot hold, as a number that is not
    finite (say None for what is not defined), and OSError that names the path.
    """
    versions = {"python": platform.python_version(), "platform": platform.platform()} | _versions(_PACKAGES)
    result = {
        "format": _FORMAT,
        "kind": kind,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "versions": versions,
        "models": dict(models),
        "data": dict(data),
        "problems": {"count": problems.count, "messages": problems.messages},
        "sections": [asdict(section) for section in sections],
        "numbers": dict(numbers),
    }
    try:
        text = json.dumps(result, indent=2, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the result {kind} cannot be written as JSON: {error}") from error
    with whole_file(path) as append:
        append(text.encode() + b"\n")
    read: Result = json.loads(text)
    return read


def read_result(path: Path) -> Result:
    """Read what `write_result` wrote. Raises `DataError` for any other file, and OSError from the file system."""
    try:
        result = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    fits = isinstance(result, dict) and all(isinstance(result.get(name), kind) for name, kind in _KINDS.items())
    if not fits or result["format"] != _FORMAT:
        raise DataError(f"{path}: not a result of btnet-eval, format {_FORMAT}")
    checked: Result = result
    return checked


def write_report(path: Path) -> tuple[Path, Path]:
    """Make the reports of a JSON beside it, as .md and .html, each whole or not at all; returns both paths.

    Raises as `read_result`, and OSError that names the path.
    """
    result = read_result(path)
    markdown = to_markdown(result)
    page = to_html(markdown, result["kind"])
    written = path.with_suffix(".md"), path.with_suffix(".html")
    for target, text in zip(written, (markdown, page), strict=True):
        with whole_file(target) as append:
            append(text.encode())
    return written


def percent(part: float | None) -> str | None:
    """A cell with a part, 0..1, in percent. None: not defined."""
    return None if part is None else f"{100 * part:.2f}"


def to_markdown(result: Result) -> str:
    """Lay out a result as Markdown with GitHub's tables: a table a section, then how it was made and what was left out.

    Whole numbers get commas between thousands. Others get four decimals, but three significant digits below 0.001
    and from 1,000,000. None is n/a. Whatever text holds, Markdown sees nothing in it; line breaks in it become spaces,
    and what cannot be printed is shown as Python escapes it.
    """
    parts = [f"# {_escape(result['kind'])}"]
    for section in result["sections"]:
        parts.append(f"## {_escape(section['title'])}")
        if section["note"]:
            parts.append(_escape(section["note"]))
        if section["columns"]:
            parts.append(_table(section["columns"], section["rows"]))
        if section["figure"] is not None:
            parts.append(f"![{_escape(section['title'])}]({quote(section['figure'], errors='surrogateescape')})")
    parts.append("## How it was made")
    for what in ("models", "data"):
        if result[what]:
            parts.append(_table([what, "digest"], result[what].items()))
    parts.append(_table(["software", "version"], result["versions"].items()))
    parts.append(f"Date: {_escape(result['date'])}. Command:")
    # An indented block holds any text but line breaks.
    parts.append(f"    {_printable(shlex.join(result['command']))}")
    parts.append("## Left out")
    count, messages = result["problems"]["count"], result["problems"]["messages"]
    if not count:
        parts.append("Nothing.")
    else:
        first = "" if count == len(messages) else f", the first {len(messages)} of them"
        parts.append(f"What was wrong with data, {count:,} in all{first}:")
        parts.append("\n".join(f"- {_escape(message)}" for message in messages))
    return "\n\n".join(parts) + "\n"


def to_html(markdown: str, title: str) -> str:
    """Turn Markdown (CommonMark and GitHub's tables) into one HTML page that needs nothing but its images.

    HTML in the Markdown is shown as text. Raises ValueError for an image that is not relative to the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for token in parser.parse(markdown):
        for child in token.children or ():
            if child.type == "image" and not _is_beside(str(child.attrs["src"])):
                raise ValueError(f"images must be relative to the page, not {child.attrs['src']}")
    name = html.escape(_printable(title))
    return f"{_HEAD}<title>{name}</title>\n</head>\n<body>\n{parser.render(markdown)}</body>\n</html>\n"


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2; margin: 2rem 0 .8rem }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .9rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
th { border-bottom: 2px solid #888 }
td { font-variant-numeric: tabular-nums }
img { max-width: 100%; display: block }
pre { background: #f4f4f4; padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt }
  h2 { break-after: avoid }
  tr, img { break-inside: avoid }
}
</style>
"""


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"there is no form for {type(value).__name__}")


def _table(columns: Iterable[str], rows: Iterable[Sequence[Cell]]) -> str:
    """The columns without text in their cells are aligned on the right."""
    cells = [list(row) for row in rows]
    header = [_escape(column) for column in columns]
    numeric = [bool(cells) and not any(isinstance(row[i], str) for row in cells) for i in range(len(header))]
    lines = [header, ["---:" if is_numeric else "---" for is_numeric in numeric]]
    lines += [[_show(cell) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show(cell: Cell) -> str:
    if cell is None:
        return "n/a"
    if isinstance(cell, str):
        return _escape(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4f}" if cell == 0 or 0.001 <= abs(cell) < 1e6 else f"{cell:.3g}"


def _printable(text: str) -> str:
    """On one line, without what changes how other text looks; also what UTF-8 cannot hold is escaped."""
    shown = (
        " " if char.isspace() else char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
    return "".join(shown).strip()


def _escape(text: str) -> str:
    """As Markdown that renders as this text: on one line, at the begin of a line or in a cell of a table."""
    # A _ within a word, as in file names, needs no escape, and is easier to read without.
    escaped = re.sub(r"[\\`*\[\]<>|&~#$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", _printable(text))
    # What begins a list, or underlines a heading.
    return re.sub(r"^(\d{1,9}(?=[.)](?: |$))|(?=[-+=]))", r"\g<0>\\", escaped)


def _is_beside(path: str) -> bool:
    """Whether it is a relative path, without a scheme, a host or a way up."""
    parts = urlsplit(path)
    return not (parts.scheme or parts.netloc or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts)
