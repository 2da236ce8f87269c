"""Sources of candidates, and the features that the rankers read."""
