"""The audit log: record bytes, redaction, the Merkle tree and the store."""
