"""The database: one embedded or named by a URL, connections, and the schema."""
