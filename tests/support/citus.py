"""What Citus asks of a statement, checked on Postgres' own parse tree of it.

Citus can't be installed here. Its router planner sends a statement that names one tenant to that tenant's node as it
is, after it has looked for a few things it can't do right; those rules are written down here from its source
(`multi_router_planner.c`: ModifyPartialQuerySupported, MasterIrreducibleExpression, ErrorIfOnConflictNotSupported,
DeferErrorIfUnsupportedRouterPlannableSelectQuery; `insert_select_executor.c`), and applied to the tree of nodes that
Postgres' parser makes of each statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

#: Commands, as the parser numbers them.
SELECT, UPDATE, INSERT, DELETE = "1", "2", "3", "4"
IMMUTABLE, STABLE, VOLATILE = "i", "s", "v"
_TOKEN = re.compile(r'\\.|[{}()\[\]]|"(?:[^"\\]|\\.)*"|(?:[^\s{}()\[\]\\]|\\.)+', re.DOTALL)

Node = dict[str, Any]

#: Functions and catalogs of Citus that move nothing, and raise where a table is not as Citus needs it.
STAND_INS = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char", colocationid int, repmodel "char");
CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid int8);
GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_shard TO PUBLIC;
CREATE TABLE public.recorded (n int GENERATED ALWAYS AS IDENTITY, what text);
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
  SELECT 99999, 'citus', 10, oid, false, '13.0' FROM pg_namespace WHERE nspname = 'pg_catalog';

-- Raises where a table is not as Citus needs it.
CREATE FUNCTION public.ready(t regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('citus.multi_shard_modify_mode', true) IS DISTINCT FROM 'sequential' THEN
    RAISE 'not sequential'; END IF;
  IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND t IN (conrelid, confrelid)) THEN
    RAISE '% has foreign keys', t; END IF;
  IF EXISTS (SELECT FROM pg_policy WHERE polrelid = t) THEN RAISE '% has policies', t; END IF;
  IF EXISTS (SELECT FROM pg_class WHERE oid = t AND (relrowsecurity OR relforcerowsecurity)) THEN
    RAISE '% has row security', t; END IF;
  IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = t AND attname = 'embedding' AND attstorage <> 'm') THEN
    RAISE '% is stored otherwise', t; END IF;
END $$;
CREATE FUNCTION pg_catalog.create_reference_table(t regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.ready(t);
  INSERT INTO pg_catalog.pg_dist_partition VALUES (t, 'n', 1, 't');
  INSERT INTO public.recorded (what) VALUES ('reference ' || t);
END $$;
CREATE FUNCTION pg_catalog.create_distributed_table(t regclass, col text, distribution_type text DEFAULT 'hash',
  colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE other int := CASE WHEN colocate_with <> 'none' THEN (
  SELECT colocationid FROM pg_catalog.pg_dist_partition WHERE logicalrelid = colocate_with::regclass) ELSE 7 END;
BEGIN
  PERFORM public.ready(t);
  IF other IS NULL OR col <> 'tenant_id' OR (colocate_with <> 'none' AND shard_count IS NOT NULL) THEN
    RAISE '% by % with %', t, col, colocate_with; END IF;
  INSERT INTO pg_catalog.pg_dist_partition VALUES (t, 'h', other, 's');
  INSERT INTO pg_catalog.pg_dist_shard SELECT t, generate_series(1, coalesce(shard_count, 32));
  INSERT INTO public.recorded (what) VALUES ('distributed ' || t);
END $$;
CREATE FUNCTION pg_catalog.truncate_local_data_after_distributing_table(t regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = t) THEN RAISE '% is local', t; END IF;
  INSERT INTO public.recorded (what) VALUES ('truncated ' || t);
END $$;
CREATE FUNCTION pg_catalog.run_command_on_workers(command text,
  OUT nodename text, OUT nodeport int, OUT success bool, OUT result text) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE command;
  INSERT INTO public.recorded (what) VALUES ('workers ' || command);
  RETURN QUERY VALUES ('one', 5432, true, 'DO'::text);
  RETURN QUERY SELECT 'two', 5432, NOT EXISTS (SELECT FROM pg_class WHERE relname = 'refusing'), 'no'::text;
END $$;
"""


class Catalog:
    """A migrated database, and what its catalogs say of the numbers in a parse tree."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        connection.execute("SET search_path = pg_catalog, public, pg_temp")
        connection.execute("SET debug_print_parse = on; SET debug_pretty_print = off; SET client_min_messages = log")
        self._told: list[str] = []
        connection.add_notice_handler(self._hear)
        self.volatility = dict(self._rows("SELECT oid::text, provolatile::text FROM pg_proc"))
        self.functions = dict(self._rows("SELECT oid::text, proname::text FROM pg_proc"))
        self.operators = dict(self._rows("SELECT oid::text, oprcode::oid::text FROM pg_operator"))
        self.inputs = dict(self._rows("SELECT oid::text, typinput::oid::text FROM pg_type"))
        self.outputs = dict(self._rows("SELECT oid::text, typoutput::oid::text FROM pg_type"))
        self.tables = dict(self._rows("SELECT oid::text, oid::regclass::text FROM pg_class"))

    def _rows(self, statement: str) -> list[Any]:
        return self._connection.execute(statement).fetchall()

    def _hear(self, said: psycopg.errors.Diagnostic) -> None:
        if said.message_primary == "parse tree:" and said.message_detail:
            self._told.append(said.message_detail)

    def parsed(self, statement: str) -> Node:
        """The statement's tree; its parameters as the driver writes them."""
        numbers: dict[str, int] = {}
        named = re.compile(r"%\((\w+)\)[sb]|%%")

        def number(found: re.Match[str]) -> str:
            return "%" if found[0] == "%%" else f"${numbers.setdefault(found[1], len(numbers) + 1)}"

        self._told.clear()
        text = f"EXPLAIN (GENERIC_PLAN) {named.sub(number, statement)}"
        self._connection.execute(text.encode())
        [tree] = _Reader(self._told[-1]).values()
        [explain] = tree if isinstance(tree, list) else [tree]
        return next(node for node in nodes(explain) if node["kind"] == "QUERY" and node is not explain)


class _Reader:
    """Reads the text of a tree: `{KIND :field value …}`, `(lists)`, and bare words."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def values(self, end: str = "") -> list[Any]:
        found: list[Any] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token == end:
                return found
            if token == "{":
                found.append(self._node())
            elif token in "([":
                found.append(self.values(")" if token == "(" else "]"))
            else:
                found.append(token)
        return found

    def _node(self) -> Node:
        node: Node = {"kind": self._tokens[self._at]}
        self._at += 1
        field = None
        while (token := self._tokens[self._at]) != "}":
            if token.startswith(":"):
                field, node[token[1:]] = token[1:], None
                self._at += 1
                continue
            assert field is not None
            before = node[field]
            [value] = self._one()
            node[field] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
        self._at += 1
        return node

    def _one(self) -> list[Any]:
        token = self._tokens[self._at]
        self._at += 1
        if token == "{":
            return [self._node()]
        if token in "([":
            return [self.values(")" if token == "(" else "]")]
        return [token]


def nodes(value: Any, *, into_queries: bool = True) -> Iterator[Node]:
    """A value's nodes, itself first; not those of subqueries where that is not wanted."""
    if isinstance(value, list):
        for one in value:
            yield from nodes(one, into_queries=into_queries)
    elif isinstance(value, dict):
        yield value
        for field, inner in value.items():
            if field != "kind" and (into_queries or not (isinstance(inner, dict) and inner["kind"] == "QUERY")):
                yield from nodes(inner, into_queries=into_queries)


def _type(node: Node) -> str | None:
    fields = ("vartype", "consttype", "paramtype", "funcresulttype", "opresulttype", "resulttype", "coalescetype",
              "casetype", "array_typeid", "minmaxtype", "aggtype", "wintype")  # fmt: skip
    return next((node[field] for field in fields if node.get(field)), None)


class Rules:
    """Says what Citus would not do with a statement; `reference` are the tables that every node has."""

    def __init__(self, catalog: Catalog, distributed: set[str], reference: set[str]) -> None:
        self._catalog, self._distributed, self._reference = catalog, distributed, reference

    def broken(self, statement: str) -> list[str]:
        """Each rule that the statement breaks, a sentence each."""
        tree = self._catalog.parsed(statement)
        queries = [node for node in nodes(tree) if node["kind"] == "QUERY"]
        tables = {name for query in queries for name in self._tables(query)}
        known, local = tables & (self._distributed | self._reference), tables - self._distributed - self._reference
        found = []
        if tables & self._distributed and local:
            found.append(f"local tables {sorted(local)} are read together with distributed ones {sorted(known)}")
        if known and (locks := {f for f in self._called(tree) if "advisory" in f}):
            found.append(f"{sorted(locks)} would be called on a worker")
        for query in queries:
            found += self._locking(query)
            match query["commandType"]:
                case "2" | "4":
                    found += self._changing(query)
                case "3":
                    found += self._inserting(query)
        return found

    def _locking(self, query: Node) -> Iterator[str]:
        """A reference table's rows are locked on each node, and a CTE that locks rows must not read such a table."""
        entries = query.get("rtable") or []
        for cte in nodes(query.get("cteList"), into_queries=False):
            inner = cte.get("ctequery")
            if isinstance(inner, dict) and inner.get("rowMarks") and set(self._tables(inner)) & self._reference:
                yield "a CTE locks rows and reads a reference table"
        for mark in nodes(query.get("rowMarks"), into_queries=False):
            if mark["kind"] == "ROWMARKCLAUSE":
                entry = entries[int(mark["rti"]) - 1]
                if self._catalog.tables.get(entry.get("relid", "")) in self._reference:
                    yield "it locks rows of a reference table"

    def _tables(self, query: Node) -> Iterator[str]:
        for entry in nodes(query.get("rtable"), into_queries=False):
            if entry["kind"] == "RANGETBLENTRY" and entry.get("rtekind") == "0":
                yield self._catalog.tables.get(entry["relid"], entry["relid"])

    def _called(self, value: Any) -> Iterator[str]:
        for node in nodes(value):
            for function in self._functions(node):
                yield self._catalog.functions.get(function, function)

    def _functions(self, node: Node) -> list[str]:
        """The functions that evaluating this very node calls, as `check_functions_in_node` finds them."""
        catalog = self._catalog
        match node["kind"]:
            case "FUNCEXPR":
                return [node["funcid"]]
            case "OPEXPR" | "DISTINCTEXPR" | "NULLIFEXPR" | "SCALARARRAYOPEXPR":
                return [catalog.operators[node["opno"]]]
            case "AGGREF":
                return [node["aggfnoid"]]
            case "WINDOWFUNC":
                return [node["winfnoid"]]
            case "COERCEVIAIO":
                given = _type(node["arg"]) if isinstance(node["arg"], dict) else None
                return [catalog.inputs[node["resulttype"]], *([catalog.outputs[given]] if given else [])]
            case "ROWCOMPAREEXPR":
                return [catalog.operators[number] for number in node["opnos"] if number in catalog.operators]
        return []

    def _worst(self, node: Node) -> str:
        if node["kind"] == "SQLVALUEFUNCTION":
            return STABLE
        if node["kind"] == "NEXTVALUEEXPR":
            return VOLATILE
        found = {self._catalog.volatility[function] for function in self._functions(node)}
        return VOLATILE if VOLATILE in found else STABLE if STABLE in found else IMMUTABLE

    def _mutable(self, value: Any) -> set[str]:
        return {
            ", ".join(self._catalog.functions[f] for f in self._functions(node)) or node["kind"]
            for node in nodes(value)
            if self._worst(node) != IMMUTABLE
        }

    def _changing(self, query: Node) -> Iterator[str]:
        kind = {"2": "UPDATE", "4": "DELETE"}[query["commandType"]]
        volatile = {f for f in self._called(query) if self._catalog.volatility.get(self._oid(f)) == VOLATILE}
        if volatile:
            yield f"{kind} calls the volatile {sorted(volatile)}"
        expressions = [query["jointree"].get("quals")]
        if kind == "UPDATE":
            expressions += [entry["expr"] for entry in nodes(query["targetList"]) if entry["kind"] == "TARGETENTRY"]
        for expression in expressions:
            yield from (f"{kind}: {problem}" for problem in self._irreducible(expression))
        if mutable := self._mutable(query.get("returningList")):
            yield f"RETURNING calls {sorted(mutable)}, which are not immutable"

    def _oid(self, name: str) -> str:
        return next((oid for oid, called in self._catalog.functions.items() if called == name), "")

    def _irreducible(self, expression: Any) -> set[str]:
        """What could be evaluated neither once beforehand nor on each row: MasterIrreducibleExpression."""
        found: set[str] = set()

        def walk(value: Any) -> bool:
            """Whether a column is in it."""
            if isinstance(value, list):
                columns = [walk(one) for one in value]
                return any(columns)
            if not isinstance(value, dict) or value["kind"] == "QUERY":
                return False
            if value["kind"] == "VAR":
                return True
            if value["kind"] in ("COALESCEEXPR", "CASEEXPR", "COALESCE", "CASE"):
                if mutable := self._mutable(value):
                    found.add(f"{sorted(mutable)} in CASE or COALESCE are not immutable")
                return False
            column = walk([inner for field, inner in value.items() if field != "kind"])
            if column and self._worst(value) == STABLE:
                names = [self._catalog.functions[f] for f in self._functions(value)]
                found.add(f"{names} are stable, and given a column")
            return column

        walk(expression)
        return found

    def _inserting(self, query: Node) -> Iterator[str]:
        conflict, returning = query.get("onConflict"), query.get("returningList")
        conflict = conflict if isinstance(conflict, dict) else None
        returns = isinstance(returning, list) and bool(returning)
        selects = any(isinstance(entry.get("subquery"), dict) for entry in nodes(query["rtable"], into_queries=False))
        if selects and conflict is None and not returns:
            yield "INSERT … SELECT without ON CONFLICT or RETURNING becomes a COPY, which row-level security refuses"
        if not selects and any(node["kind"] == "SUBLINK" for node in nodes(query["targetList"])):
            yield "INSERT … VALUES has a subquery"
        if conflict is not None:
            setting = [
                entry["expr"] for entry in nodes(conflict.get("onConflictSet")) if entry["kind"] == "TARGETENTRY"
            ]
            mutable = self._mutable([s for s in setting if isinstance(s, dict) and s["kind"] != "VAR"])
            mutable |= self._mutable([conflict.get("arbiterWhere"), conflict.get("onConflictWhere")])
            if mutable:
                yield f"ON CONFLICT calls {sorted(mutable)}, which are not immutable"
        if mutable := self._mutable(returning):
            yield f"RETURNING calls {sorted(mutable)}, which are not immutable"
