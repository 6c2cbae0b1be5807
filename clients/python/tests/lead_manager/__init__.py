"""A lead manager with FastAPI, SQLAlchemy and a repository, in two versions.

One version has its own audit code (`own_audit.py`). The other version has `with_lead_audit.py`
instead. Nothing else differs. test_lead_manager.py sends the same requests to both.
"""
