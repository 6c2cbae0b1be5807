"""The independent implementation of docs/FORMAT.md, in Python. See README.md."""

__version__ = "1.1.0"
