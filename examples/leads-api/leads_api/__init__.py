"""A small lead manager: FastAPI and SQLAlchemy, with lead_audit for its audit trail. README.md says what it shows."""
