"""The HTTP routes: `api` for JSON and `pages` for HTML."""
