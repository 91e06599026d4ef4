"""Access: API keys, tenants and scopes."""
