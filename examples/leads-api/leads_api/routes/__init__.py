"""HTTP: `api` speaks JSON, `pages` HTML. Both call the same repository and the same trail."""
