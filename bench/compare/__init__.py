"""Compares the cost of writes to an audited table between audit systems. Run bench/compare.sh."""
