#!/usr/bin/env python3
"""messages.py: compares docs/troubleshooting.md with the messages in src/ and sql/.

messages.py          prints the SQLSTATE and the text of each message in the sources, with "…" for
                     the variable parts
messages.py --check  prints the differences and returns exit code 1, if a message is missing on the
                     page, has another SQLSTATE on the page, or is not in the sources
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/troubleshooting.md"
# Messages of PostgreSQL itself. The page contains these messages because lead_audit can cause them.
FROM_POSTGRES = {
    'invalid value for parameter "lead_audit.…": …',
    'permission denied to set parameter "lead_audit.…"',
    "permission denied for schema lead_audit",
    'schema "lead_audit_internal" already exists',
    "cannot drop extension lead_audit because other objects depend on it",
    "could not find function … in file …",
    'could not open extension control file "…": No such file or directory',
}
CODES = {
    "conditions": {
        "feature_not_supported": "0A000",
        "insufficient_privilege": "42501",
        "undefined_column": "42703",
        "datatype_mismatch": "42804",
        "undefined_table": "42P01",
        "wrong_object_type": "42809",
        "object_not_in_prerequisite_state": "55000",
        "warning": "01000",
        "internal_error": "XX000",
        "object_in_use": "55006",
        "data_corrupted": "XX001",
        "config_file_error": "F0000",
        "no_data_found": "P0002",
        "invalid_parameter_value": "22023",
        "program_limit_exceeded": "54000",
        "out_of_memory": "53200",
        "invalid_column_reference": "42P10",
        "triggered_data_change_violation": "27000",
        "character_not_in_repertoire": "22021",
        "read_only_sql_transaction": "25006",
        "configuration_limit_exceeded": "53400",
        "e_r_i_e_trigger_protocol_violated": "39P01",
        "e_r_i_e_event_trigger_protocol_violated": "39P03",
        "successful_completion": "00000",
    },
    "levels": {
        "EXCEPTION": "P0001",
        "WARNING": "01000",
        "NOTICE": "00000",
        "warning": "01000",
        "notice": "00000",
        "log": "00000",
        "line": "00000",
    },
}
STRING = r'(?:format!\(\s*)?"((?:[^"\\]|\\(?s:.))*)"'
CODE = r"PgSqlErrorCode::ERRCODE_(\w+)"
RUST = [
    re.compile(rf"code: {CODE},\s*message:\s*{STRING}"),
    re.compile(rf"ErrorReport::new\(\s*{CODE},\s*{STRING}"),
    re.compile(rf"(?:refused|refusal)\(\s*{CODE},\s*{STRING}"),
    re.compile(r"pgrx::(log|warning|notice)!\(\s*" + STRING),
    re.compile(r"\b(notice)\(&?" + STRING),
    # Matches a line that the code writes to the server's log without pgrx.
    re.compile(r"write!\(\s*(line),\s*" + STRING),
]
# Regular expressions that match messages in calls of a function that raises an error. The sources
# show no SQLSTATE beside these messages.
RUST_WITHOUT_CODE = [
    re.compile(rf"wrong\({STRING}"),
    re.compile(rf"(?:Some\(size\)|None) => {STRING}\)?(?:\.to_owned\(\))?,"),
]
SQL = re.compile(r"RAISE (EXCEPTION|WARNING|NOTICE)\s+'((?:[^']|'')*)'([^;]*)", re.S)


def shape(text):
    """Returns the message in the form of the page, with one "…" for each run of variable parts."""
    return re.sub(r"\s+", " ", re.sub(r"…(?::?\s?…)*(?:: $)?", "…", text))


def of_rust(text):
    text = re.sub(r"\\\n\s*", "", text).replace('\\"', '"')
    return shape(re.sub(r"\{[^{}]*\}", "…", text))


def messages():
    found = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        source = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0]
        for pattern in RUST:
            for code, text in pattern.findall(source):
                state = CODES["levels"].get(code) or CODES["conditions"][code.lower()]
                found.setdefault(of_rust(text), set()).add(state)
        for pattern in RUST_WITHOUT_CODE:
            for text in pattern.findall(source):
                found.setdefault(of_rust(text), set())
    for path in sorted((ROOT / "sql").glob("[0-9]*.sql")):
        for level, text, rest in SQL.findall(path.read_text(encoding="utf-8")):
            condition = re.search(r"ERRCODE = '(\w+)'", rest)
            state = CODES["conditions"][condition[1]] if condition else CODES["levels"][level]
            found.setdefault(shape(text.replace("''", "'").replace("%", "…")), set()).add(state)
    found.pop("…", None)  # the code rethrows an error of PostgreSQL
    return found


def on_page():
    rows = re.findall(
        r"^\| (?:`([^|`]+)`|`` ([^|]+) ``) \| ([0-9A-Z, ]+) \|",
        PAGE.read_text(encoding="utf-8"),
        re.M,
    )
    return {shape(one or other): set(codes.split(", ")) for one, other, codes in rows}


def main():
    said = messages()
    if sys.argv[1:] != ["--check"]:
        for message, codes in sorted(said.items()):
            print(",".join(sorted(codes)) or "-----", message)
        return
    page = on_page()
    wrong = [
        f"not on the page: {message} ({', '.join(sorted(said[message]))})"
        for message in sorted(said.keys() - page.keys())
    ]
    wrong += [
        f"only on the page: {message}"
        for message in sorted(page.keys() - said.keys() - FROM_POSTGRES)
    ]
    wrong += [
        (
            f"{message}: {', '.join(sorted(said[message]))},"
            f" but {', '.join(sorted(page[message]))} on the page"
        )
        for message in sorted(said.keys() & page.keys())
        if said[message] and said[message] != page[message]
    ]
    if wrong:
        sys.exit("\n".join([f"{PAGE.relative_to(ROOT)} differs from the sources:", *wrong]))


if __name__ == "__main__":
    main()
