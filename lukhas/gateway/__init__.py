"""The governed call, step by step."""
