"""Reads leads from a CSV file for the import, which imports all lines of the file or none."""

from __future__ import annotations

import csv
import io

from pydantic import ValidationError

from leads_api.errors import BadFile
from leads_api.schemas import LeadDraft

MAX_BYTES = 5_000_000
MAX_LEADS = 10_000
MAX_PROBLEMS = 20
COLUMNS = tuple(LeadDraft.model_fields)


def read_leads(content: bytes) -> list[LeadDraft]:
    """Returns the leads in the file, or raises BadFile, which names each invalid line."""
    if len(content) > MAX_BYTES:
        raise BadFile([f"The file is larger than {MAX_BYTES // 1_000_000} MB."])
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        unknown = [name for name in reader.fieldnames or () if name not in COLUMNS]
        if unknown or not reader.fieldnames:
            raise BadFile([f"The first line must name columns out of: {', '.join(COLUMNS)}."])
        leads, problems = _read(reader)
    except UnicodeDecodeError as error:
        raise BadFile(["The file is not in UTF-8."]) from error
    except csv.Error as error:
        raise BadFile([f"This is not a CSV file: {error}."]) from error
    if problems:
        raise BadFile(problems)
    if not leads:
        raise BadFile(["The file has no leads."])
    return leads


def _read(reader: csv.DictReader[str]) -> tuple[list[LeadDraft], list[str]]:
    leads: list[LeadDraft] = []
    problems: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for row in reader:
        line = reader.line_num
        if len(leads) >= MAX_LEADS:
            return leads, [*problems, f"The file has more than {MAX_LEADS} leads."]
        if len(problems) >= MAX_PROBLEMS:
            return leads, [*problems, "There may be more."]
        if None in row or None in row.values():
            problems.append(f"Line {line}: not as many fields as in the first line")
            continue
        try:
            lead = LeadDraft.model_validate(
                {name: value for name, value in row.items() if value.strip()}
            )
        except ValidationError as error:
            problems += [
                (
                    f"Line {line}, {'.'.join(map(str, e['loc']))}:"
                    f" {e['msg'].removeprefix('Value error, ')}"
                )
                for e in error.errors()
            ]
            continue
        for column, value in (("id", lead.id), ("email", lead.email and lead.email.lower())):
            if value and (first := seen.setdefault((column, value), line)) != line:
                problems.append(f"Line {line}, {column}: the same as in line {first}")
        leads.append(lead)
    return leads, problems
