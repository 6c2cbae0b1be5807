"""A small lead manager on FastAPI and SQLAlchemy. lead_audit writes its audit trail."""
