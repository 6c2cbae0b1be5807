"""HTTP: `api` for JSON, `pages` for HTML. Both use the same repository and trail."""
