"""The errors of the application, which do not depend on HTTP."""

from __future__ import annotations

from leads_api.models import Lead


class LeadError(Exception):
    """An error whose message is shown to the user."""


class NoSuchLead(LeadError):
    def __init__(self, lead_id: str) -> None:
        super().__init__(f"There is no lead {lead_id}.")


class NoSuchEntry(LeadError):
    def __init__(self, lead_id: str, entry_id: int) -> None:
        super().__init__(f"The history of lead {lead_id} has no entry {entry_id}.")


class NotSealed(LeadError):
    def __init__(self, entry_id: int) -> None:
        super().__init__(f"Entry {entry_id} is not sealed yet. Ask again in a second or two.")


class Taken(LeadError):
    """Raised if another lead already has the value of a unique column.

    The audit trail contains an entry about the failed statement."""

    def __init__(self, column: str, detail: str | None) -> None:
        self.column = column
        self.detail = detail
        what = {"id": "id", "email": "e-mail address"}.get(column, column)
        super().__init__(f"Another lead has that {what} already.")


class Stale(LeadError):
    """Raised if another user has changed the lead since the user saw it."""

    def __init__(self, current: Lead) -> None:
        self.current = current
        who = current.updated_by or "someone"
        did = "deleted" if current.is_deleted else "changed"
        super().__init__(f"{who} {did} this lead after you opened it. Nothing of yours was saved.")


class WrongState(LeadError):
    """Raised if the user changes a deleted lead, or restores a lead that is not deleted."""


class BadFile(LeadError):
    """Raised if a CSV file cannot be imported. The error contains the invalid lines."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The file was not imported.")
