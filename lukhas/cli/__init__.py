"""The `lukhas` command, one file per command group."""
