"""How fast and how steady the service is: under load, beside its peers, and strained."""
