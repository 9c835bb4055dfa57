"""The REST API: routes, one file per noun, and nothing else; operations do the work."""
