"""Subject identities: outside ids to `sub_` ids."""
