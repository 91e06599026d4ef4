"""Moderation: what a text holds that may not pass, found in whole texts and in streams."""
