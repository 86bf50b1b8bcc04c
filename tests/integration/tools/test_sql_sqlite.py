"""SQLite for a model: what it sees, and that it changes nothing and reaches no other file."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from tests.integration.tools.calling import given, names, refused

from gossamer import Agent, ArgumentError, Limits, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools import thread_statistics
from gossamer.tools.builtin import sql

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shop #1?.db"
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x', photo BLOB);
            CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers(id), total REAL);
            CREATE VIEW totals AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer;
            CREATE INDEX by_customer ON orders (customer);
            INSERT INTO customers VALUES (1, 'Ada', x'00ff'), (2, 'Bö', NULL);
            INSERT INTO orders VALUES (1, 1, 9.5), (2, 1, 0.5);
        """)
    connection.close()
    return path


@pytest.fixture
def kit(path):
    return sql(f"sqlite:///{path}")


def content(path):
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def test_shows_tables_columns_and_rows(kit):
    assert names(kit) == ["list_tables", "describe_table", "query_sql"]
    assert (await given(kit, "list_tables"))["rows"] == [
        ["customers", "table"],
        ["orders", "table"],
        ["totals", "view"],
    ]
    described = await given(kit, "describe_table", table="orders")
    assert described["columns"] == ["column", "type", "nullable", "default", "key"]
    assert described["rows"][:2] == [
        ["id", "INTEGER", 1, None, "primary key"],
        ["customer", "INTEGER", 1, None, "references customers(id)"],
    ]
    found = await given(kit, "query_sql", query="SELECT * FROM customers ORDER BY id; -- all")
    assert found == {
        "columns": ["id", "name", "photo"],
        "rows": [[1, "Ada", "2 bytes: 00ff"], [2, "Bö", None]],
        "more": False,
    }
    assert (await given(kit, "query_sql", query="SELECT total FROM totals"))["rows"] == [[10.0]]
    assert (await given(kit, "query_sql", query="PRAGMA table_info(orders)"))["rows"]
    assert (await given(kit, "query_sql", query="SELECT value FROM json_each('[3]')"))["rows"] == [[3]]
    assert "no table 'nothing'" in await refused(kit, "describe_table", table="nothing")


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE sqlite_master SET sql = 'x'",
        "INSERT INTO orders VALUES (9, 1, 1)",
        "DELETE FROM orders",
        "DROP TABLE orders",
        "CREATE TEMP TABLE t (a)",
        "ALTER TABLE orders ADD COLUMN evil",
        "WITH x AS (SELECT 1) INSERT INTO orders SELECT 9, 1, 1 FROM x",
        "REPLACE INTO orders VALUES (1, 1, 1)",
        "SELECT 1; DROP TABLE orders",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "PRAGMA temp_store_directory = '/'",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "VACUUM",
        "VACUUM INTO '{outside}'",
        "ATTACH '{outside}' AS other",
        "ATTACH '{secret}' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "SELECT load_extension('{outside}')",
        "SELECT readfile('{secret}')",
        "SELECT writefile('{outside}', 'x')",
        "CREATE VIRTUAL TABLE t USING csv(filename='{secret}')",
        "SELECT fts3_tokenizer('simple', x'00')",
        "ANALYZE",
        "REINDEX",
        "not sql at all",
        "",
        "SELECT 1\0",
        "SELECT '" + "x" * 60_000 + "'",
    ],
)
async def test_changes_nothing_and_reaches_no_other_file(kit, path, tmp_path, query):
    secret = tmp_path / "secret.db"
    with sqlite3.connect(secret) as connection:
        connection.execute("CREATE TABLE hidden (word)")
    connection.close()
    outside = tmp_path / "outside"
    before, files = path.read_bytes(), sorted(tmp_path.iterdir())
    told = await refused(kit, "query_sql", query=query.format(outside=outside, secret=secret))
    assert "QueryError" in told
    assert str(tmp_path) not in told.replace(str(outside), "").replace(str(secret), "")
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files


async def test_a_view_of_a_hostile_file_loads_nothing(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIEW trap AS SELECT load_extension('/tmp/evil.so')")
    connection.close()
    assert "QueryError" in await refused(sql(f"sqlite:///{path}"), "query_sql", query="SELECT * FROM trap")


async def test_rows_and_cells_are_bounded(path):
    kit = sql(f"sqlite:///{path}", max_rows=3, max_cell=10)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"
    found = await given(kit, "query_sql", query=many.format(10**9))
    assert (found["rows"], found["more"]) == ([[1], [2], [3]], True)
    assert (await given(kit, "query_sql", query=many.format(3)))["more"] is False
    (row,) = (await given(kit, "query_sql", query="SELECT printf('%.*c', 5000, 'x'), x'" + "ab" * 50 + "'"))[
        "rows"
    ]
    assert row == ["x" * 10 + "… [cut at 10 characters]", "50 bytes: … [cut at 10 characters]"]
    for bomb in (
        "SELECT zeroblob(2000000000)",
        "SELECT replace(hex(zeroblob(4000000)), '0', 'xxxx')",
        "SELECT hex(zeroblob(9000000))",
    ):
        assert "too big" in await refused(kit, "query_sql", query=bomb)


async def test_many_wide_rows_end_early(path):
    kit = sql(f"sqlite:///{path}", max_rows=10_000, max_cell=100_000)
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000) SELECT printf('%.*c', 90000, 'x') FROM n"
    result = await Agent(ScriptedModel([ToolCall.of("query_sql", query=query), "done"]), tools=[kit]).run(
        "go"
    )
    assert len(result.new_messages[2].parts[0].content) <= 50_000  # kept aside, after 200,000 characters


@pytest.mark.parametrize(
    "query", [FOREVER, FOREVER.replace("count(*)", "sum(length(hex(randomblob(4000000))))")]
)
async def test_a_query_that_takes_too_long_is_stopped(path, query):
    told = await refused(sql(f"sqlite:///{path}", timeout=0.1), "query_sql", query=query)
    assert "longer than 0.1 seconds" in told
    async with asyncio.timeout(20):
        while thread_statistics().abandoned:  # its thread comes back
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT instr(hex(zeroblob(4900000)), hex(zeroblob(2400000)) || '1')",
        "SELECT replace(hex(zeroblob(4900000)), hex(zeroblob(2400000)) || '1', 'x')",
    ],
)
@pytest.mark.parametrize("writable", [False, True])
async def test_a_function_that_never_comes_back_is_stopped_too(path, query, writable):
    kit, before = sql(f"sqlite:///{path}", writable=writable, timeout=0.2), content(path)
    assert "longer than 0.2 seconds" in await refused(kit, "query_sql", query=query)
    async with asyncio.timeout(20):
        while thread_statistics().abandoned:
            await asyncio.sleep(0.01)
    assert content(path) == before


@pytest.mark.parametrize(
    "query",
    [
        "SELECT " + ", ".join(["hex(zeroblob(4900000))"] * 40),
        FOREVER.replace("count(*)", "count(DISTINCT randomblob(1000000))"),
        FOREVER.replace("count(*)", "i, randomblob(1000000)") + " ORDER BY 2",
    ],
)
async def test_memory_is_bounded_and_no_disk_taken_for_it(path, tmp_path, monkeypatch, query):
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "none"))
    assert "out of memory" in await refused(sql(f"sqlite:///{path}"), "query_sql", query=query)


async def test_a_statement_that_is_stopped_takes_back_what_it_wrote(path, tmp_path):
    kit, before = sql(f"sqlite:///{path}", writable=True, timeout=0.5), content(path)
    endless = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n) INSERT INTO orders SELECT i, 1, 1 FROM n"
    assert "longer than 0.5 seconds" in await refused(kit, "query_sql", query=endless)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # no journal that somebody must clear up
    assert content(path) == before


async def test_reads_a_file_with_a_log_of_its_writes(path):
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO orders VALUES (3, 2, 5)")
    try:
        found = await given(sql(f"sqlite:///{path}"), "query_sql", query="SELECT count(*) FROM orders")
        assert found["rows"] == [[3]]
    finally:
        writer.close()


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


async def test_a_limit_of_the_run_stops_it_too(kit):
    agent = Agent(ScriptedModel([ToolCall.of("query_sql", query=FOREVER), "done"]), tools=[kit])
    result = await agent.run("go", limits=Limits(max_seconds=0.2))
    assert result.finish_reason != "stop"


async def test_values_that_json_cannot_hold(path):
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO customers (name) VALUES (CAST(x'ff41' AS TEXT))")
    connection.close()
    found = await given(
        sql(f"sqlite:///{path}"),
        "query_sql",
        query="SELECT name, 9e999, -9e999, NULL FROM customers WHERE id = 3",
    )
    assert found["rows"] == [["\ufffdA", "Infinity", "-Infinity", None]]


async def test_names_of_columns_are_bounded_too(path):
    kit = sql(f"sqlite:///{path}", max_cell=20)
    long = "x" * 40_000
    assert (await given(kit, "query_sql", query=f'SELECT 1 AS "{long}"'))["columns"] == [
        "x" * 20 + "… [cut at 20 characters]"
    ]
    many = ", ".join(f"'{'y' * 20}' AS c{number}" for number in range(1_500))
    wide = sql(f"sqlite:///{path}", max_cell=1_000)
    found = await given(wide, "query_sql", query=f"SELECT {many}")
    assert len(found["columns"]) == len(found["rows"][0]) == 1_500


# --- writing ----------------------------------------------------------------------------------------------------


async def test_writes_where_it_may(path):
    kit = sql(f"sqlite:///{path}", writable=True)
    assert (await given(kit, "query_sql", query="UPDATE orders SET total = 1"))["rows"] == [[2]]
    found = await given(kit, "query_sql", query="INSERT INTO customers (name) VALUES ('C') RETURNING id")
    assert found["rows"] == [[3]]
    await given(kit, "query_sql", query="CREATE TABLE more (a)")
    assert (await given(kit, "query_sql", query="SELECT sum(total), count(*) FROM orders"))["rows"] == [
        [2.0, 2]
    ]
    assert any("'C'" in line for line in content(path))


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH '{outside}' AS other",
        "VACUUM INTO '{outside}'",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = WAL",
        "SELECT load_extension('x')",
        "COMMIT",
        "INSERT INTO orders VALUES (7, 99, 1)",
        "UPDATE sqlite_master SET sql = 'x'",
        "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 1, '')",
        "UPDATE orders SET total = 0; DROP TABLE orders",
    ],
)
async def test_writing_reaches_no_other_file_and_breaks_nothing(path, tmp_path, query):
    kit, before = sql(f"sqlite:///{path}", writable=True), content(path)
    told = await refused(kit, "query_sql", query=query.format(outside=tmp_path / "outside"))
    assert "QueryError" in told
    assert content(path) == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


async def test_a_person_decides_on_what_may_write(path):
    kit = sql(f"sqlite:///{path}", writable=True, needs_approval=True)
    model = ScriptedModel(
        [[ToolCall.of("list_tables"), ToolCall.of("query_sql", query="DELETE FROM orders")]]
    )
    result = await Agent(model, tools=[kit]).run("go")
    assert [pending.call.name for pending in result.pending] == ["query_sql"]


# --- arguments --------------------------------------------------------------------------------------------------


async def test_a_file_that_is_not_there_or_no_database(tmp_path):
    for writable in (False, True):
        kit = sql(f"sqlite:///{tmp_path}/none.db", writable=writable)
        assert "unable to open" in await refused(kit, "list_tables")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text").write_text("no database at all, but longer than its header would be" * 10)
    assert "not a database" in await refused(sql(f"sqlite:///{tmp_path}/text"), "list_tables")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.db",
        "sqlite:shop.db",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/x",
        "mysql://u:hunter2@h/d",
        None,
        5,
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url):
    with pytest.raises(ArgumentError, match="url") as raised:
        sql(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("bound", "value"),
    [("max_rows", 0), ("max_cell", 0), ("timeout", 0), ("timeout", 1e9), ("max_connections", 0)],
)
def test_bounds_are_checked(bound, value):
    with pytest.raises(ArgumentError, match=bound):
        sql("sqlite:///x.db", **{bound: value})


@pytest.mark.parametrize("arguments", [{}, {"query": 1}, {"query": "SELECT 1", "rows": 5}])
async def test_arguments_that_do_not_fit_are_told(kit, arguments):
    assert "Invalid arguments for query_sql" in await refused(kit, "query_sql", **arguments)


async def test_two_databases_at_once(path, kit):
    other = sql(f"sqlite:///{path}", name="other")
    calls = [ToolCall.of("list_tables"), ToolCall.of("other_list_tables")]
    result = await Agent(ScriptedModel([calls, "done"]), tools=[kit, other]).run("go")
    assert all("customers" in part.content for part in result.new_messages[2].parts)
