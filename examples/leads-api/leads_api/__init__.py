"""A small lead manager on FastAPI and SQLAlchemy, whose audit trail lead_audit writes."""
