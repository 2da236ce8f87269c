"""Training on files of interactions and of sequences, which name customers and products and nothing else."""
