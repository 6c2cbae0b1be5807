"""A lead manager as somebody has it who never heard of lead_audit: FastAPI, SQLAlchemy, a repository, and audit code of its own.

`own_audit.py` is that audit code, `with_lead_audit.py` what stands in its place when it is thrown away. Nothing else differs:
test_lead_manager.py runs the same requests on both.
"""
