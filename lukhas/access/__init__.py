"""Who may call: keys, tenants, scopes."""
