"""The vault: what maps people to the `sub_...` ids under which records know them."""
