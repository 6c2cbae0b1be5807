"""Which functions and relations of a database only read: from its catalogue, once for all connections.

For a SELECT in autocommit, whose text does not tell whether it writes. PostgreSQL's own functions do not, but for the few that run a text as
SQL; a function that was made in the database may; a view does if one of its functions may, and a table if one of its policies' may. What is
not known may write. Operators and casts of one's own are not looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Final, FrozenSet, Iterable, Sequence

from .statements import Statement

logger = logging.getLogger("lead_audit")

_SECONDS: Final = 300.0
_MISSES: Final = 50  # statements that are sent with the context since it is not known whether they need it, before it is asked

_FIRST_OWN_OID: Final = 16384
_FUNCTION, _RELATION, _WRITER = "f", "r", "w"

QUERY: Final = f"""WITH RECURSIVE
  own AS MATERIALIZED (SELECT p.oid, p.proname, p.provolatile, p.pronamespace FROM pg_catalog.pg_proc p WHERE p.oid >= {_FIRST_OWN_OID}),
  uses (relation, classid, objid) AS (
    SELECT r.ev_class, d.refclassid, d.refobjid FROM pg_catalog.pg_rewrite r
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
    WHERE r.oid >= {_FIRST_OWN_OID}
    UNION ALL
    SELECT p.polrelid, d.refclassid, d.refobjid FROM pg_catalog.pg_policy p
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
  ),
  may_write (relation) AS (
    SELECT u.relation FROM uses u JOIN own o ON u.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND o.oid = u.objid
    UNION
    SELECT u.relation FROM uses u
      JOIN pg_catalog.pg_operator p ON u.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND p.oid = u.objid
      JOIN own o ON o.oid = p.oprcode
    UNION
    SELECT u.relation FROM may_write m JOIN uses u ON u.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.objid = m.relation
  )
SELECT '{_FUNCTION}' AS kind, p.proname::text AS name FROM pg_catalog.pg_proc p GROUP BY p.proname
HAVING pg_catalog.max(p.oid) < {_FIRST_OWN_OID}
  AND p.proname NOT IN ('query_to_xml', 'query_to_xml_and_xmlschema', 'cursor_to_xml', 'ts_stat', 'ts_rewrite')
UNION ALL
SELECT '{_RELATION}', c.relname::text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
GROUP BY c.relname HAVING NOT pg_catalog.bool_or(c.oid IN (SELECT m.relation FROM may_write m))
UNION ALL
SELECT '{_WRITER}', o.proname::text FROM own o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
WHERE o.provolatile = 'v' AND n.nspname NOT IN ('lead_audit', 'lead_audit_internal')
UNION ALL
SELECT '{_WRITER}', c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT m.relation FROM may_write m) AND n.nspname <> 'lead_audit'"""
"""Rows of a kind and a name: the functions and the relations that only read, and names of what can write, for reports: without the
trail's own, which are there to be read by anybody."""

_NONE: Final[FrozenSet[str]] = frozenset()


class Catalog:
    """What is known of one database. It is forgotten after some minutes, and after DDL that passes here."""

    def __init__(self) -> None:
        self._functions = self._relations = self._writers = _NONE
        self._until = 0.0
        self._misses = 0
        self._loading = threading.Lock()

    def forget(self) -> None:
        """The schema changes."""
        self._until = 0.0

    def load(self, ask: Callable[[], Iterable[Sequence[str]]]) -> None:
        """Asks for what is not known, at a time when a question is cheap: where a connection is made. ask: runs QUERY."""
        if time.monotonic() < self._until or not self._loading.acquire(blocking=False):
            return
        try:
            self._until = (
                time.monotonic() + _SECONDS
            )  # so that what is forgotten meanwhile stays so
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
        """Whether a statement that reads may write by what it calls and reads. In autocommit, outside of a transaction."""
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
        """Whether it calls or reads what can write, as far as that is known."""
        return not (
            self._writers.isdisjoint(statement.calls)
            and self._writers.isdisjoint(statement.relations)
        )
