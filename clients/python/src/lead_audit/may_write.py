"""Reads from PostgreSQL's catalog which functions and relations do not write.

The client needs this information because the text of a SELECT does not show whether the SELECT
writes. All connections to a database share the result. PostgreSQL's own functions do not write to
tables of the application, except for a few that execute a text as SQL. A function that was created
in the database can write. A view can write if it uses a function that can write. A SELECT from a
table can write if a policy of the table uses a function that can write. The client assumes that a
relation or function with an unknown name can write. The client ignores operators and casts of the
application.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Final, FrozenSet, Iterable, Sequence

from .statements import Statement

logger = logging.getLogger("lead_audit")

_SECONDS: Final = 300.0
# After the cached names have expired, the client assumes that each SELECT can write. It reads the
# catalog again at the SELECT with the number _MISSES.
_MISSES: Final = 50

_FIRST_OWN_OID: Final = 16384
_FUNCTION, _RELATION, _WRITER = "f", "r", "w"

QUERY: Final = f"""WITH RECURSIVE
  own AS MATERIALIZED (
    SELECT p.oid, p.proname, p.provolatile, n.nspname
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= {_FIRST_OWN_OID}
  ),
  class (proc, relation, operator, rewrite) AS MATERIALIZED (VALUES (
    'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass,
    'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  )),
  uses (relation, classid, objid) AS (
    SELECT r.ev_class, d.refclassid, d.refobjid FROM class c CROSS JOIN pg_catalog.pg_rewrite r
      JOIN pg_catalog.pg_depend d ON d.classid = c.rewrite AND d.objid = r.oid
    WHERE r.oid >= {_FIRST_OWN_OID}
    UNION ALL
    SELECT p.polrelid, d.refclassid, d.refobjid FROM pg_catalog.pg_policy p
      JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
  ),
  may_write (relation) AS (
    SELECT u.relation FROM class c CROSS JOIN uses u
      JOIN own o ON u.classid = c.proc AND o.oid = u.objid
    UNION
    SELECT u.relation FROM class c CROSS JOIN uses u
      JOIN pg_catalog.pg_operator p ON u.classid = c.operator AND p.oid = u.objid
      JOIN own o ON o.oid = p.oprcode
    UNION
    SELECT u.relation FROM class c CROSS JOIN may_write m
      JOIN uses u ON u.classid = c.relation AND u.objid = m.relation
  )
SELECT '{_FUNCTION}' AS kind, p.proname::text AS name
FROM pg_catalog.pg_proc p GROUP BY p.proname
HAVING pg_catalog.max(p.oid) < {_FIRST_OWN_OID} AND p.proname NOT IN
  ('query_to_xml', 'query_to_xml_and_xmlschema', 'cursor_to_xml', 'ts_stat', 'ts_rewrite')
UNION ALL
SELECT '{_RELATION}', c.relname::text FROM pg_catalog.pg_class c
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition GROUP BY c.relname
HAVING NOT pg_catalog.bool_or(c.oid IN (SELECT m.relation FROM may_write m))
UNION ALL
SELECT '{_WRITER}', o.proname::text FROM own o
WHERE o.provolatile = 'v' AND o.nspname NOT IN ('lead_audit', 'lead_audit_internal')
UNION ALL
SELECT '{_WRITER}', c.relname::text FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT m.relation FROM may_write m)
  AND n.nspname NOT IN ('lead_audit', 'lead_audit_internal')"""
"""Returns (kind, name): functions and relations that only read, and names that can write.

The names that can write are for reports. They exclude the functions of lead_audit.
"""

_NONE: Final[FrozenSet[str]] = frozenset()


class Catalog:
    """The names of functions and relations in one database, which expire after some minutes."""

    def __init__(self) -> None:
        self._functions = self._relations = self._writers = _NONE
        self._until = 0.0
        self._misses = 0
        self._loading = threading.Lock()

    def forget(self) -> None:
        """Discards the names.

        The client calls this function after DDL, which can change the names.
        """
        self._until = 0.0

    def load(self, ask: Callable[[], Iterable[Sequence[str]]]) -> None:
        """Reads the catalog if the names have expired.

        ask: a function that runs QUERY and returns its rows. The client also calls load() for each
        new connection, because QUERY takes less time than opening the connection.
        """
        if time.monotonic() < self._until or not self._loading.acquire(blocking=False):
            return
        try:
            self._until = (
                time.monotonic() + _SECONDS
            )  # set before QUERY, so that a concurrent forget() stays in effect
            found: dict[str, set[str]] = {_FUNCTION: set(), _RELATION: set(), _WRITER: set()}
            for kind, name in ask():
                found[kind].add(name)
            self._functions, self._relations, self._writers = (
                frozenset(found[kind]) for kind in (_FUNCTION, _RELATION, _WRITER)
            )
            self._misses = 0
        except Exception:
            self._until = 0.0
            logger.debug("lead_audit: the catalogue could not be read", exc_info=True)
        except BaseException:
            self._until = 0.0
            raise
        finally:
            self._loading.release()

    def may_write(self, statement: Statement, ask: Callable[[], Iterable[Sequence[str]]]) -> bool:
        """Returns whether a SELECT can write through its functions and relations.

        The connection of `ask` must be in autocommit, outside of a transaction.
        """
        if not statement.calls and not statement.relations:
            return False
        if time.monotonic() >= self._until:
            self._misses += 1
            if self._misses < _MISSES:
                return True
            self._misses = 0
            self.load(ask)
            if time.monotonic() >= self._until:
                return True
        return not (statement.calls <= self._functions and statement.relations <= self._relations)

    def is_known_to_write(self, statement: Statement) -> bool:
        """Returns whether the statement uses a function or relation that is known to write."""
        return not (
            self._writers.isdisjoint(statement.calls)
            and self._writers.isdisjoint(statement.relations)
        )
