"""The service, measured."""
