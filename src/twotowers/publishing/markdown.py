"""Markdown: tables, and texts from outside made harmless."""

from __future__ import annotations


def escape(word: str) -> str:
    """A token that Markdown and HTML leave as it is: all but letters, digits and the space sign as an entity."""
    return "".join(c if c.isalnum() or c == "␣" else f"&#{ord(c)};" for c in word)
