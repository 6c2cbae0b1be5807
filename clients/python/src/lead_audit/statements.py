"""Analyses a text of SQL: how it affects transactions, and whether it writes (`analyze()`).

A scanner reads each character of the text once. The scanner knows the lexical rules of PostgreSQL
(nested comments, quoted names, escape strings, dollar quotes) and examines the first words of each
statement. The scanner never backtracks, so its time is linear in the length of the text.
`analyze()` caches its results.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import Final, FrozenSet, Iterator, NamedTuple, Optional, Tuple


class Kind(enum.Enum):
    """How a statement affects transactions and savepoints."""

    ORDINARY = enum.auto()
    """The statement runs in a transaction, in which the context is set before the statement."""
    SAVEPOINT = enum.auto()
    ROLLBACK_TO = enum.auto()
    RELEASE = enum.auto()
    ENDS = enum.auto()
    """The statement removes the settings of the context: COMMIT, ROLLBACK, DISCARD ALL, …"""
    APART = enum.auto()
    """The client sends nothing before the statement: BEGIN, SET TRANSACTION, LOCK, …"""


class Access(enum.Enum):
    """Whether and how a statement can leave an entry in the audit trail."""

    NONE = enum.auto()
    READS = enum.auto()
    """The statement writes if one of `Statement.calls` or `Statement.relations` writes."""
    CREATES = enum.auto()
    """The statement creates an object. It has an entry if it concerns a watched table."""
    SCHEMA = enum.auto()
    """The statement changes or drops objects, or creates a table with rows."""
    WRITES = enum.auto()
    """The purpose of the statement is to write."""
    MAY_COMMIT = enum.auto()
    """CALL and DO: they can write. They can also end a transaction, so the client begins none."""


class Statement(NamedTuple):
    """One statement of a query string."""

    kind: Kind
    savepoint: Optional[str]
    """The name of the savepoint as PostgreSQL folds it, or None if it is missing or not known."""
    access: Access
    start: int
    """The position of the first token of the statement in the query string."""
    is_copy: bool
    """Whether it is COPY, whose protocol allows no other statement in the same message."""
    is_ddl: bool
    calls: FrozenSet[str]
    """The names of the functions that the statement calls, if its access is READS."""
    relations: FrozenSet[str]
    """The names of the relations that the statement can read, without their schemas."""
    calls_own: bool
    """Whether the statement calls a function with a schema that is not pg_catalog."""

    @property
    def may_write(self) -> bool:
        """Returns whether the statement can write, according to its text alone."""
        return self.calls_own if self.access is Access.READS else self.access is not Access.NONE

    @property
    def writes(self) -> bool:
        """Returns whether the purpose of the statement is to write."""
        return self.access in (Access.WRITES, Access.SCHEMA, Access.MAY_COMMIT)


class Analysis:
    """The analysis of all statements in a query string."""

    __slots__ = (
        "statements",
        "only",
        "several",
        "changes_schema",
        "may_write",
        "writes",
        "is_copy",
        "is_ordinary",
    )

    def __init__(self, statements: tuple[Statement, ...], is_certain: bool = True) -> None:
        self.statements = statements
        self.only = statements[0]
        """The statement, or the first of several statements."""
        self.several = len(statements) > 1 or not is_certain
        """Whether the query string can contain several statements."""
        self.changes_schema = not is_certain or any(one.is_ddl for one in statements)
        self.may_write = any(
            one.may_write or (self.several and bool(one.calls or one.relations))
            for one in statements
        )
        """Whether one of the statements can write, according to the text.

        If there are several statements, each statement that reads counts as one that can write.
        """
        self.writes = any(one.writes for one in statements)
        """Whether the purpose of one of the statements is to write or to change a watched table."""
        self.is_copy = any(one.is_copy for one in statements)
        self.is_ordinary = all(one.kind is Kind.ORDINARY for one in statements)

    def places(self, is_set: bool = False, is_empty: bool = False) -> tuple[int, ...]:
        """Returns the positions in the query string at which the client must set the context.

        The first position is before the first statement that needs the context. After a statement
        that ends the transaction or rolls back to a savepoint, the next statement that needs the
        context has a further position. is_set: whether the context is already set when the query
        string begins. is_empty: whether the context is empty.
        """
        found: list[int] = []
        for one in self.statements:
            if one.kind is Kind.ENDS:
                is_set = is_empty
            elif one.kind is Kind.ROLLBACK_TO:
                is_set = False
            elif (
                one.kind is Kind.ORDINARY
                and not is_set
                and (one.may_write or one.calls or one.relations)
            ):
                found.append(one.start)
                is_set = True
        return tuple(found)


_CACHED_LENGTH: Final = 20_000  # analyze() does not cache longer texts
_CACHED_TEXTS: Final = 1_000


def analyze(text: str) -> Analysis:
    """Returns the analysis of a query string."""
    return _analyze_and_remember(text) if len(text) <= _CACHED_LENGTH else _analyze(text)


# ---- tokens -------------------------------------------------------------------------------------

# Each alternative of this pattern is a single character or ends with a repeated character class,
# after which nothing can fail. So the pattern never backtracks.
_TOKEN: Final = re.compile(
    r"""(?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)"""
    r"""|(?P<number>[0-9][A-Za-z0-9_.]*)"""
    r"""|(?P<special>/\*|--|['"$])"""
    r"""|[^ \t\n\r\f\v]"""
)
_COMMENT: Final = re.compile(r"/\*|\*/")
_ESCAPED: Final = re.compile(r"['\\]")
_TAG: Final = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")

# The kinds of tokens: an unquoted word, a quoted name, a single character, a literal.
_WORD, _NAME, _SIGN, _OTHER = 1, 2, 3, 4


_Token = Tuple[int, str, int]
"""A token: its kind, its text (words in lower case) and its position."""


class _Uncertain(Exception):
    """Raised if the meaning of the text depends on a setting of the server."""


def _tokens(text: str) -> list[_Token]:
    """Returns all tokens of a text. Blanks and comments are not tokens."""
    found: list[_Token] = []
    position: Optional[int] = 0
    while position is not None:
        position = _tokens_until(text, position, found)
    return found


def _tokens_until(text: str, position: int, found: list[_Token]) -> Optional[int]:
    """Adds tokens to `found`, up to the first token whose end the pattern cannot find.

    Returns the end of this token, or None at the end of the text.
    """
    add = found.append
    for match in _TOKEN.finditer(text, position):
        kind = match.lastgroup
        if kind is None:
            add((_SIGN, match[0], match.start()))
        elif kind == "word":
            token = match[0]
            if (token == "e" or token == "E") and text[match.end() : match.end() + 1] == "'":
                add((_OTHER, "", match.start()))
                return _end_of_escape_string(text, match.end() + 1)
            add((_WORD, fold(token), match.start()))
        elif kind == "number":
            add((_OTHER, "", match.start()))
        else:
            return _end_of_special(text, match[0], match.start(), match.end(), found)
    return None


def _end_of_special(text: str, token: str, start: int, position: int, found: list[_Token]) -> int:
    if token == "--":
        newline = text.find("\n", position)
        return len(text) if newline < 0 else newline + 1
    if token == "/*":
        return _end_of_comment(text, position)
    if token == "'":
        position = _end_of_quoted(text, position, "'")
        if "\\'" in text[start:position]:
            raise _Uncertain  # if standard_conforming_strings is off, the string continues
        found.append((_OTHER, "", start))
        return position
    if token == '"':
        position = _end_of_quoted(text, position, '"')
        found.append((_NAME, text[start + 1 : position - 1].replace('""', '"'), start))
        return position
    found.append((_OTHER, "", start))
    tag = _TAG.match(text, start)
    if tag is None:
        return position
    closing = text.find(tag[0], tag.end())
    return len(text) if closing < 0 else closing + len(tag[0])


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    for match in _COMMENT.finditer(text, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _end_of_quoted(text: str, position: int, quote: str) -> int:
    while True:
        position = text.find(quote, position)
        if position < 0:
            return len(text)
        if text[position + 1 : position + 2] != quote:
            return position + 1
        position += 2


def _end_of_escape_string(text: str, position: int) -> int:
    while True:
        match = _ESCAPED.search(text, position)
        if match is None:
            return len(text)
        if match[0] == "'" and text[match.end() : match.end() + 1] != "'":
            return match.end()
        position = match.end() + 1


_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_NAME_BYTES: Final = 63


def fold(word: str) -> str:
    """Folds an unquoted name as PostgreSQL does: only ASCII letters become lower case."""
    return word.lower() if word.isascii() else word.translate(_LOWER)


def _cut(name: str) -> str:
    """Shortens a name as PostgreSQL does, to at most 63 bytes."""
    return (
        name
        if len(name) * 4 <= _NAME_BYTES
        else name.encode(errors="replace")[:_NAME_BYTES].decode(errors="ignore")
    )


# ---- statements ---------------------------------------------------------------------------------

_ENDING: Final = frozenset("commit rollback end abort".split())
_APART: Final = frozenset(
    "begin start set reset show lock discard listen unlisten deallocate close".split()
)
_WRITING: Final = frozenset("insert update delete merge truncate copy execute".split())
_WRITING_IN_WITH: Final = ("insert", "update", "delete", "merge")
_READING: Final = frozenset("select values table with declare".split())
_ENDING_PAIRS: Final = frozenset(
    {("prepare", "transaction"), ("discard", "all"), ("reset", "all"), ("reset", "lead_audit")}
)
# A DDL command on these kinds of objects has no entry, or cannot run in a transaction.
_NOT_WATCHED: Final = frozenset("system database tablespace subscription role user group".split())
# A CREATE command for these kinds of objects can have an entry, or can run code that writes.
_CREATED: Final = frozenset("table trigger extension schema materialized".split())
_DDL: Final = frozenset("alter create drop".split())
_FIRST_WORDS: Final = 6  # CREATE OR REPLACE CONSTRAINT TRIGGER has five words

# A parenthesis can follow each of these words, although the word is not the name of a function. A
# function with the name of one of these words must be quoted.
_NO_FUNCTIONS: Final = frozenset(
    """
    all and any array as asymmetric between bigint bit boolean by case cast char character check
    coalesce cross cube current_date current_time current_timestamp dec decimal distinct else
    except exists extract fetch filter float for from full grant greatest group grouping having
    ilike in inner int integer intersect interval into is join lateral least left like limit
    localtime localtimestamp materialized national natural nchar none not nullif numeric offset on
    only or order outer over overlay position precision range real returning right rollup row rows
    select setof sets similar smallint some substring symmetric table then time timestamp to treat
    trim union using values varchar when where window with within
    """.split()
) - {"left", "right"}  # there are also functions left() and right()
_FROM: Final = frozenset("from join".split())
_AFTER_FROM: Final = frozenset(
    (
        "where group having order limit offset fetch window union intersect except for returning "
        "select"
    ).split()
)


class _Reader:
    """Finds the relations that a statement reads, and the functions that it calls."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.relations: set[str] = set()
        self.calls_own = False

    def read(self, tokens: list[_Token]) -> None:
        in_from = [False]  # for each open parenthesis: whether it is in a FROM clause
        expects = False  # whether the name of a relation must follow
        count = len(tokens)
        for i in range(count):
            what, token, _ = tokens[i]
            if what is _SIGN:
                if token == "(":
                    in_from.append(in_from[-1] and expects)
                elif token == ")":
                    if len(in_from) > 1:
                        in_from.pop()
                    expects = False
                elif token == ",":
                    expects = in_from[-1]
                elif token != ".":
                    expects = False
                continue
            if what is _OTHER:
                expects = False
                continue
            following = tokens[i + 1][1] if i + 1 < count and tokens[i + 1][0] is _SIGN else ""
            if following == ".":
                continue  # a schema or table name, after which the last part of the name follows
            if what is _WORD:
                if token in _FROM or token == "table":
                    in_from[-1] = expects = True
                    continue
                if token in ("only", "lateral"):
                    continue
                if token in _AFTER_FROM:
                    in_from[-1] = expects = False
                    continue
            schema = (
                tokens[i - 2][1]
                if i >= 2 and tokens[i - 1][1] == "." and tokens[i - 1][0] is _SIGN
                else None
            )
            if following == "(":
                self._calls(what, token, schema)
            elif expects and not (what is _WORD and token in _NO_FUNCTIONS):
                self.relations.add(_cut(token))
            expects = False

    def _calls(self, what: int, token: str, schema: Optional[str]) -> None:
        if schema is None and what is _WORD and token in _NO_FUNCTIONS:
            return
        if schema is not None and schema != "pg_catalog":
            self.calls_own = True
        self.calls.add(_cut(token))


_NOTHING: Final[FrozenSet[str]] = frozenset()


def _statement(tokens: list[_Token]) -> Statement:
    opening = 0
    while opening < len(tokens) - 1 and tokens[opening][:2] == (_SIGN, "("):
        opening += 1
    words = [token for what, token, _ in tokens[opening : opening + _FIRST_WORDS] if what is _WORD]
    first, second = (*words, "", "")[:2] if tokens[opening][0] is _WORD else ("", "")
    kind, savepoint = (
        _control(first, second, words, tokens) if opening == 0 else (Kind.ORDINARY, None)
    )
    access = _access(first, second, words, tokens) if kind is Kind.ORDINARY else Access.NONE
    reader = _Reader()
    if access is Access.READS:
        reader.read(tokens)
    return Statement(
        kind,
        savepoint,
        access,
        tokens[0][2],
        first == "copy",
        first in _DDL or (first in _READING and _has(tokens, "into")),
        frozenset(reader.calls),
        frozenset(reader.relations),
        reader.calls_own,
    )


def _control(
    first: str, second: str, words: list[str], tokens: list[_Token]
) -> tuple[Kind, Optional[str]]:
    if first == "savepoint":
        return Kind.SAVEPOINT, _last_name(tokens)
    if first == "release":
        return Kind.RELEASE, _last_name(tokens, "savepoint")
    if first == "rollback" and "to" in words[1:3]:
        return Kind.ROLLBACK_TO, _last_name(tokens, "work", "transaction", "to", "savepoint")
    if first in _ENDING or (first, second) in _ENDING_PAIRS:
        return Kind.ENDS, None
    if first in _APART and second != "constraints":  # SET CONSTRAINTS can run triggers
        return Kind.APART, None
    return Kind.ORDINARY, None


def _last_name(tokens: list[_Token], *skipped: str) -> Optional[str]:
    """Returns the name after the first word of a statement and the words `skipped`, or None.

    Returns None if the statement does not end with this name.
    """
    i = 1
    for word in skipped:
        if i + 1 < len(tokens) and tokens[i][:2] == (_WORD, word):
            i += 1
    if i != len(tokens) - 1 or tokens[i][0] not in (_WORD, _NAME):
        return None
    return _cut(tokens[i][1])


def _access(first: str, second: str, words: list[str], tokens: list[_Token]) -> Access:
    if first in _WRITING:
        return Access.WRITES
    if first in _READING:
        return (
            Access.WRITES if first == "with" and _has(tokens, *_WRITING_IN_WITH) else Access.READS
        )
    if first == "explain":
        if not _has(tokens, "analyze", "analyse"):
            return Access.NONE
        return Access.WRITES if _has(tokens, *_WRITING) else Access.READS
    if first in ("call", "do"):
        return Access.MAY_COMMIT
    if first == "refresh":
        return Access.SCHEMA
    if first not in _DDL or _has(tokens, "concurrently"):
        return Access.NONE
    if first != "create":
        return Access.NONE if second in _NOT_WATCHED else Access.SCHEMA
    if _CREATED.isdisjoint(words):
        return Access.NONE
    return Access.SCHEMA if _has(tokens, "as") else Access.CREATES


def _has(tokens: list[_Token], *words: str) -> bool:
    return any(what is _WORD and token in words for what, token, _ in tokens)


def _analyze(text: str) -> Analysis:
    try:
        tokens = _tokens(text)
    except _Uncertain:
        unknown = Statement(
            Kind.ORDINARY, None, Access.WRITES, 0, False, False, _NOTHING, _NOTHING, False
        )
        return Analysis((unknown,), is_certain=False)
    statements = [_statement(part) for part in _split(tokens)]
    if not statements:
        statements.append(
            Statement(Kind.ORDINARY, None, Access.NONE, 0, False, False, _NOTHING, _NOTHING, False)
        )
    return Analysis(tuple(statements))


def _split(tokens: list[_Token]) -> Iterator[list[_Token]]:
    """Yields the tokens of each statement.

    A semicolon in parentheses (in CREATE RULE), or in the body of an SQL function (BEGIN ATOMIC …
    END), does not end a statement.
    """
    begin = parentheses = body = 0
    previous = ""
    for i, (what, token, _) in enumerate(tokens):
        if what is _SIGN:
            if token == "(":
                parentheses += 1
            elif token == ")":
                parentheses = max(parentheses - 1, 0)
            elif token == ";" and not parentheses and not body:
                if i > begin:
                    yield tokens[begin:i]
                begin = i + 1
        elif what is _WORD:
            if body:
                body += (token == "case") - (token == "end")
            elif (
                token == "atomic" and previous == "begin" and tokens[begin][:2] == (_WORD, "create")
            ):
                body = 1
        previous = token
    if begin < len(tokens):
        yield tokens[begin:]


_analyze_and_remember = lru_cache(maxsize=_CACHED_TEXTS)(_analyze)
