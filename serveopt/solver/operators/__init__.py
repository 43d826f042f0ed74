"""Operators of a model step: what they are (descriptions) and what they cost (one file per kind)."""
