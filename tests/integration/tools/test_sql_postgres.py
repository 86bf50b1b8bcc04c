"""Postgres for a model: what it sees, and that no query changes anything where it must not."""

from __future__ import annotations

import asyncio
import json
import logging
import socket

import pytest
from tests.integration.tools.calling import given, refused

from gossamer import Agent, ArgumentError, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import sql

PASSWORD = "s3cret/with@signs:and%"
WRITTEN = "s3cret%2Fwith%40signs%3Aand%25"


@pytest.fixture
def url(postgres):
    """A database with a role that may do anything in it, and is no superuser."""
    postgres.execute(
        "DROP DATABASE IF EXISTS shop WITH (FORCE)",
        "DROP ROLE IF EXISTS clerk",
        f"CREATE ROLE clerk LOGIN PASSWORD '{PASSWORD}'",
        "CREATE DATABASE shop OWNER clerk",
    )
    postgres.execute(
        "SET ROLE clerk",
        "CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL)",
        "CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric(9, 2) DEFAULT 0)",
        "COMMENT ON COLUMN orders.total IS 'in euros'",
        "INSERT INTO customers (name) VALUES ('Ada'), ('Bö')",
        "INSERT INTO orders VALUES (1, 1, 9.5), (2, 1, 0.25)",
        "CREATE VIEW big AS SELECT * FROM orders WHERE total > 1",
        "CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN SET transaction_read_only = off; DELETE FROM orders; RETURN 1; END $$",
        "CREATE FUNCTION quiet_evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM orders; RETURN 1; END $$",
        "CREATE PROCEDURE ends() LANGUAGE plpgsql AS $$ BEGIN COMMIT; DELETE FROM orders; COMMIT; END $$",
        "CREATE PROCEDURE gives(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN COMMIT; DELETE FROM orders; COMMIT; END $$",
        database="shop",
    )
    return postgres.url("shop", "clerk", WRITTEN)


@pytest.fixture
def kit(url):
    return sql(url)


@pytest.fixture
def content(postgres):
    def content():
        return (
            postgres.execute("TABLE orders", database="shop"),
            postgres.execute(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'S') ORDER BY 1", database="shop"
            ),
            postgres.execute("SELECT last_value FROM customers_id_seq", database="shop"),
            postgres.execute("SELECT setconfig FROM pg_db_role_setting"),
        )

    return content


async def test_shows_tables_columns_and_rows(kit):
    assert [row[:3] for row in (await given(kit, "list_tables"))["rows"]] == [
        ["public", "big", "view"],
        ["public", "customers", "table"],
        ["public", "orders", "table"],
    ]
    described = await given(kit, "describe_table", table="public.orders")
    assert described["columns"] == ["column", "type", "nullable", "default", "key", "comment"]
    assert described["rows"][2] == ["total", "numeric(9,2)", True, "0", None, "in euros"]
    assert "REFERENCES customers(id)" in described["rows"][1][4]
    found = await given(
        kit,
        "query_sql",
        query="SELECT id, id, total, name, true AS t, NULL AS n, 1.5::float8 AS f, '{\"a\": 1}'::jsonb AS j, "
        "'infinity'::date AS d, '\\xff'::bytea AS b FROM big NATURAL JOIN (SELECT name FROM customers LIMIT 1) c ;\n",
    )
    assert found["rows"] == [[1, 1, "9.50", "Ada", True, None, 1.5, '{"a": 1}', "infinity", "\\xff"]]
    assert found["columns"] == ["id", "id", "total", "name", "t", "n", "f", "j", "d", "b"]
    ordered = await given(
        kit, "query_sql", query="SELECT id FROM orders ORDER BY id DESC -- the last one first"
    )
    assert ordered["rows"] == [[2], [1]]
    for query in (
        "SHOW server_version",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
        "TABLE orders",
        "SELECT 'a%b' LIKE 'a%'",
    ):
        assert (await given(kit, "query_sql", query=query))["rows"]
    assert "no table 'nothing'" in await refused(kit, "describe_table", table="nothing")
    assert "QueryError" in await refused(kit, "describe_table", table='"; DROP TABLE orders')


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO orders VALUES (9)",
        "INSERT INTO orders VALUES (9) RETURNING id",
        "UPDATE orders SET total = 0 RETURNING *",
        "DELETE FROM orders",
        "DROP TABLE orders",
        "CREATE TABLE t (a int)",
        "CREATE TEMP TABLE t (a int)",
        "SELECT 1 INTO t",
        "WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d",
        "SELECT * FROM orders FOR UPDATE",
        "SELECT nextval('customers_id_seq')",
        "SELECT setval('customers_id_seq', 99)",
        "SELECT evil()",
        "SELECT quiet_evil()",
        "CALL ends()",
        "CALL gives(1)",
        "COMMIT",
        "COMMIT; DROP TABLE orders",
        "ROLLBACK; DROP TABLE orders",
        "SELECT 1; DROP TABLE orders",
        "SELECT 1) SELECT 1; DROP TABLE orders; --",
        "END",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SET statement_timeout = 0",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('transaction_read_only', 'off', true), quiet_evil()",
        "ALTER ROLE clerk SET default_transaction_read_only = off",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "DO $$ BEGIN COMMIT; DELETE FROM orders; END $$",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "COPY orders TO STDOUT",
        "COPY orders TO '/tmp/evil'",
        "COPY orders FROM PROGRAM 'true'",
        "PREPARE p AS DELETE FROM orders",
        "LISTEN channel",
        "LOCK orders",
        "VACUUM",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM orders; -- nothing behind it is bounded",
        "SELECT $1",
        "not sql at all",
        "",
    ],
)
async def test_changes_nothing(kit, content, query):
    before = content()
    told = await refused(kit, "query_sql", query=query)
    assert "QueryError" in told
    assert PASSWORD not in told
    assert content() == before


async def test_nothing_of_a_query_is_left_for_the_next(kit, content):
    """What a function may set in its session is gone with its connection."""
    before = content()
    await given(
        kit,
        "query_sql",
        query="SELECT set_config('default_transaction_read_only', 'off', false), set_config('a.b', 'c', false)",
    )
    assert "read-only transaction" in await refused(kit, "query_sql", query="SELECT quiet_evil()")
    assert (await given(kit, "query_sql", query="SELECT current_setting('a.b', true)"))["rows"] == [[None]]
    assert content() == before


async def test_a_role_that_no_transaction_bounds_is_refused(postgres, url):
    assert "superuser" in await refused(sql(postgres.url()), "query_sql", query="SELECT 1")
    postgres.execute("GRANT pg_read_server_files TO clerk")
    assert "read and write files" in await refused(sql(url), "query_sql", query="SELECT 1")
    kit = sql(postgres.url("shop"), allow_superuser=True)
    assert (await given(kit, "query_sql", query="SELECT 1"))["rows"] == [[1]]
    assert "QueryError" in await refused(kit, "query_sql", query="DELETE FROM orders")


async def test_rows_and_cells_are_bounded(url):
    kit = sql(url, max_rows=2, max_cell=10)
    found = await given(
        kit, "query_sql", query="SELECT i, repeat('x', 5000) FROM (SELECT generate_series(1, 1000000000) i) s"
    )
    cut = "x" * 10 + "… [cut at 10 characters]"
    assert (found["rows"], found["more"]) == ([[1, cut], [2, cut]], True)
    assert (await given(kit, "query_sql", query="SELECT generate_series(1, 2)"))["more"] is False
    (row,) = (
        await given(kit, "query_sql", query="SELECT repeat('y', 100000000), array_fill(1, ARRAY[1000])")
    )["rows"]
    assert [len(cell) for cell in row] == [34, 34]


async def test_a_query_that_takes_too_long_is_stopped_by_the_server(url, postgres):
    for query in (
        "SELECT count(pg_sleep(600))",
        "SELECT set_config('statement_timeout', '0', false), count(pg_sleep(600))",
    ):
        told = await refused(sql(url, timeout=0.3), "query_sql", query=query)
        assert "longer than 0.3 seconds" in told
    assert await gone(postgres)


async def gone(postgres) -> bool:
    """Wait until no connection of the role is left; the test's own time bound ends it where one stays."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(
            postgres.execute, "SELECT 1 FROM pg_stat_activity WHERE usename = 'clerk'"
        ):
            await asyncio.sleep(0.01)
    return True


async def test_a_run_that_is_cancelled_stops_its_query_on_the_server(kit, postgres):
    agent = Agent(ScriptedModel([ToolCall.of("query_sql", query="SELECT count(pg_sleep(600))")]), tools=[kit])
    task = asyncio.create_task(agent.run("go"))
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE usename = 'clerk' AND wait_event = 'PgSleep'"
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(postgres.execute, sleeping):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(postgres)


async def test_connections_are_bounded(url):
    """More queries than there may be connections wait, and are answered."""
    kit = sql(url, max_connections=2)
    busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'clerk' AND state = 'active' AND slept >= 0"
    query = f"WITH s AS MATERIALIZED (SELECT count(pg_sleep(0.05)) AS slept) SELECT ({busy}) FROM s"
    calls = [ToolCall.of("query_sql", query=query) for _ in range(8)]
    parts = (await Agent(ScriptedModel([calls, "done"]), tools=[kit]).run("go")).new_messages[2].parts
    assert [part.outcome for part in parts] == ["ok"] * 8
    assert 1 <= max(json.loads(part.content)["rows"][0][0] for part in parts) <= 2


async def test_writes_where_it_may(url, postgres):
    kit = sql(url, writable=True)
    assert (await given(kit, "query_sql", query="UPDATE orders SET total = 1"))["rows"] == [["UPDATE 2"]]
    found = await given(
        kit, "query_sql", query="INSERT INTO customers (name) VALUES ('C') RETURNING id, name"
    )
    assert (found["columns"], found["rows"]) == (["id", "name"], [[3, "C"]])
    moved = "WITH d AS (DELETE FROM orders WHERE id = 2 RETURNING id) SELECT * FROM d"
    assert (await given(kit, "query_sql", query=moved))["rows"] == [[2]]
    await given(kit, "query_sql", query="CREATE TABLE more (a int)")
    assert (await given(kit, "query_sql", query="SELECT count(*) FROM orders"))["rows"] == [[1]]
    assert "multiple commands" in await refused(
        kit, "query_sql", query="DELETE FROM orders; DROP TABLE orders"
    )
    assert "QueryError" in await refused(kit, "query_sql", query="COPY orders FROM STDIN")
    assert postgres.execute("SELECT name FROM customers WHERE id = 3", database="shop") == [("C",)]


# --- passwords --------------------------------------------------------------------------------------------------


async def test_a_password_is_shown_to_nobody(url, postgres, caplog):
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    urls = [
        postgres.url("shop", "clerk", "hunter2"),  # the wrong one
        postgres.url("nothing", "clerk", WRITTEN),
        f"postgresql://clerk:hunter2@127.0.0.1:{closed}/shop",
        "postgresql:///shop?host=/nowhere&user=clerk&password=hunter2",
        "postgresql://clerk:hunter2@127.0.0.1/shop?hunter2=1&sslmode=hunter2",
        "postgresql://clerk:hunter2@127.0.0.1/shop?connect_timeout=hunter2",
        "postgresql://clerk:hunter2%zz@127.0.0.1/shop",
    ]
    for one in urls:
        kit = sql(one)
        told = await refused(kit, "list_tables")
        assert "cannot be reached" in told
        assert "hunter2" not in told
        assert PASSWORD not in told
        assert "hunter2" not in repr(kit)
        assert "hunter2" not in str(vars(kit.tools[0].function.__self__)) + repr(kit.tools)
    await given(sql(url), "list_tables")
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text
    assert WRITTEN not in caplog.text


def test_a_url_that_cannot_be_read_is_refused_without_showing_it():
    with pytest.raises(ArgumentError, match="cannot be read") as raised:
        sql("postgresql://clerk:hunter/2@127.0.0.1:x/shop")
    assert "hunter" not in str(raised.value)
    assert raised.value.__suppress_context__
