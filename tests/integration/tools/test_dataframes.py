"""Tables out of files: what a model sees of them, and that it reaches no other file."""

from __future__ import annotations

import asyncio
import os
import sys

import duckdb
import pytest
from tests.integration.tools.calling import given, refused

from gossamer import Agent, ArgumentError, Limits, ToolCall, ToolkitError
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import dataframes


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "orders.csv").write_text("id,customer,total\n1,7,9.5\n2,7,0.25\n3,8,\n")
    (folder / "people.json").write_text('[{"id": 7, "name": "Ada"}, {"id": 8, "name": "Bö"}]')
    (folder / "lines.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    with duckdb.connect() as connection:
        connection.execute(f"COPY (FROM range(1000)) TO '{folder}/numbers.parquet'")
    (tmp_path / "secret.csv").write_text("word\nhidden\n")
    return folder


async def test_a_folder_becomes_tables(folder):
    (folder / "a b*.tsv").write_text("x\ty\n1\t2\n")
    (folder / "a-b?.CSV").write_text("x,y\n1,2\n")
    (folder / "notes.txt").write_text("no table")
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    os.mkfifo(folder / "pipe.csv")
    kit = dataframes(folder)
    assert (await given(kit, "list_dataframes"))["rows"] == [
        ["a_b_", 1, 2],
        ["a_b__2", 1, 2],
        ["lines", 2, 1],
        ["numbers", 1000, 1],
        ["orders", 3, 3],
        ["people", 2, 2],
    ]


async def test_shows_columns_rows_statistics_and_answers_queries(folder):
    kit = dataframes({"orders": folder / "orders.csv", "people": str(folder / "people.json")})
    assert (await given(kit, "describe_dataframe", table="orders"))["rows"] == [
        ["id", "BIGINT"],
        ["customer", "BIGINT"],
        ["total", "DOUBLE"],
    ]
    head = await given(kit, "head_dataframe", table="orders", rows=2)
    assert (head["rows"], head["more"]) == ([[1, 7, 9.5], [2, 7, 0.25]], True)
    summary = await given(kit, "summarize_dataframe", table="orders")
    total = dict(zip(summary["columns"], summary["rows"][2], strict=True))
    assert (total["min"], total["max"], total["null_percentage"]) == ("0.25", "9.5", "33.33")
    query = (
        "SELECT name, sum(total) FROM orders JOIN people ON people.id = customer GROUP BY name ORDER BY name"
    )
    assert (await given(kit, "query_dataframes", query=query))["rows"] == [["Ada", 9.75], ["Bö", None]]
    for name in ("describe_dataframe", "head_dataframe", "summarize_dataframe"):
        assert "no table 'x\"'; there are orders, people" in await refused(kit, name, table='x"')


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_csv('{secret}')",
        "FROM '{secret}'",
        "FROM read_text('{secret}')",
        "FROM glob('{folder}/*')",
        "COPY orders TO '{outside}'",
        "ATTACH '{outside}' AS o",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP TABLE orders",
        "DELETE FROM orders",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '900GB'",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT 1) AS result(c0); DROP TABLE orders; --",
        "not sql",
        "",
        "SELECT 1\0",
        "SELECT '" + "x" * 60_000 + "'",
    ],
)
async def test_reaches_no_other_file_and_changes_nothing(folder, query):
    kit = dataframes({"orders": folder / "orders.csv"})
    names = {"secret": folder.parent / "secret.csv", "folder": folder, "outside": folder.parent / "outside"}
    model = ScriptedModel(
        [
            ToolCall.of("query_dataframes", query=query.format(**names)),
            ToolCall.of("query_dataframes", query="SELECT count(*) FROM orders"),
            "done",
        ]
    )
    messages = (await Agent(model, tools=[kit]).run("go")).new_messages
    assert messages[2].parts[0].outcome == "error"
    assert "hidden\n" not in messages[2].parts[0].content
    assert '"rows":[[3]]' in messages[4].parts[0].content
    assert not (folder.parent / "outside").exists()


async def test_rows_cells_and_time_are_bounded(folder):
    kit = dataframes(folder, max_rows=2, max_cell=10, timeout=0.5)
    found = await given(kit, "query_dataframes", query="SELECT repeat('x', 5000) FROM range(1000000000)")
    assert (len(found["rows"]), found["more"]) == (2, True)
    assert found["rows"][0] == ["x" * 10 + "… [cut at 10 characters]"]
    assert len((await given(kit, "head_dataframe", table="numbers", rows=1000))["rows"]) == 2
    assert len((await given(kit, "list_dataframes"))["rows"]) == 4
    forever = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"
    assert "longer than 0.5 seconds" in await refused(kit, "query_dataframes", query=forever)


async def test_a_query_that_is_stopped_stops_no_other(folder):
    kit = dataframes({"orders": folder / "orders.csv"})
    forever = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"
    agent = Agent(ScriptedModel([ToolCall.of("query_dataframes", query=forever), "done"]), tools=[kit])
    async with agent:
        result = await agent.run("go", limits=Limits(max_seconds=0.3))
        assert result.finish_reason != "stop"
        assert (await given(kit, "query_dataframes", query="SELECT count(*) FROM orders"))["rows"] == [[3]]


async def test_files_are_read_once_and_not_again(folder):
    kit = dataframes({"orders": folder / "orders.csv"})
    async with Agent("offline", tools=[kit]):
        assert (await given(kit, "list_dataframes"))["rows"] == [["orders", 3, 3]]
        (folder / "orders.csv").unlink()
        assert (await given(kit, "list_dataframes"))["rows"] == [["orders", 3, 3]]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: dataframes({"a": folder / "none.csv"}), "table 'a' cannot be read"),
        (lambda folder: dataframes({"a": folder / "pipe.csv"}), "no regular file"),
        (lambda folder: dataframes({"a": folder / "dir.csv"}), "'a'"),
        (lambda folder: dataframes({"a": folder / "bad.parquet"}), "'a' cannot be loaded"),
        (lambda folder: dataframes({"a": folder / "bad.json"}), "'a' cannot be loaded"),
        (lambda folder: dataframes({"a": folder / "orders.csv"}, max_bytes=10), "max_bytes"),
        (lambda folder: dataframes(folder / "dir.csv"), "there is no table"),
    ],
)
async def test_what_cannot_be_loaded_is_told(folder, make, told):
    os.mkfifo(folder / "pipe.csv")
    (folder / "dir.csv").mkdir()
    (folder / "bad.parquet").write_text("no parquet")
    (folder / "bad.json").write_text("{")
    agent = Agent(ScriptedModel(["done"]), tools=[make(folder)])
    with pytest.raises(ToolkitError, match=told):
        await agent.run("go")


@pytest.mark.parametrize(
    ("tables", "more", "told"),
    [
        ({}, {}, "1 to 100"),
        ({f"t{number}": "x.csv" for number in range(101)}, {}, "1 to 100"),
        ({"a b": "x.csv"}, {}, "no name for a table"),
        ({'a"; DROP TABLE x; --': "x.csv"}, {}, "no name for a table"),
        ({"a": "x.csv", "A": "y.csv"}, {}, "two tables"),
        ({"a": "x.exe"}, {}, "must end in"),
        ("/nowhere/at/all", {}, "must be a folder"),
        ({"a": "x.csv"}, {"max_rows": 0}, "max_rows"),
        ({"a": "x.csv"}, {"max_bytes": 0}, "max_bytes"),
        ({"a": "x.csv"}, {"max_memory": 1}, "max_memory"),
    ],
)
def test_arguments_are_checked(tables, more, told):
    with pytest.raises(ArgumentError, match=told):
        dataframes(tables, **more)


@pytest.mark.parametrize(
    "arguments", [{}, {"table": 1}, {"table": "orders", "rows": 0}, {"table": "orders", "x": 1}]
)
async def test_arguments_that_do_not_fit_are_told(folder, arguments):
    assert "Invalid arguments for head_dataframe" in await refused(
        dataframes(folder), "head_dataframe", **arguments
    )


# --- what is left to others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO orders SELECT 9, 9, 9 RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE orders SET total = 0 RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "EXPLAIN ANALYZE INSERT INTO orders SELECT 9, 9, 9 FROM range(1000)",
        "EXPLAIN ANALYZE UPDATE orders SET total = 0",
        "EXPLAIN ANALYZE CREATE TABLE more AS SELECT 1",
        "EXPLAIN ANALYZE CREATE MACRO more(x) AS x",
        "EXPLAIN ANALYZE DROP TABLE orders",
        "EXPLAIN ANALYZE TRUNCATE orders",
        "EXPLAIN ANALYZE COMMIT",
        "EXPLAIN SELECT 1",
    ],
)
async def test_a_query_leaves_nothing_to_other_runs(folder, query):
    kit = dataframes({"orders": folder / "orders.csv"})
    there = "SELECT count(*), sum(total), (SELECT count(*) FROM duckdb_tables()) FROM orders"
    async with Agent("offline", tools=[kit]):
        assert "QueryError" in await refused(kit, "query_dataframes", query=query)
        assert (await given(kit, "query_dataframes", query=there))["rows"] == [[3, 9.75, 1]]


ENDS = """
import asyncio, sys
from gossamer import Agent, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import dataframes, sql

path, toolkit, way = sys.argv[1:]
name = "query_dataframes" if toolkit == "dataframes" else "query_sql"
query = "SELECT 1"
if way == "stopped":
    query = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"

async def main():
    kit = dataframes(path) if toolkit == "dataframes" else sql("duckdb:///" + path + "/some.db")
    await Agent(ScriptedModel(["done"]), tools=[kit]).run("go")  # opens it
    run = asyncio.create_task(Agent(ScriptedModel([ToolCall.of(name, query=query), "done"]), tools=[kit]).run("go"))
    await asyncio.wait({run}, timeout=0.5 if way == "stopped" else None)
    if run.done():
        print((await run).new_messages[2].parts[0].content)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["done", "stopped"])
@pytest.mark.parametrize("toolkit", ["dataframes", "sql"])
async def test_a_program_ends_well_that_closes_nothing(folder, toolkit, way):
    duckdb.connect(str(folder / "some.db")).close()

    async def end():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ENDS, str(folder), toolkit, way), stderr=asyncio.subprocess.PIPE
        )
        _, told = await process.communicate()
        return process.returncode, told.decode()

    for _ in range(4):
        assert await asyncio.gather(end(), end()) == [(0, "")] * 2


LOADS = """
import asyncio, sys
from gossamer import Agent
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import dataframes

async def main():
    run = asyncio.create_task(Agent(ScriptedModel(["done"]), tools=[dataframes(sys.argv[1])]).run("go"))
    await asyncio.wait({run}, timeout=float(sys.argv[2]))

asyncio.run(main())
"""


async def test_a_program_ends_well_while_its_tables_are_loaded(folder):
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT range, 'x' || range FROM range(1000000)) TO '{folder}/many.csv'")

    async def end(seconds):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LOADS, str(folder), str(seconds)), stderr=asyncio.subprocess.PIPE
        )
        await process.communicate()
        return process.returncode

    for tenths in range(2, 12):
        assert await asyncio.gather(end(tenths / 50), end(tenths / 45)) == [0, 0]


async def test_a_query_that_is_over_time_is_told_so_and_gives_its_cursor_back(folder):
    kit = dataframes({"orders": folder / "orders.csv"}, timeout=0.2)
    slow = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"
    async with Agent("offline", tools=[kit]):
        told = await asyncio.gather(*(refused(kit, "query_dataframes", query=slow) for _ in range(4)))
        assert all("longer than 0.2 seconds" in one for one in told)
        assert (await given(kit, "query_dataframes", query="SELECT 1"))["rows"] == [[1]]
