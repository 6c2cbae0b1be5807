"""A lead manager with FastAPI, SQLAlchemy and a repository, in two versions.

The first version has its own audit code (`own_audit.py`), and the second version has
`with_lead_audit.py` instead. All other code of the two versions is the same. test_lead_manager.py
sends the same requests to the two versions.
"""
