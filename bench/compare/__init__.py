"""Compares the costs that several audit systems add to writes. bench/compare.sh runs this
package."""
