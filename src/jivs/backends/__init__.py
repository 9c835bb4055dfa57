"""Adapters behind the ports. Only ``bootstrap`` chooses among them."""
