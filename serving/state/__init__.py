"""What the service remembers: events in PostgreSQL, and the histories they make."""
