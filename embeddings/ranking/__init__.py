"""Where candidates come from, and what the rankers read of them."""
