"""What the core needs from outside. Each docstring is a promise that the conformance suites in ``jivs.testing`` test."""
