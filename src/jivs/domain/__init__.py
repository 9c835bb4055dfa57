"""The nouns of JiVS: frozen values without input or output."""
