"""Source files: read as declared, identified by their bytes, and refused with a reason."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.data import source_csv, source_jsonl
from airflow_provider_xops.data.sources import infer_schema, open_source
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError

SCHEMA = {"flight": "int64", "carrier": "string"}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and gives its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def rows(path: str, schema: Any = SCHEMA, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_source(path, schema=schema, **options).reader().read_all().to_pylist()
    return found


def refused(path: str, schema: Any = SCHEMA, **options: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        rows(path, schema, **options)
    assert caught.value.why
    assert caught.value.todo
    return caught.value


def as_parquet(tmp_path: Path, table: pa.Table, name: str = "a.parquet") -> str:
    pq.write_table(table, tmp_path / name)
    return str(tmp_path / name)


class TestReading:
    def test_csv_columns_come_in_declared_order_with_declared_types(self, write: Write) -> None:
        path = write("a.csv", "carrier,flight\nAA,1\nNA,2\n,3\n")
        assert rows(path) == [
            {"flight": 1, "carrier": "AA"},
            {"flight": 2, "carrier": None},
            {"flight": 3, "carrier": None},
        ]

    def test_csv_with_quoted_line_breaks_blank_lines_and_a_byte_order_mark(self, write: Write) -> None:
        path = write("a.csv", '\ufeffflight,carrier\n1,"two\nlines, one field"\n\n2,B\n')
        assert [row["carrier"] for row in rows(path)] == ["two\nlines, one field", "B"]

    def test_other_texts_may_mean_no_value(self, write: Write) -> None:
        path = write("a.tsv", "flight\tcarrier\n-\tNA\n")
        assert rows(path, na_values=["-"]) == [{"flight": None, "carrier": "NA"}]

    def test_json_lines_with_dates_decimals_lists_and_missing_keys(self, write: Write) -> None:
        path = write(
            "a.jsonl",
            '{"day": "2013-01-01", "at": "2013-01-01 10:00", "price": 1.25, "tags": ["a"]}\n'
            '\n{"day": null}\n',
        )
        schema = {
            "day": "date",
            "at": "timestamp[America/New_York]",
            "price": "decimal(6,2)",
            "tags": "list<string>",
        }
        first, second = rows(path, schema)
        assert first["at"] == datetime(2013, 1, 1, 15, tzinfo=UTC)
        assert (str(first["day"]), str(first["price"]), first["tags"]) == ("2013-01-01", "1.25", ["a"])
        assert set(second.values()) == {None}

    def test_parquet_is_widened_to_the_declared_types(self, tmp_path: Path) -> None:
        table = pa.table(
            {"carrier": pa.array(["AA"]).dictionary_encode(), "flight": pa.array([1], pa.int16())}
        )
        assert rows(as_parquet(tmp_path, table)) == [{"flight": 1, "carrier": "AA"}]

    @pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
    def test_gzip_is_read_and_its_checksum_is_of_the_stored_bytes(self, write: Write, name: str) -> None:
        content = "flight,carrier\n1,AA\n" if "csv" in name else '{"flight": 1, "carrier": "AA"}\n'
        stored = gzip.compress(content.encode())
        source = open_source(write(name, stored), schema=SCHEMA)
        assert source.source_file.sha256 == hashlib.sha256(stored).hexdigest()
        assert source.source_file.size_bytes == len(stored)
        assert source.reader().read_all().to_pylist() == [{"flight": 1, "carrier": "AA"}]

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_a_file_of_no_bytes_has_no_rows(self, write: Write, name: str) -> None:
        assert rows(write(name, b"")) == []

    @pytest.mark.parametrize(
        ("name", "content"), [("a.csv", "flight,carrier"), ("a.csv", "flight,carrier\n\n"), ("a.jsonl", "\n")]
    )
    def test_a_header_or_blank_lines_alone_are_no_rows(self, write: Write, name: str, content: str) -> None:
        assert rows(write(name, content)) == []

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_large_files_are_read_in_many_batches(
        self, write: Write, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source_csv, "BLOCK_BYTES", 4096)
        monkeypatch.setattr(source_jsonl, "BLOCK_BYTES", 4096)
        lines = [
            f"{i},AA" if kind == "csv" else json.dumps({"flight": i, "carrier": "AA"}) for i in range(2000)
        ]
        path = write(f"a.{kind}", "\n".join(["flight,carrier"] * (kind == "csv") + lines))
        batches = list(open_source(path, schema=SCHEMA).reader())
        assert len(batches) > 2
        assert [i for batch in batches for i in batch.column("flight").to_pylist()] == list(range(2000))


class TestColumns:
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_a_renamed_column_is_reported_under_both_names(
        self, write: Write, tmp_path: Path, kind: str
    ) -> None:
        if kind == "parquet":
            path = as_parquet(tmp_path, pa.table({"flight": [1], "airline": ["AA"]}))
        else:
            content = "flight,airline\n1,AA\n" if kind == "csv" else '{"flight": 1, "airline": "AA"}\n'
            path = write(f"a.{kind}", content)
        error = refused(path)
        assert error.code == "source.columns"
        assert "missing: 'carrier'" in error.why
        assert "not declared: 'airline'" in error.why

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_a_missing_column_is_named(self, write: Write, tmp_path: Path, kind: str) -> None:
        if kind == "parquet":
            path = as_parquet(tmp_path, pa.table({"flight": [1]}))
        else:
            path = write(f"a.{kind}", "flight\n1\n" if kind == "csv" else '{"flight": 1}\n{"flight": 2}\n')
        error = refused(path)
        assert error.code == "source.columns"
        assert error.context["missing"] == ["carrier"]
        assert error.context["extra"] == []

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_an_undeclared_column_is_named(self, write: Write, tmp_path: Path, kind: str) -> None:
        if kind == "parquet":
            path = as_parquet(tmp_path, pa.table({"flight": [1], "carrier": ["A"], "gate": [7]}))
        else:
            content = (
                "flight,carrier,gate\n1,A,7\n"
                if kind == "csv"
                else '{"flight": 1, "carrier": "A", "gate": 7}\n'
            )
            path = write(f"a.{kind}", content)
        error = refused(path)
        assert error.code == "source.columns"
        assert error.context == {"missing": [], "extra": ["gate"], "repeated": []}

    def test_a_column_that_is_there_twice_is_named(self, write: Write) -> None:
        error = refused(write("a.csv", "flight,carrier,carrier\n1,A,B\n"))
        assert error.context["repeated"] == ["carrier"]

    def test_a_column_of_nulls_is_not_a_missing_column(self, write: Write) -> None:
        assert rows(write("a.jsonl", '{"flight": 1, "carrier": null}\n')) == [{"flight": 1, "carrier": None}]


class TestValues:
    SECRET = "alice@example.org"

    def test_a_csv_value_of_the_wrong_type_is_found_by_line_and_never_quoted(self, write: Write) -> None:
        error = refused(write("a.csv", f'flight,carrier\n1,"a\nb"\n\n2,c\n{self.SECRET},d\n'))
        assert error.code == "source.types"
        assert error.context == {"column": "flight", "line": 6}
        assert "line 6" in str(error)
        assert self.SECRET not in str(error)

    def test_the_line_is_right_in_a_later_batch(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source_csv, "BLOCK_BYTES", 4096)
        monkeypatch.setattr(source_jsonl, "BLOCK_BYTES", 4096)
        numbers = [*range(3000), "x", *range(3000)]
        csv = write("a.csv", "flight,carrier\n" + "".join(f"{number},AA\n" for number in numbers))
        assert refused(csv).context["line"] == 3002
        lines = [json.dumps({"flight": number, "carrier": "AA"}) for number in numbers]
        assert refused(write("a.jsonl", "\n".join(lines))).context["line"] == 3001

    @pytest.mark.parametrize(
        "bad", ['{"flight": "alice@example.org"}', '{"flight": 1.5}', '{"flight": 1, "carrier": 5}']
    )
    def test_a_json_value_of_the_wrong_type_is_found_by_line(self, write: Write, bad: str) -> None:
        error = refused(write("a.jsonl", f'{{"flight": 1, "carrier": "A"}}\n\n{bad}\n'))
        assert error.code == "source.types"
        assert error.context["line"] == 3
        assert error.context["column"] == ("carrier" if "carrier" in bad else "flight")
        assert self.SECRET not in str(error)

    def test_a_json_date_that_is_none_is_found_by_line(self, write: Write) -> None:
        path = write("a.jsonl", '{"day": "2013-01-01"}\n\n{"day": "01.02.2013"}\n')
        error = refused(path, {"day": "date"})
        assert error.context == {"column": "day", "line": 3}

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("struct<at: timestamp>", '{"at": "2013-01-01T05:00:00%s"}'),
            ("list<struct<at: timestamp>>", '[{"at": null}, {"at": "2013-01-01 05:00:00%s"}]'),
        ],
    )
    def test_a_json_time_inside_a_column_needs_its_offset_too(
        self, write: Write, kind: str, value: str
    ) -> None:
        good, bad = f'{{"stop": {value % "Z"}}}\n', f'{{"stop": {value % ""}}}\n'
        assert len(rows(write("a.jsonl", good + '{"stop": null}\n'), {"stop": kind})) == 2
        error = refused(write("b.jsonl", good + bad), {"stop": kind})
        assert (error.code, error.context["column"]) == ("source.types", "stop")
        assert "2013" not in str(error)

    def test_a_parquet_column_of_another_type_is_named_with_both(self, tmp_path: Path) -> None:
        error = refused(as_parquet(tmp_path, pa.table({"flight": ["1"], "carrier": ["A"]})))
        assert error.code == "source.types"
        assert error.context["column"] == "flight"
        assert "string" in error.why
        assert "int64" in error.why

    def test_a_parquet_value_that_does_not_fit_is_found_by_row(self, tmp_path: Path) -> None:
        path = as_parquet(tmp_path, pa.table({"flight": [1, 2, 70_000]}))
        assert "(row 3)" in refused(path, {"flight": "int16"}).why

    def test_a_row_with_too_many_fields_is_found_by_line(self, write: Write) -> None:
        error = refused(write("a.csv", f"flight,carrier\n1,A\n2,B,{self.SECRET}\n"))
        assert error.code == "source.malformed"
        assert error.context["line"] == 3
        assert self.SECRET not in str(error)

    @pytest.mark.parametrize("line", ["not json", "[1, 2]", '{"flight": 1, "flight": 2}'])
    def test_a_line_that_is_no_json_object_is_found(self, write: Write, line: str) -> None:
        error = refused(write("a.jsonl", f'{{"flight": 1, "carrier": "A"}}\n{line}\n'))
        assert (error.code, error.context["line"]) == ("source.malformed", 2)


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "content", "line"),
        [
            ("a.csv", b"flight,carrier\n1,A\n2,\xe9t\xe9\n", 3),
            ("a.csv", b"flight,carri\xe9r\n1,A\n", 1),
            ("a.csv", b"flight,carrier\n\xe9,A\n", 2),
            ("a.jsonl", b'{"flight": 1, "carrier": "A"}\n{"flight": 2, "carrier": "\xe9"}\n', 2),
        ],
    )
    def test_a_byte_that_is_not_utf8_is_found_by_line(
        self, write: Write, name: str, content: bytes, line: int
    ) -> None:
        error = refused(write(name, content))
        assert (error.code, error.context["line"]) == ("source.encoding", line)
        assert "iconv" in error.todo

    @pytest.mark.parametrize("nested", [False, True])
    def test_parquet_text_that_is_not_utf8_is_refused(self, tmp_path: Path, nested: bool) -> None:
        # given: what a writer that does not look writes
        buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
        text = pa.Array.from_buffers(pa.string(), 1, buffers)
        column = pa.StructArray.from_arrays([text], ["name"]) if nested else text
        path = as_parquet(tmp_path, pa.table({"carrier": column}))
        # then
        error = refused(path, {"carrier": "struct<name: string>" if nested else "string"})
        assert (error.code, error.context["column"]) == ("source.encoding", "carrier")

    @pytest.mark.parametrize("keep", [4, 200, -1])
    def test_a_truncated_parquet_file_is_refused(self, tmp_path: Path, keep: int) -> None:
        path = Path(as_parquet(tmp_path, pa.table({"flight": list(range(1000)), "carrier": ["A"] * 1000})))
        path.write_bytes(path.read_bytes()[:keep])
        assert refused(str(path)).code == "source.truncated"

    def test_damage_inside_a_parquet_file_is_refused(self, tmp_path: Path) -> None:
        path = Path(as_parquet(tmp_path, pa.table({"flight": list(range(1000)), "carrier": ["A"] * 1000})))
        content = bytearray(path.read_bytes())
        content[4:200] = b"\xff" * 196
        path.write_bytes(content)
        assert refused(str(path)).code == "source.truncated"

    def test_a_gzip_stream_that_does_not_end_is_refused(self, write: Write) -> None:
        stored = gzip.compress(b"flight,carrier\n" + b"1,AA\n" * 10_000)
        assert refused(write("a.csv.gz", stored[:-20])).code == "source.truncated"

    def test_json_lines_cut_inside_the_last_line_are_refused(self, write: Write) -> None:
        error = refused(write("a.jsonl", '{"flight": 1, "carrier": "A"}\n{"flight": 2, "carr'))
        assert (error.code, error.context["line"]) == ("source.truncated", 2)


class TestIdentity:
    def test_the_checksum_is_that_of_the_bytes(self, write: Write) -> None:
        content = b"flight,carrier\n1,A\n"
        found = open_source(write("a.csv", content)).source_file
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert (found.name, found.size_bytes) == ("a.csv", len(content))
        assert found.uri.startswith("file:///")
        assert found.modified_at is not None

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_a_file_that_changes_between_hashing_and_reading_is_noticed(
        self, write: Write, tmp_path: Path, name: str
    ) -> None:
        def content(carrier: str) -> bytes:
            if name.endswith("parquet"):
                return Path(
                    as_parquet(tmp_path, pa.table({"flight": [1], "carrier": [carrier]}), "tmp.parquet")
                ).read_bytes()
            text = (
                f"flight,carrier\n1,{carrier}\n"
                if "csv" in name
                else f'{{"flight": 1, "carrier": "{carrier}"}}\n'
            )
            return text.encode()

        source = open_source(write(name, content("A")), schema=SCHEMA)
        write(name, content("B"))
        with pytest.raises(SourceError) as caught:
            source.reader().read_all()
        assert caught.value.code == "source.changed"
        assert caught.value.retryable

    def test_credentials_in_a_uri_are_not_recorded(self) -> None:
        def open_file(uri: str) -> BinaryIO:
            assert "key:secret" in uri
            return io.BytesIO(b"flight,carrier\n")

        found = open_source("s3://key:secret@bucket/in/a.csv?X-Amz-Signature=abc", open_file=open_file)
        assert found.source_file.uri == "s3://bucket/in/a.csv"
        assert found.source_file.name == "a.csv"

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_remote_file_is_read_through_its_opener(self, tmp_path: Path, kind: str) -> None:
        table = pa.table({"flight": [1], "carrier": ["A"]})
        stored = b"flight,carrier\n1,A\n" if kind == "csv" else Path(as_parquet(tmp_path, table)).read_bytes()
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        options: dict[str, Any] = {"open_file": lambda uri: io.BytesIO(stored), "scratch": scratch}
        assert rows(f"s3://bucket/a.{kind}", **options) == table.to_pylist()
        assert list(scratch.iterdir()) == []


class TestOpening:
    def test_a_missing_file_is_refused_without_retries(self, tmp_path: Path) -> None:
        error = refused(str(tmp_path / "none.csv"))
        assert (error.code, error.retryable) == ("source.missing", False)
        assert "none.csv" in str(error)

    def test_a_folder_is_not_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            open_source(str(tmp_path), format="csv")
        assert caught.value.code == "source.not_a_file"

    @pytest.mark.parametrize(
        ("raised", "code"),
        [(FileNotFoundError("x"), "source.missing"), (PermissionError("x"), "source.forbidden")],
    )
    def test_an_openers_errors_are_typed(self, raised: Exception, code: str) -> None:
        def open_file(uri: str) -> BinaryIO:
            raise raised

        assert refused("s3://bucket/a.csv", open_file=open_file).code == code

    def test_a_storage_that_does_not_answer_is_retried(self) -> None:
        def open_file(uri: str) -> BinaryIO:
            raise TimeoutError("no answer")

        with pytest.raises(UnavailableError) as caught:
            open_source("s3://bucket/a.csv", open_file=open_file)
        assert caught.value.retryable

    @pytest.mark.parametrize("uri", ["", "  "])
    def test_a_uri_that_rendered_to_nothing_is_refused(self, uri: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            open_source(uri)
        assert caught.value.code == "argument.empty"
        assert "template" in caught.value.why

    @pytest.mark.parametrize(
        ("uri", "options", "code"),
        [
            ("a.txt", {}, "argument.format"),
            ("a.csv", {"format": "xml"}, "argument.format"),
            ("a.csv", {"delimiter": "::"}, "argument.delimiter"),
            ("s3://bucket/a.csv", {}, "argument.source_uri"),
        ],
    )
    def test_what_cannot_be_opened_is_refused_before_reading(
        self, write: Write, uri: str, options: dict[str, Any], code: str
    ) -> None:
        path = uri if "://" in uri else write(uri, "")
        with pytest.raises(ArgumentError) as caught:
            open_source(path, **options)
        assert caught.value.code == code

    def test_a_nested_csv_column_is_refused(self, write: Write) -> None:
        with pytest.raises(ArgumentError) as caught:
            rows(write("a.csv", "tags\nx\n"), {"tags": "list<string>"})
        assert caught.value.code == "argument.type"


class TestInference:
    def infer(self, *paths: str) -> dict[str, str]:
        return infer_schema([open_source(path) for path in paths])

    def test_the_type_is_one_that_every_row_of_every_file_has(self, write: Write) -> None:
        first = write("a.csv", "n,x,day,code,flag,at,none\n1,1,2013-01-01,007,true,2013-01-01T00:00:00Z,\n")
        second = write("b.csv", "n,x,day,code,flag,at,none\n2,1.5,NA,012,false,,NA\n")
        assert self.infer(first, second) == {
            "n": "int64",
            "x": "float64",
            "day": "date",
            "code": "string",
            "flag": "bool",
            "at": "timestamp",
            "none": "string",
        }

    def test_a_text_far_down_makes_the_column_text(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source_csv, "BLOCK_BYTES", 4096)
        path = write("a.csv", "n\n" + "1\n" * 5000 + "one\n")
        assert self.infer(path) == {"n": "string"}
        assert len(rows(path, self.infer(path))) == 5001

    def test_json_lines_keep_their_own_types_and_find_dates(self, write: Write) -> None:
        path = write(
            "a.jsonl",
            '{"n": 1, "x": 1, "s": "12", "day": "2013-01-01", "at": "2013-01-01T00:00:00Z", "l": [1]}\n'
            '{"n": 2, "x": 1.5, "s": "a", "day": null, "at": null, "l": null}\n',
        )
        assert self.infer(path) == {
            "n": "int64",
            "x": "float64",
            "s": "string",
            "day": "date",
            "at": "timestamp",
            "l": "list<int64>",
        }

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.csv", "at\n2013-01-01 10:00:00\n"), ("a.jsonl", '{"at": "2013-01-01 10:00:00"}\n')],
    )
    def test_local_times_are_not_guessed(self, write: Write, name: str, content: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            self.infer(write(name, content))
        assert caught.value.code == "argument.naive_timestamp"
        assert "timestamp[Area/City]" in caught.value.todo

    def test_files_without_rows_teach_nothing(self, write: Write) -> None:
        assert self.infer(write("a.csv", ""), write("b.csv", "flight,carrier\n")) == {}

    def test_files_with_other_columns_are_refused(self, write: Write) -> None:
        with pytest.raises(SourceError) as caught:
            self.infer(write("a.csv", "a,b\n1,2\n"), write("b.csv", "a,c\n1,2\n"))
        assert caught.value.code == "source.columns"
