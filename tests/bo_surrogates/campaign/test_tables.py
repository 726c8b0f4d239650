"""Tables as files: what spreadsheets write is read, what could be read in two ways is refused."""

import json
import math
import sys
from contextlib import contextmanager, suppress

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bo_surrogates.campaign.tables import (
    check_output,
    digits_shown,
    read_number,
    read_table,
    table_of,
    write_table,
)
from bo_surrogates.errors import InputError

PLAIN = "trial,temperature,yield\n0,20.5,0.25\n1,30,\n"


def read(tmp_path, content, name="t.csv", names=("trial", "temperature", "yield"), **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, names=names, **options)


def numbers(table):
    return [{c: read_number(v, table.decimal) for c, v in row.cells.items()} for row in table.rows]


AS_SPREADSHEETS_WRITE_IT = {
    "plain": PLAIN,
    "BOM": "\ufeff" + PLAIN,
    "UTF-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "old Mac": PLAIN.replace("\n", "\r"),
    "semicolons": PLAIN.replace(",", ";"),
    "decimal comma": PLAIN.replace(",", ";").replace(".", ","),
    "tabs and decimal comma": PLAIN.replace(",", "\t").replace(".", ","),
    "sep=": "sep=;\r\n" + PLAIN.replace(",", ";").replace(".", ","),
    "quoted": 'trial,"temperature","yield"\n"0","20.5","0.25"\n"1","30",""\n',
    "quoted decimal comma": 'trial,temperature,yield\n0,"20,5","0,25"\n1,30,\n',
    "spaces": "trial , temperature, yield\n 0 , 20.5 , 0.25 \n1,30, \n",
    "empty rows and short rows": "\n\ntrial,temperature,yield\n\n0,20.5,0.25\n,,\n1,30\n\n",
    "empty columns": "trial,,temperature,yield,\n0,,20.5,0.25,\n1,,30,,\n",
    "exponents": "trial,temperature,yield\n0,2.05E+01,25e-2\n1,+3.0e1,\n",
}


@pytest.mark.parametrize("form", AS_SPREADSHEETS_WRITE_IT)
def test_what_spreadsheets_write_reads_the_same(tmp_path, form):
    table = read(tmp_path, AS_SPREADSHEETS_WRITE_IT[form])
    assert table.columns == ("trial", "temperature", "yield")
    assert numbers(table) == [
        {"trial": 0, "temperature": 20.5, "yield": 0.25},
        {"trial": 1, "temperature": 30},
    ]


def test_rows_are_counted_as_a_spreadsheet_counts_them(tmp_path):
    text = 'trial,note\n0,"two\nlines"\n\n7,x\n'
    assert [r.number for r in read(tmp_path, text).rows] == [2, 4]
    assert [r.number for r in read(tmp_path, "sep=,\n" + text).rows] == [2, 4]


def test_names_with_delimiters_in_them_are_found(tmp_path):
    table = read(tmp_path, 'trial;"a, b; c"\n1;2\n', names=("trial", "a, b; c"))
    assert table.columns == ("trial", "a, b; c")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("trial,yield,yield\n", "'yield' is there twice"),
        (b"trial,T \xb0C\n1,2\n", "row 1: not text in UTF-8"),
        (b"PK\x03\x04abc", "save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0abc", "save it as 'CSV UTF-8'"),
        (b"a\0b,c\n", "not a text file"),
        ("trial,temperature,yield\n0,20,5,0,25\n", "row 2: '0' stands in a column without a name"),
        ("trial,temperature,yield\n0,20.5,0.25,good\n", "decimal point, or separate"),
        ("trial,,yield\n0,20.5,0.25\n", "name the column"),
        ('trial,temperature,yield\n0,"20,5",0.25\n', "'20,5' has a comma where '0.25'"),
        ('trial,temperature,yield\n0,"1,250",3\n', "could be a thousand"),
        ("trial\ttemperature\tyield\n0\t1,250\t3\n", "could be a thousand"),
    ],
)
def test_what_cannot_be_read_with_certainty_is_refused(tmp_path, content, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    assert said in str(error.value)
    assert "t.csv" in str(error.value)


def test_an_ambiguous_comma_is_settled_by_saying_so_or_by_another_number(tmp_path):
    text = 'trial,temperature,yield\n0,"1,250",3\n'
    assert numbers(read(tmp_path, text, decimal="comma"))[0]["temperature"] == 1.25
    with pytest.raises(InputError, match="without separators between thousands"):
        numbers(read(tmp_path, text, decimal="point"))
    assert numbers(read(tmp_path, text + '1,"0,5",2\n'))[0]["temperature"] == 1.25
    with pytest.raises(InputError, match="decimal must be"):
        read(tmp_path, text, decimal=",")


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("nan", "empty"),
        ("inf", "empty"),
        ("N/A", "empty"),
        ("1e999", "finite"),
        ("1_000", "the number alone"),
        ("#DIV/0!", "an error"),
        ("=A1+2", "the formula's value"),
        ("5%", "without the % sign"),
        ("1 234.5", "thousands"),
        ("1,234.5", "thousands"),
        ("0,5", "decimal point"),
        ("01.05.2026", "made a date"),
        ("5. Mai", "made a date"),
        ("Jan 27", "made a date"),
        ("2026-05-01", "made a date"),
        ("0.5 ± 0.1", "(sem)"),
        ("< 0.01", "best estimate"),
        ("0.5 mg", "without unit"),
        ("low", "expected a number"),
        ("٣", "expected a number"),
        (True, "expected a number"),
        (10**400, "finite"),
        (pd.Timestamp("2026-05-01"), "give the column numbers"),
        ([1], "expected a number"),
    ],
)
def test_what_is_no_number_is_refused_with_a_hint(cell, hint):
    with pytest.raises(InputError, match="expected a") as error:
        read_number(cell)
    assert hint in str(error.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_to_the_last_digit_with_points_and_commas(number):
    assert read_number(repr(number)) == number
    assert read_number(repr(number).replace(".", ","), "comma") == number
    assert read_number(number) == number


@pytest.mark.parametrize(
    ("cell", "half"), [("70", 0.5), ("70.0", 0.05), ("1.25e2", 0.5), ("0,5", 0.05), (70.0, 0)]
)
def test_the_digits_shown_bound_the_rounding(cell, half):
    assert digits_shown(cell, "comma" if cell == "0,5" else "point") == pytest.approx(half)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_read_or_refused_with_its_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    for name in ("any.csv", "any.json"):
        file = path.with_name(name)
        file.write_bytes(content)
        with suppress(InputError), naming(name):
            read_table(file, names=("trial",))


@contextmanager
def naming(name):
    """Any error must be an `InputError` that says the file's name."""
    try:
        yield
    except InputError as error:
        if name not in str(error):
            raise AssertionError(f"{name} is not named: {error}") from error
        raise


# ---- JSON, Parquet, DataFrames -------------------------------------------------------------------
FRAME = pd.DataFrame(
    {"trial": [0, 1], "T °C": [0.1 + 0.2, None], "mode": ["a", None], "yield": [1e-300, 2.0]}
)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "parquet"])
def test_what_is_written_is_read_again_exactly(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    write_table(FRAME, path)
    table = read_table(path, names=FRAME.columns)
    assert table.columns == tuple(FRAME.columns)
    first, second = (dict(r.cells) for r in table.rows)
    assert first.pop("mode") == "a"
    assert {c: read_number(v) for c, v in first.items()} == {
        "trial": 0, "T °C": 0.1 + 0.2, "yield": 1e-300,
    }  # fmt: skip
    assert {c: read_number(v) for c, v in second.items()} == {"trial": 1, "yield": 2.0}


def test_a_table_with_decimal_commas_opens_where_those_are_the_custom(tmp_path):
    path = tmp_path / "t.csv"
    write_table(FRAME, path, decimal="comma")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("\ufefftrial;T °C;mode;yield\n0;0,30000000000000004;a;")
    first, _ = read_table(path, names=("trial",)).rows
    assert read_number(first.cells["T °C"], "comma") == 0.1 + 0.2
    with pytest.raises(InputError, match="write a decimal comma"):
        read_number("20.5", "comma")


def test_a_data_frame_and_mappings_are_tables_with_missing_values_empty():
    frame = table_of(FRAME.convert_dtypes())
    rows = table_of([{"trial": 0, "T °C": 0.1 + 0.2, "mode": " a ", "yield": 1e-300},
                     {"trial": 1, "T °C": math.nan, "mode": "", "yield": 2.0}])  # fmt: skip
    assert [dict(r.cells) for r in frame.rows] == [dict(r.cells) for r in rows.rows]
    assert frame.columns == rows.columns
    for wrong in ("text", {"a": 1}, 3, ["a"]):
        with pytest.raises(InputError):
            table_of(wrong)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[{'a': 1}]", "not valid JSON"),
        ('[{"a": NaN}]', "NaN is no number"),
        ('[{"a": 1, "a": 2}]', "'a' is there twice"),
        ('{"a": 1}', "a list of records"),
        ("[1]", "row 1: expected columns"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, content, "t.json")


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("bo_surrogates.campaign.tables.find_spec", lambda name: None)
    for action in (lambda p: read_table(p), lambda p: check_output(p, overwrite=False)):
        with pytest.raises(InputError, match=r"bo-surrogates\[parquet\]"):
            action(tmp_path / "t.parquet")


def test_files_that_are_not_there_or_not_tables_are_refused(tmp_path):
    for name, said in (("no.csv", "no file"), ("no.parquet", "no file"), ("no.json", "no file")):
        with pytest.raises(InputError, match=said):
            read_table(tmp_path / name)
    (tmp_path / "t.doc").write_text(PLAIN)
    (tmp_path / "t.parquet").write_text(PLAIN)
    for name, said in (("t.doc", "unknown kind"), ("t.parquet", "not a Parquet file"),
                       (".", "cannot be read")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_table(tmp_path / name)


def test_a_file_is_not_replaced_unless_that_is_wanted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN)
    with pytest.raises(InputError, match="may hold results"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)
    for wrong in (tmp_path / "none" / "t.csv", tmp_path / "t.xlsx"):
        with pytest.raises(InputError):
            check_output(wrong, overwrite=True)


def test_standard_input_is_csv(monkeypatch):
    class Stdin:
        class buffer:
            read = staticmethod(PLAIN.encode)

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert read_table("-").source == "standard input"
    assert len(read_table("-").rows) == 2


def test_json_is_written_without_empty_cells(tmp_path):
    write_table(FRAME, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())[1] == {"trial": 1, "yield": 2.0}
