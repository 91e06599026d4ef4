"""Recorded decisions, decided again: by the policy that decided them, and by a candidate."""
