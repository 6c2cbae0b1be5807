"""A lead manager without lead_audit: FastAPI, SQLAlchemy, a repository, and audit code of its own.

`own_audit.py` is that audit code. `with_lead_audit.py` replaces it. Nothing else differs, and
test_lead_manager.py runs the same requests on both.
"""
