"""The application's side of lead_audit, the audit trail inside PostgreSQL."""
