"""Writes to an audited table, measured beside other ways to audit it. bench/compare.sh starts it."""
