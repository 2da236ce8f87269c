"""HTTP: one file per resource; every error leaves as problem details."""
