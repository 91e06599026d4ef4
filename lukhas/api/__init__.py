"""The HTTP edge: OpenAI surface, control plane, problem answers."""
