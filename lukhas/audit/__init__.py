"""The audit log: record bytes, leaf hashes, redaction, store."""
