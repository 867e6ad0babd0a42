"""Bringing runs up to date, and building the site from them."""
