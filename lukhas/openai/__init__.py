"""The model side: wire forms, capabilities, tools, upstream."""
