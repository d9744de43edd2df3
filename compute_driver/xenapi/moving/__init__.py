"""Guests that change their size or their place."""
