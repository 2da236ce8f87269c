"""Brings input tables into the database."""
