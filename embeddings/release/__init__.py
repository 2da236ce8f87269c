"""A release on disk: its bundle, its encoders and the store that holds it."""
