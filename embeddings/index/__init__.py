"""Search for the nearest catalogue rows inside an eligible set: one contract, an oracle, and FAISS."""
