"""Recipes for files of interactions and of sequences: who had to do with what, and nothing else."""
