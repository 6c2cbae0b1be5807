"""Compares the cost of writes between audit systems. bench/compare.sh runs this package."""
