"""The database engines, the group-commit writer, the tables."""
