"""A passage as units that are kept or dropped whole: sentences, and blocks that mean nothing in parts."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llmcost_plugins.compression.sentences import sentences

Kind = Literal["sentence", "code", "table", "json", "yaml", "list", "heading"]

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\s*$")
_RULE_OF_TABLE = re.compile(r"(?=.*\|)(?=.*-)[\s:|+-]+$")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦]|\d{1,3}[.)])[ \t]+\S")
_INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
_KEY = re.compile(r"\s*(?:- +)?[\w\"'./-]+:(?: +\S.*)?$")
_TAG = re.compile(r"\s*<(pre|table|script|style|svg|math)\b", re.IGNORECASE)
_CODE_LINE = re.compile(
    r"\s*(?:@\w|#include|//|/\*|\*/|[})\]]+[;,)]*$|(?:def|class|import|from|return|if|elif|else|for|while|try|except|with|"
    r"raise|async|await|function|const|let|var|public|private|static|void|int|struct|fn|impl|use|package|func|type|SELECT|"
    r"FROM|WHERE|INSERT|UPDATE|CREATE)\b.*[:;{(,)=\]]\s*$)|.*[;{}]\s*$"
    r"|.*[\]\w]\s*(?:[-+*/|&]?=|=>|:=)\s*\S|(?:(?!\w\().)*+\w\(.*\)\s*(?:[-+*/|&]?=|=>|:=)\s*\S"
)
_AHEAD = 20  # lines that are read to tell what they are; more would take time that grows with their square
_SPACE_OR_TEXT = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a passage: `start` and `end` say where it stands, `text` is what it is shown as.

    `text` differs from what stands there only for JSON written without its blanks. `parent` is the place of the heading
    (or of the words that lead to a list) that must be kept with it, -1 for none.
    """

    start: int
    end: int
    kind: Kind
    text: str
    parent: int = -1


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that belong together: from character `start` to `end`."""

    start: int
    end: int
    kind: Kind | Literal["prose"]
    level: int = 0


def segment(text: str) -> tuple[Unit, ...]:
    """Return the units of a passage in their order; nothing but blanks stands between them."""
    units: list[Unit] = []
    headings: list[tuple[int, int]] = []
    for block in _blocks(text):
        if block.kind == "heading":
            while headings and headings[-1][0] >= block.level:
                headings.pop()
        parent = headings[-1][1] if headings else -1
        if block.kind in ("list", "table", "code", "json", "yaml") and _leads(units, text, block.start):
            parent = len(units) - 1
        if block.kind == "heading":
            headings.append((block.level, len(units)))
        units.extend(_units_of(text, block, parent))
    return tuple(units)


def _leads(units: list[Unit], text: str, start: int) -> bool:
    """Tell whether the last unit announces the block that starts here: it ends in a colon and stands close by."""
    if not units or units[-1].kind != "sentence":
        return False
    last = units[-1]
    return last.text.rstrip()[-1:] in (":", "：") and text.count("\n", last.end, start) <= 2  # noqa: RUF001


def _units_of(text: str, block: _Block, parent: int) -> Iterator[Unit]:
    if block.kind == "prose":
        for start, end in sentences(text, block.start, block.end):
            yield Unit(start, end, "sentence", text[start:end], parent)
        return
    start, end = _trimmed(text, block.start, block.end)
    if end > start:
        whole = text[start:end]
        yield Unit(start, end, block.kind, whole, parent)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out the blank lines around a block and the blanks after it, not its first line's indentation."""
    body = text[start:end]
    end = start + len(body.rstrip())
    blank = len(body) - len(body.lstrip())
    start += body.rfind("\n", 0, blank) + 1
    return start, end


# ------------------------------------------------------------------------------------------------------------- blocks


def _blocks(text: str) -> Iterator[_Block]:
    lines = _lines(text)
    if len(lines) == 1 and text.lstrip()[:1] not in ("{", "[", "#", "`", "|", "<", "-", "*"):
        yield _Block(0, len(text), "prose")
        return
    n = 0
    while n < len(lines):
        block, n = _next(text, lines, n)
        yield block


def _lines(text: str) -> list[tuple[int, int]]:
    """Return where each line starts and ends, its line break included."""
    ends = [match.end() for match in re.finditer(r"\n|\r(?!\n)", text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _next(text: str, lines: list[tuple[int, int]], n: int) -> tuple[_Block, int]:
    """Return the block that begins with line `n`, and the line after it."""
    line = _line(text, lines, n)
    if not line.strip():
        return _block(lines, n, n + 1, "prose"), n + 1
    for kind, reader in _READERS:
        if (end := reader(text, lines, n)) > n:
            return _block(lines, n, end, kind), end
    if level := _heading(text, lines, n):
        end = n + (1 if _HEADING.match(line) else 2)
        return _Block(lines[n][0], lines[end - 1][1], "heading", level), end
    end = n + 1
    while end < len(lines) and not _starts_block(text, lines, end):
        end += 1
    return _block(lines, n, end, "prose"), end


def _block(lines: list[tuple[int, int]], first: int, end: int, kind: Any) -> _Block:
    return _Block(lines[first][0], lines[end - 1][1], kind)


def _line(text: str, lines: list[tuple[int, int]], n: int) -> str:
    start, end = lines[n]
    return text[start:end].rstrip("\r\n")


def _starts_block(text: str, lines: list[tuple[int, int]], n: int) -> bool:
    line = _line(text, lines, n)
    if not line.strip():
        return True
    if _heading(text, lines, n):
        return True
    return any(reader(text, lines, n) > n for _, reader in _READERS)


def _heading(text: str, lines: list[tuple[int, int]], n: int) -> int:
    """Return a heading's level, 0 for any other line."""
    line = _line(text, lines, n)
    if match := _HEADING.match(line):
        return len(match[1])
    if n + 1 < len(lines) and len(line) < 100 and (match := _UNDERLINE.match(_line(text, lines, n + 1))):
        return 1 if match[1][0] == "=" else 2
    return 0


def _fenced(text: str, lines: list[tuple[int, int]], n: int) -> int:
    match = _FENCE.match(_line(text, lines, n))
    if not match:
        return n
    closing = re.compile(rf" {{0,3}}{re.escape(match[1][0])}{{{len(match[1])},}}\s*$")
    ends = (m + 1 for m in range(n + 1, len(lines)) if closing.match(_line(text, lines, m)))
    return next(ends, len(lines))


def _tagged(text: str, lines: list[tuple[int, int]], n: int) -> int:
    match = _TAG.match(_line(text, lines, n))
    if not match:
        return n
    closing = f"</{match[1].lower()}>"
    return next((m + 1 for m in range(n, len(lines)) if closing in _line(text, lines, m).lower()), len(lines))


def _json(text: str, lines: list[tuple[int, int]], n: int) -> int:
    line = _line(text, lines, n).lstrip()
    if line[:1] not in ("{", "[") or line.startswith("[]("):
        return n
    start = text.index(line[0], lines[n][0])
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return n
    last = next(m for m in range(n, len(lines)) if lines[m][1] >= end)
    is_object = isinstance(value, dict | list) and bool(value)
    return last + 1 if is_object and not text[end : lines[last][1]].strip(" \t\r\n,;") else n


def _table(text: str, lines: list[tuple[int, int]], n: int) -> int:
    if "|" not in _line(text, lines, n):
        return n
    ruled = n + 1 < len(lines) and _RULE_OF_TABLE.match(_line(text, lines, n + 1).strip()) is not None
    end = n
    while end < len(lines) and "|" in (line := _line(text, lines, end)) and (ruled or line.lstrip().startswith("|")):
        end += 1
    return end if end > n + 1 else n


def _list(text: str, lines: list[tuple[int, int]], n: int) -> int:
    if not _ITEM.match(_line(text, lines, n)):
        return n
    end, items = n, 0
    while end < len(lines):
        line = _line(text, lines, end)
        if _ITEM.match(line):
            items += 1
        elif (line.strip() and not line[0].isspace()) or (not line.strip() and not _continues(text, lines, end + 1)):
            break
        end += 1
    return end if items > 1 or not _INDENTED.match(_line(text, lines, n)) else n


def _continues(text: str, lines: list[tuple[int, int]], n: int) -> bool:
    """Tell whether a list goes on after a blank line."""
    line = _line(text, lines, n) if n < len(lines) else ""
    return bool(line.strip()) and (line[0].isspace() or _ITEM.match(line) is not None)


def _yaml(text: str, lines: list[tuple[int, int]], n: int) -> int:
    if not _KEY.match(_line(text, lines, n)):
        return n
    end = keys = 0
    for end in range(n, len(lines)):
        line = _line(text, lines, end)
        if end == n + _AHEAD and not _is_terse(text, lines, n, end):
            return n
        if _KEY.match(line):
            keys += 1
        elif not (line[:1].isspace() or line.startswith(("- ", "#"))) or not line.strip():
            break
    else:
        end = len(lines)
    return end if keys > 1 and _is_terse(text, lines, n, min(end, n + _AHEAD)) else n


def _is_terse(text: str, lines: list[tuple[int, int]], n: int, end: int) -> bool:
    """Tell whether lines are as short as those of YAML are, unlike those of a transcript."""
    return sum(len(_line(text, lines, m).split()) for m in range(n, end)) <= 8 * (end - n)


def _indented(text: str, lines: list[tuple[int, int]], n: int) -> int:
    if not _INDENTED.match(_line(text, lines, n)):
        return n
    end, is_code = n, False
    while end < len(lines) and (not _line(text, lines, end).strip() or _INDENTED.match(_line(text, lines, end))):
        is_code = is_code or _CODE_LINE.match(_line(text, lines, end)) is not None
        end += 1
        if not is_code and end == n + _AHEAD:
            break
    return end if is_code else n


def _bare_code(text: str, lines: list[tuple[int, int]], n: int) -> int:
    """Read code without a fence: lines most of which look like it, with the indented parts that follow."""
    if not _CODE_LINE.match(_line(text, lines, n)):
        return n
    end, codes, others = n, 0, 0
    while end < len(lines):
        line = _line(text, lines, end)
        if _CODE_LINE.match(line):
            codes += 1
        elif line.strip() and not line[0].isspace():
            others += 1
        elif not line.strip() and not _goes_on(text, lines, end + 1):
            break
        end += 1
        if end == n + _AHEAD and codes <= others:
            return n
    return end if codes > 1 and codes > others else n


def _goes_on(text: str, lines: list[tuple[int, int]], n: int) -> bool:
    """Tell whether code goes on after a blank line."""
    line = _line(text, lines, n) if n < len(lines) else ""
    return bool(line.strip()) and (line[0].isspace() or _CODE_LINE.match(line) is not None)


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_READERS: tuple[tuple[Kind, Any], ...] = (
    ("code", _fenced),
    ("code", _tagged),
    ("json", _json),
    ("table", _table),
    ("code", _indented),
    ("list", _list),
    ("code", _bare_code),
    ("yaml", _yaml),
)


# --------------------------------------------------------------------------------------------------------------- JSON


def minified(text: str) -> str:
    """Return JSON without the blanks between its parts; as it is where it does not read as the same value then.

    Numbers keep their digits, texts their escapes, objects the order of their keys and keys that come twice.
    """
    shorter = _SPACE_OR_TEXT.sub(lambda match: match[1] or "", text)
    return shorter if len(shorter) < len(text) and _same(text, shorter) else text


def _same(one: str, other: str) -> bool:
    try:
        return bool(_read(one) == _read(other))
    except (ValueError, RecursionError):
        return False


def _read(text: str) -> Any:
    """Read JSON with numbers as they are written and objects as lists of pairs."""
    return json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str, parse_constant=str)
