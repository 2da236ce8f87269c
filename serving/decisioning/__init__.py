"""Decisioning: what a placement makes of a request, and of what was ranked for it."""
