"""DuckDB for a model: what it sees, and that it changes nothing and reaches no other file."""

from __future__ import annotations

import asyncio

import duckdb
import pytest
from tests.integration.tools.calling import given, refused

from gossamer import Agent, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import sql

FOREVER = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(
            "CREATE TABLE orders (id INTEGER NOT NULL, day DATE, total DECIMAL(9, 2) DEFAULT 0)"
        )
        connection.execute("INSERT INTO orders VALUES (1, '2026-01-02', 9.5), (2, NULL, 0.25)")
        connection.execute("CREATE VIEW big AS SELECT * FROM orders WHERE total > 1")
        connection.execute("CREATE SCHEMA old; CREATE TABLE old.things (a INTEGER)")
    return path


@pytest.fixture
def kit(path):
    return sql(f"duckdb:///{path}")


async def test_shows_tables_columns_and_rows(kit):
    assert (await given(kit, "list_tables"))["rows"] == [
        ["main", "big", "view"],
        ["main", "orders", "base table"],
        ["old", "things", "base table"],
    ]
    described = await given(kit, "describe_table", table="orders")
    assert described["rows"][0] == ["id", "INTEGER", False, None]
    assert described["rows"][2][:3] == ["total", "DECIMAL(9,2)", True]
    assert (await given(kit, "describe_table", table="old.things"))["rows"][0][0] == "a"
    found = await given(
        kit, "query_sql", query="SELECT id, id, day, total, [1, 2] AS l FROM orders ORDER BY 1; "
    )
    assert found["rows"] == [[1, 1, "2026-01-02", "9.50", "[1, 2]"], [2, 2, None, "0.25", "[1, 2]"]]
    assert found["columns"][2:] == ["day", "total", "l"]
    for query in (
        "SHOW TABLES",
        "DESCRIBE orders",
        "SUMMARIZE orders",
        "FROM orders",
        "EXPLAIN FROM orders",
        "VALUES (1)",
    ):
        assert (await given(kit, "query_sql", query=query))["rows"]
    assert "no table 'nothing'" in await refused(kit, "describe_table", table="nothing")


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO orders VALUES (9, NULL, 1)",
        "DELETE FROM orders",
        "DROP TABLE orders",
        "CREATE TABLE t (a INTEGER)",
        "CREATE TEMP TABLE t (a INTEGER)",
        "SELECT 1; DROP TABLE orders",
        "SELECT * FROM orders) AS r; DROP TABLE orders; --",
        "SELECT 1) AS result(c0) UNION ALL (SELECT 2",
        "ATTACH '{outside}' AS other",
        "ATTACH ':memory:' AS other",
        "COPY orders TO '{outside}'",
        "COPY orders FROM '{secret}'",
        "EXPORT DATABASE '{outside}'",
        "IMPORT DATABASE '{outside}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_csv('https://127.0.0.1:1/x.csv')",
        "SELECT * FROM sniff_csv('{secret}')",
        "EXPLAIN ANALYZE COPY orders TO '{outside}'",
        "EXPLAIN ANALYZE INSERT INTO orders VALUES (9, NULL, 1)",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '900GB'",
        "RESET threads",
        "PRAGMA enable_profiling",
        "PRAGMA database_size",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "CALL enable_logging(storage = 'file')",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "CHECKPOINT",
        "VACUUM",
        "SELECT getenv('HOME')",
        "not sql at all",
        "",
        "--",
    ],
)
async def test_changes_nothing_and_reaches_no_other_file(kit, path, tmp_path, query):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nhidden\n")
    before, files = path.read_bytes(), sorted(tmp_path.iterdir())
    query = query.format(outside=tmp_path / "outside", secret=secret, folder=tmp_path)
    told = await refused(kit, "query_sql", query=query)
    assert "QueryError" in told
    assert "hidden\n" not in told
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files


async def test_no_secret_of_the_user_is_seen(kit):
    assert (await given(kit, "query_sql", query="FROM duckdb_secrets()"))["rows"] == []


async def test_rows_and_cells_are_bounded(path):
    kit = sql(f"duckdb:///{path}", max_rows=2, max_cell=10)
    found = await given(kit, "query_sql", query="SELECT range, repeat('x', 5000) FROM range(1000000000)")
    cut = "x" * 10 + "… [cut at 10 characters]"
    assert (found["rows"], found["more"]) == ([[0, cut], [1, cut]], True)
    assert (await given(kit, "query_sql", query="FROM range(2)"))["more"] is False
    (row,) = (await given(kit, "query_sql", query="SELECT 2::HUGEINT ** 100, range(1000), '\\xAA'::BLOB"))[
        "rows"
    ]
    assert row[1].startswith("[0, 1, 2, ")
    told = await refused(
        kit, "query_sql", query="SELECT string_agg(repeat('x', 100), '') FROM range(100000000)"
    )
    assert "Out of Memory" in told


async def test_a_query_that_takes_too_long_is_stopped(path):
    told = await refused(sql(f"duckdb:///{path}", timeout=0.2), "query_sql", query=FOREVER)
    assert "longer than 0.2 seconds" in told


async def test_a_run_that_is_cancelled_stops_its_query(kit):
    agent = Agent(ScriptedModel([ToolCall.of("query_sql", query=FOREVER)]), tools=[kit])
    started = asyncio.Event()

    async def read():
        async with agent.stream("go") as stream:
            async for event in stream:
                if type(event).__name__ == "ToolCallStarted":
                    started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # tests.watch fails this test where the thread still runs


async def test_others_may_write_between_two_calls(kit, path):
    await given(kit, "query_sql", query="SELECT 1")
    with duckdb.connect(path) as connection:
        connection.execute("DELETE FROM orders")
    assert (await given(kit, "query_sql", query="SELECT count(*) FROM orders"))["rows"] == [[0]]


async def test_a_file_that_is_in_use_or_not_there_or_no_database(kit, path, tmp_path):
    with duckdb.connect(path):
        told = await refused(kit, "list_tables")
    assert "cannot be opened" in told
    assert str(path) not in told
    for writable in (False, True):
        assert "no such database file" in await refused(
            sql(f"duckdb:///{tmp_path}/none", writable=writable), "list_tables"
        )
    assert not (tmp_path / "none").exists()
    (tmp_path / "text").write_text("no database" * 1000)
    assert "cannot be opened" in await refused(sql(f"duckdb:///{tmp_path}/text"), "list_tables")


async def test_writes_where_it_may_and_reaches_no_other_file(path, tmp_path):
    kit = sql(f"duckdb:///{path}", writable=True)
    assert (await given(kit, "query_sql", query="UPDATE orders SET total = 1"))["rows"] == [[2]]
    await given(kit, "query_sql", query="CREATE TABLE more AS SELECT 7 AS a")
    assert (await given(kit, "query_sql", query="INSERT INTO more VALUES (8) RETURNING a"))["rows"] == [[8]]
    assert (await given(kit, "query_sql", query="SELECT max(a) FROM more"))["rows"] == [[8]]
    for query in (
        "COPY orders TO '{outside}'",
        "ATTACH '{outside}' AS o",
        "SET enable_external_access = true",
        "CREATE TABLE t AS FROM read_text('{path}')",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
        "DELETE FROM orders; DROP TABLE orders",
    ):
        told = await refused(kit, "query_sql", query=query.format(outside=tmp_path / "outside", path=path))
        assert "QueryError" in told
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT sum(total) FROM orders").fetchall() == [(2,)]
