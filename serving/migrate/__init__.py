"""The command that migrates the database of a service."""
