"""Feature flags: `is_enabled`."""

from lukhas.flags.snapshot import NAMED_FLAGS, FlagDoc, is_enabled, reload

__all__ = ["NAMED_FLAGS", "FlagDoc", "is_enabled", "reload"]
