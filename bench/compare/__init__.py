"""Compares the cost of writes to an audited table between audit systems. bench/compare.sh runs it."""
