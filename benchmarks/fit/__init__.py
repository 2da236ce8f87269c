"""How fast models are fitted, and how soon they are any good, beside implicit's ALS."""
