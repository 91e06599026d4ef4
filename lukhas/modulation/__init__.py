"""Signals in, one bounded and explained decision out."""
