"""The built-in sensors: one file each, and what they look at."""
