"""The reader of tables: what people write is read, and nothing else is opened."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet.cutting.catalog import read_catalog
from transientnet.errors import LabelError, ReadError, UsageError
from transientnet.files.tables import open_table
from transientnet.labels.table import read_labels

STREAM = """<?xml version="1.0"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="label" datatype="char" arraysize="*"/><FIELD name="x" datatype="double"/>
<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"""


@pytest.mark.parametrize(
    "text",
    [
        "id,x\n007,1.5\nb,\n",
        "\ufeffid,x\n007,1.5\nb,\n",
        "id;x\n007;1.5\nb;\n",
        "id\tx\n007\t1.5\nb\t\n",
        'id, x\r\n"007", 1.5\r\n"b",\r\n',
        "# of one night, by hand\n\nid,x\n007,1.5\n  # and the other\n\nb,\n",
        "# seen with, say, a 2-m\n# id, x\n007,1.5\nb,\n",
        "id,x\n007,1.5,\nb,,\n",
        "id,x\n007,1.5\n,\nb,\n,\n",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_csv_as_people_write_it(tmp_path: Path, text: str, packed: bool) -> None:
    path = tmp_path / "t.csv"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert open_table(path).columns() == {"id": ["007", "b"], "x": ["1.5", None]}


def test_the_index_that_pandas_writes_and_cells_of_several_lines(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    remarks = ['faint, "red"', "# of two\n# lines", None]
    pandas.DataFrame({"id": [1, 2, 3], "a\nremark": remarks}).to_csv(tmp_path / "t.csv")
    table = open_table(tmp_path / "t.csv")
    assert table.names == ("", "id", "a\nremark")
    assert table.columns(["a\nremark"]) == {"a\nremark": remarks}
    assert table.numbers == [3, 4, 6]


def test_the_line_of_a_bad_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# a night\nid,x\n1,2\n3,4,5\n")
    with pytest.raises(ReadError, match="line 4 has 3 cells, the header has 2"):
        open_table(path).columns(pad=True)
    path.write_text("id,x\n1,2\n3\n")
    with pytest.raises(ReadError, match="line 3 has 1 cells"):
        open_table(path).columns()
    assert open_table(path).columns(pad=True)["x"] == ["2", None]
    path.write_text('id,x\n1,2\n"3,4\n5,6\n')
    with pytest.raises(ReadError, match="line 3"):
        open_table(path).columns()


@pytest.mark.parametrize(
    "form", ["ecsv", "fits", "votable", "parquet", "memory", "frame", "mapping", "jsonl"]
)
def test_values_of_every_kind_of_table(tmp_path: Path, form: str) -> None:
    table = Table({"name": ["é", "b"], "ra": [1.5, 2.5], "flag": [True, False]})
    table["n"] = MaskedColumn([7, 8], mask=[False, True])
    expected = {"name": ["é", "b"], "ra": [1.5, 2.5], "flag": [True, False], "n": [7, None]}
    table["ra"].unit = units.deg
    path = tmp_path / "t"
    if form == "memory":
        source = table
    elif form == "mapping":
        source = expected
    elif form == "frame":
        source = pytest.importorskip("pandas").DataFrame(expected).astype({"n": "Int64"})
    elif form == "jsonl":
        path.write_text(
            '{"name": "é", "ra": 1.5, "flag": true, "n": 7}\n\n{"name": "b", "ra": 2.5, "flag": false}\n'
        )
        source = path
    else:
        source = path
        if form == "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(expected), path)
        elif form == "fits":
            table["name"] = [b"\xe9", b"b"]
            table.write(path, format=form)
            expected["name"] = ["\ufffd", "b"]
        else:
            table.write(path, format={"ecsv": "ascii.ecsv"}.get(form, form))
    read = open_table(source)
    assert read.columns() == expected
    if form in ("memory", "ecsv", "fits", "votable"):
        assert read.units == {"ra": "deg"}


def test_quantities_and_times_in_ecsv(tmp_path: Path) -> None:
    path = tmp_path / "q.ecsv"
    QTable({"ra": [1, 2] * units.hourangle, "v": [[1, 2], [3, 4]]}).write(path, format="ascii.ecsv")
    read = open_table(path)
    assert read.units["ra"] == "hourangle"
    columns = read.columns()
    assert columns["ra"] == [1, 2]
    assert np.array_equal(columns["v"], [[1, 2], [3, 4]])


@pytest.fixture
def fetched() -> list[str]:
    """Requests that a server on the loopback has seen, its address first."""
    seen: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            seen.append(connection.recv(200).decode(errors="replace"))
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    seen.append(f"http://127.0.0.1:{server.getsockname()[1]}/rows")
    yield seen
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize(
    "data",
    [
        '<BINARY><STREAM href="{url}" encoding="base64"/></BINARY>',
        "<BINARY2><STREAM encoding='base64' href='{url}'></STREAM></BINARY2>",
        '<FITS extnum="1"><STREAM href="{url}"/></FITS>',
        '<v:BINARY xmlns:v="v"><v:STREAM href="{url}"/></v:BINARY>',
        '<PARQUET type="VOTable-remote-file"><STREAM href="{url}"/></PARQUET>',
    ],
)
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "gzip"])
def test_nothing_is_fetched(
    tmp_path: Path, fetched: list[str], data: str, local: bool, encoding: str
) -> None:
    rows = tmp_path / "rows.fits"
    Table({"label": ["secret"], "x": [1.0]}).write(rows)
    url = rows.as_uri() if local else fetched[0]
    path = tmp_path / "t.vot"
    text = STREAM.format(data=data.format(url=url)).encode()
    path.write_bytes(gzip.compress(text) if encoding == "gzip" else text)
    with pytest.raises(ReadError, match="nothing is fetched"):
        open_table(path)
    with pytest.raises(ReadError, match="nothing is fetched"):
        read_catalog(path)
    with pytest.raises(LabelError, match="nothing is fetched"):
        read_labels(path)
    assert len(fetched) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STREAM.format(data="").replace("<TABLE>", f'<TABLE nrows="{2**60}">'), "rows claimed"),
        (STREAM.format(data="").replace('"double"', '"double" arraysize="99999999"'), "cells of"),
        (STREAM.format(data="").replace('"double"', '"double" arraysize="0"'), "cells of"),
        (
            STREAM.format(data="<BINARY><STREAM encoding='base64'>AAAA</STREAM></BINARY>")
            .replace('<FIELD name="x" datatype="double"/>', "")
            .replace('<FIELD name="label" datatype="char" arraysize="*"/>', ""),
            "without columns",
        ),
        (
            '<?xml version="1.0"?><!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
            + STREAM.format(data="&a;").partition("\n")[2],
            "entities",
        ),
        (
            "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: string, subtype: 'float64[99999999]'}\n"
            'a\n""\n',
            "cells of",
        ),
    ],
)
def test_rows_are_bounded_by_their_bytes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(ReadError, match=message):
        open_table(path).columns()


@pytest.mark.parametrize("rows", [2**60, 10**6])
@pytest.mark.parametrize("width", [0, 8])
def test_fits_rows_are_bounded_by_their_bytes(tmp_path: Path, rows: int, width: int) -> None:
    path = tmp_path / "t.fits"
    Table({"x": [1.0]}).write(path)
    content = path.read_bytes()
    for key, value in (("NAXIS1", width), ("NAXIS2", rows)):
        at = content.index(key.encode(), 2880)
        content = content[:at] + f"{key:<8}= {value:>20}".ljust(80).encode() + content[at + 80 :]
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"damaged FITS|no table extension"):
        open_table(path)


def test_parquet_and_gzip_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transientnet.files.tables.MAX_TABLE_BYTES", 2**20)
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": ["x" * 1000] * 10_000}), path)
    assert path.stat().st_size < 2**16
    with pytest.raises(ReadError, match="unpacks to more than"):
        open_table(path).columns()
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 2**19))
    with pytest.raises(ReadError, match="limit"):
        open_table(path)


def test_what_is_no_table(tmp_path: Path) -> None:
    for content in (
        b"",
        b"\n\n",
        b"# only a comment\n",
        b"\x00\x01,\xff",
        b"PAR1junk",
        b"{not json}",
        b"<html>",
    ):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(ReadError, match="t"):
            open_table(tmp_path / "t").columns()
    for path in (tmp_path, tmp_path / "absent", "/dev/zero", "nul\0"):
        with pytest.raises(ReadError):
            open_table(path)
    with pytest.raises(UsageError):
        open_table(3)
    with pytest.raises(UsageError, match="lengths"):
        open_table({"a": [1], "b": [1, 2]})


def test_catalogues_after_the_primary_header_of_a_camera(tmp_path: Path) -> None:
    path = tmp_path / "ldac.fits"
    head = fits.BinTableHDU(Table({"Field Header Card": ["SIMPLE"]}), name="LDAC_IMHEAD")
    objects = fits.BinTableHDU(Table({"NUMBER": [1, 2], "X_IMAGE": [3.0, 4.0]}), name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(path)
    assert open_table(path).columns() == {"NUMBER": [1, 2], "X_IMAGE": [3.0, 4.0]}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    kinds = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv", "csv": "ascii.csv"}
    ending = data.draw(st.sampled_from(sorted(kinds)))
    path = folder / f"whole.{ending}"
    if not path.exists():
        Table(
            {"id": ["a", "b"], "x": [1.0, 2.0], "n": [[1, 2], [3, 4]]} if ending != "csv" else {"id": [1]}
        ).write(path, format=kinds[ending])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "t").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(ReadError):
        open_table(folder / "t").columns()
