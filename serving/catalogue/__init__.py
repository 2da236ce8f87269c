"""The live catalogue: changes that the database tells, brought into the view that answers."""
