"""A lead manager with FastAPI, SQLAlchemy and a repository, in two versions.

One version has its own audit code (`own_audit.py`). The other has `with_lead_audit.py` in its
place. Nothing else differs. test_lead_manager.py runs the same requests on both.
"""
