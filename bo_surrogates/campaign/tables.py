"""Tables in and out: CSV as spreadsheets write it, JSON and Parquet.

A `Table` is what a file or a DataFrame holds, cell by cell, before anything is made of it; a
campaign gives the cells their meaning (`trial_table.py`). Reading is forgiving where the meaning is
certain (a byte-order mark, semicolons, decimal commas, empty rows) and refuses what could be read
in two ways. Every message names the file, the row as a spreadsheet counts it, and the column.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Decimal = Literal["point", "comma"]
DECIMALS = ("point", "comma")
FORMATS = (".csv", ".tsv", ".txt", ".json", ".parquet")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(  # 1.5.2026, 2026-05-01, 5. Mai, 5-May-26, Jan 27
    r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}.*"
    r"|\d{1,2}[. -]+[^\W\d]{3,}\.?([ -]\d+)?"
    r"|[^\W\d]{3,}[ -]\d{2,4}"
)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}([ \u00a0\u202f'\u2019]\d{3})+([.,]\d*)?")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        number: As a spreadsheet counts: 1 is the header, the first row of data is 2. Of records
            without a header (JSON, Parquet, DataFrames): 1, 2, ...
        cells: By column; empty cells are left out. Of a CSV file, text.
    """

    number: int
    cells: Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """Rows and columns, as read.

    Attributes:
        source: How messages call it.
        columns: Names of the columns, distinct, in order.
        rows: Those that are not empty.
        delimiter: Of a CSV file; "" where there is none.
        decimal: What separates the fraction of numbers written as text.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    delimiter: str = ""
    decimal: Decimal = "point"

    def at(self, row: Row, column: str | None = None) -> str:
        """Where something is, for messages."""
        place = f"{self.source}, row {row.number}"
        return place if column is None else f"{place}, column {column!r}"


def read_table(
    path: str | Path, *, names: Collection[str] = (), decimal: Decimal | None = None
) -> Table:
    """Read a table from a file.

    Args:
        path: .csv, .tsv, .txt, .json or .parquet; "-" is CSV from standard input.
        names: Columns that are expected: the delimiter is the one that finds most of them.
        decimal: What separates the fraction of a number; None: as found in the file.

    Raises:
        InputError: The file cannot be read, or is no table.
    """
    if decimal is not None and decimal not in DECIMALS:
        raise InputError(f"decimal must be 'point' or 'comma', got {decimal!r}")
    if str(path) == "-":
        return _read_csv(sys.stdin.buffer.read(), "standard input", names, decimal)
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _read_parquet(path)
    data = read_bytes(path)
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(
            f"{path} is a spreadsheet's own format; save it as 'CSV UTF-8' and give that file"
        )
    if kind == ".json":
        return table_of(_json_records(data, str(path)), str(path))
    if kind not in FORMATS:
        raise InputError(f"{path}: unknown kind of table; expected one of {', '.join(FORMATS)}")
    return _read_csv(data, str(path), names, decimal)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        InputError: It does not exist or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}; check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def table_of(data: pd.DataFrame | Iterable[Mapping[str, Any]], source: str = "data") -> Table:
    """A table of records: a DataFrame, or mappings from column to value.

    Raises:
        InputError: It is neither.
    """
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a DataFrame, without its import
        records: Iterable[Any] = data.to_dict(orient="records")
        columns = [str(c) for c in data.columns]
    else:
        if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
            raise InputError(f"{source}: expected rows or a DataFrame, got {type(data).__name__}")
        records, columns = list(data), []
    rows = []
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise InputError(
                f"{source}, row {number}: expected columns with values, got {record!r}"
            )
        cells = {str(k): _plain(v) for k, v in record.items()}
        columns += [k for k in cells if k not in columns]
        rows.append(Row(number, {k: v for k, v in cells.items() if not _empty(v)}))
    return Table(source, tuple(columns), tuple(r for r in rows if r.cells))


def _plain(value: object) -> object:
    """NumPy's scalars as Python's; text without spaces around it."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        value = item()
    return value.strip() if isinstance(value, str) else value


def _empty(value: object) -> bool:
    # NaN, NaT and NA are not equal to themselves; in a table they stand for nothing.
    if value is None or (isinstance(value, str) and not value):
        return True
    return type(value).__name__ in ("NAType", "NaTType") or (
        isinstance(value, float) and math.isnan(value)
    )


# ---- CSV -----------------------------------------------------------------------------------------
def _read_csv(data: bytes, source: str, names: Collection[str], decimal: Decimal | None) -> Table:
    text = _decode(data, source)
    if "\0" in text:
        raise InputError(f"{source} is not a text file; save the table as 'CSV UTF-8'")
    told = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to say it
    delimiters: Sequence[str] = (told[1],) if told else (",", ";", "\t")
    lines = {d: _split(text, d, source) for d in delimiters}
    skipped = 1 if told else 0

    def quality(delimiter: str) -> tuple[int, int]:
        header = [h.strip() for h in _header(lines[delimiter][skipped:])]
        return sum(h in names for h in header), len(header)

    delimiter = max(delimiters, key=quality)
    rows = lines[delimiter]
    first = next((i for i in range(skipped, len(rows)) if any(c.strip() for c in rows[i])), None)
    if first is None:
        raise InputError(f"{source} is empty; expected a header and rows")
    header = [h.strip() for h in rows[first]]
    for name in header:
        if name and header.count(name) > 1:
            raise InputError(f"{source}: column {name!r} is there twice; remove one")
    found = []
    # A spreadsheet does not show "sep=;" as a row.
    for number, cells in enumerate(rows[first + 1 :], start=first + 2 - skipped):
        row = _row(source, number, cells, header, delimiter)
        if row.cells:
            found.append(row)
    table = Table(source, tuple(h for h in header if h), tuple(found), delimiter)
    return Table(
        table.source, table.columns, table.rows, delimiter, decimal or _find_decimal(table)
    )


def _decode(data: bytes, source: str) -> str:
    # UTF-16 is what Excel calls "Unicode text".
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{source}, row {row}: not text in UTF-8; save it as 'CSV UTF-8' in the spreadsheet"
        ) from None


def _header(rows: list[list[str]]) -> list[str]:
    return next((row for row in rows if any(c.strip() for c in row)), [])


def _split(text: str, delimiter: str, source: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(reader)
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num}: not CSV: {error}") from None


def _row(source: str, number: int, cells: list[str], header: list[str], delimiter: str) -> Row:
    named = {}
    for position, cell in enumerate(cells):
        value = cell.strip()
        if not value:
            continue
        if position >= len(header) or not header[position]:
            comma = delimiter == ","
            raise InputError(
                f"{source}, row {number}: {value!r} stands in a column without a name (the header "
                f"has {len(header)} columns, this row {len(cells)} cells)"
                + (
                    "; write numbers with a decimal point, or separate the columns by semicolons"
                    if comma and len(cells) > len(header)
                    else "; name the column in the first row"
                )
            )
        named[header[position]] = value
    return Row(number, named)


def _find_decimal(table: Table) -> Decimal:
    """A decimal comma, where numbers have one and none has a point.

    Semicolons say that commas are decimal. Where commas separate columns or tabs do, a "1,250"
    could be a thousand: that is refused unless another number shows what commas mean.

    Raises:
        InputError: Both occur, or it could be either.
    """
    commas: list[tuple[Row, str, str]] = []
    points: list[tuple[Row, str, str]] = []
    for row in table.rows:
        for column, cell in row.cells.items():
            text = str(cell)
            if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text):
                commas.append((row, column, text))
            elif re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", text):
                points.append((row, column, text))
    if not commas:
        return "point"
    row, column, text = commas[0]
    hint = "say which it is with --decimal point or --decimal comma"
    if points:
        other, name, number = points[0]
        raise InputError(
            f"{table.at(row, column)}: {text!r} has a comma where {number!r} (row {other.number}, "
            f"column {name!r}) has a point; write all numbers alike, or {hint}"
        )
    thousands = all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", t) for _, _, t in commas)
    if thousands and table.delimiter != ";":
        raise InputError(
            f"{table.at(row, column)}: {text!r} could be a thousand or a decimal fraction; {hint}"
        )
    return "comma"


# ---- cells ---------------------------------------------------------------------------------------
def read_number(cell: object, decimal: Decimal = "point") -> float:
    """The finite number in a cell.

    Raises:
        InputError: There is none; the text says what there is and what to write.
    """
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        try:
            number = float(cell)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise InputError(f"expected a finite number, got {cell!r}; leave the cell empty")
        return number
    if not isinstance(cell, str):
        hint = "; give the column numbers" if hasattr(cell, "isoformat") else ""
        raise InputError(f"expected a number, got {str(cell)!r}{hint}")
    text = cell.strip().replace("\u2212", "-")  # a typographer's minus
    if decimal == "comma":
        text = text.replace(".", " ").replace(",", ".")  # a point would be a thousand's
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise InputError(f"expected a finite number, got {cell!r}")
        return number
    raise InputError(f"expected a number, got {cell!r}{_hint(cell.strip(), decimal)}")


def _hint(text: str, decimal: Decimal) -> str:
    if text.startswith("#"):
        return "; the spreadsheet shows an error in place of a number"
    if text.startswith("="):
        return "; save the formula's value"
    if text.endswith("%"):
        return "; write it without the % sign, as the campaign's unit has it"
    if _THOUSANDS.fullmatch(text) or re.fullmatch(r"[+-]?\d{1,3}([.,]\d{3})+([.,]\d*)?", text):
        return "; write it without separators between thousands"
    if _DATE.fullmatch(text):
        return "; a spreadsheet has made a date of it: format the column as a number"
    if re.fullmatch(r"[+-]?\d*[.,]\d+", text):
        return f"; write a decimal {decimal}"
    if text.lower() in ("nan", "n/a", "na", "null", "none", "-", "inf", "-inf", "?"):
        return "; leave the cell empty where there is no value"
    if re.match(r"[+-]?\d+([.,]\d+)?\s*(±|\+-|\+/-)", text):
        return "; its standard error has a column of its own, named '... (sem)'"
    if re.match(r"[<>~≈]\s*\d", text):
        return "; write the best estimate"
    if re.match(r"[+-]?\d+([.,]\d+)?\s*\D", text):
        return "; write the number alone, without unit or remark"
    return ""


def digits_shown(cell: object, decimal: Decimal = "point") -> float:
    """Half a unit in the last place of a number's text; 0 of a number that is no text."""
    if not isinstance(cell, str):
        return 0.0
    text = cell.strip().replace(",", ".") if decimal == "comma" else cell.strip()
    mantissa, _, exponent = text.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    return float(0.5 * 10.0 ** (int(exponent or 0) - places))


# ---- JSON and Parquet ----------------------------------------------------------------------------
def read_json(data: bytes, source: str) -> Any:
    """A JSON document, strictly: no NaN, no key twice.

    Raises:
        InputError: It is none.
    """

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number in JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [k for k, _ in items]
        if len(set(keys)) < len(keys):
            raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
        return dict(items)

    try:
        return json.loads(
            data.decode("utf-8-sig"), parse_constant=constant, object_pairs_hook=pairs
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON: {error}") from None


def _json_records(data: bytes, source: str) -> list[Any]:
    records = read_json(data, source)
    if not isinstance(records, list):
        raise InputError(
            f"{source}: expected a list of records, such as "
            '[{"temperature": 70, "yield": 0.71}, ...]'
        )
    return records


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    _require_parquet(path)
    read_bytes(path)  # that it is there, and readable
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a Parquet file: {error}") from None
    return table_of(frame, str(path))


def _require_parquet(path: Path) -> None:
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{path}: Parquet files need pyarrow; install it with "
            "pip install 'bo-surrogates[parquet]', or use CSV"
        )


# ---- writing -------------------------------------------------------------------------------------
def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot or should not be written, before anything is done for it.

    Raises:
        InputError: It exists (and `overwrite` is false), its folder does not, or it is of no
            known kind.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{path}: unknown kind of table; name it .csv, .json or .parquet")
    if kind == ".parquet":
        _require_parquet(path)
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists, and may hold results; choose another name, or replace it with --force"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it")


def csv_text(frame: pd.DataFrame, *, decimal: Decimal = "point") -> str:
    """A DataFrame as CSV, numbers to the last digit; with a decimal comma, columns are separated by
    semicolons, which is what spreadsheets with decimal commas open."""
    comma = decimal == "comma"
    if comma:  # pandas' own option leaves columns of mixed types as they are
        frame = frame.map(_with_comma)
    text: str = frame.to_csv(index=False, sep=";" if comma else ",", lineterminator="\n")
    return text


def _with_comma(cell: object) -> object:
    if isinstance(cell, float) and math.isfinite(cell):
        return repr(float(cell)).replace(".", ",")
    return cell


def write_table(frame: pd.DataFrame, path: Path, *, decimal: Decimal = "point") -> None:
    """Write a DataFrame as .csv, .json or .parquet, whole or not at all.

    A CSV file begins with a byte-order mark where it is not ASCII: without one, Excel takes "°C"
    for something else.

    Raises:
        InputError: See `check_output`; or the file cannot be written.
    """
    check_output(path, overwrite=True)
    kind = path.suffix.lower()
    if kind == ".parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        data = buffer.getvalue()
    elif kind == ".json":
        records = [
            {k: v for k, v in ((k, _plain(v)) for k, v in row.items()) if not _empty(v)}
            for row in frame.to_dict(orient="records")
        ]
        data = json.dumps(records, ensure_ascii=False, indent=1, default=str).encode()
    else:
        if kind == ".tsv":
            text = frame.to_csv(index=False, sep="\t", lineterminator="\n")
        else:
            text = csv_text(frame, decimal=decimal)
        data = text.encode("ascii" if text.isascii() else "utf-8-sig")
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
