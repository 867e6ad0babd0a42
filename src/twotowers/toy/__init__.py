"""A small model that comes with the package: its data, its training, and its page."""
