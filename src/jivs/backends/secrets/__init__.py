"""Where secrets are kept and made."""
