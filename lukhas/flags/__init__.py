"""Feature flags: `is_enabled`."""
