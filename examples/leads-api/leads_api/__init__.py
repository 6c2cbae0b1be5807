"""A small lead manager: FastAPI and SQLAlchemy, with lead_audit for its audit trail. See README.md."""
