"""How fast and how right the search inside eligible sets is."""
