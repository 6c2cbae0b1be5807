"""The independent implementation of docs/FORMAT.md in Python, which README.md describes."""

__version__ = "1.1.0"
