"""The verifier: what finds any change of the log, in an export file or in the database."""
