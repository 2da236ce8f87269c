"""Rules: who may be shown what, where and when, as text, as a tree, in words and as masks; never run as Python."""
