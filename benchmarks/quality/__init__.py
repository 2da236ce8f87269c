"""How good the answers are: what the households of Complete Journey really did next, asked of the running service."""
