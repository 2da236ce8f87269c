"""How fast and how good: measured over HTTP and against what a user would pick instead."""
