"""Alembic scripts: `versions` for the main database, `vault_versions` for the vault."""
