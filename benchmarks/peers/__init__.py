"""Peers that do the service's job the usual ways, on the same server stack, and the floor under all of them."""

PEERS = ("implicit", "hnsw-postfilter", "hnswlib-callback", "flat-bitmap")
"""What a user would pick instead; each a module of this package."""
