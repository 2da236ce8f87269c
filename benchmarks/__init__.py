"""Benchmarks of the project's speed and quality, over HTTP and beside the tools a user would pick instead."""
