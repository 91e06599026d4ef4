"""Databases: the engine, the group-commit writer, the tables and their migrations."""
