"""For tests, of JiVS and of packages that add to it: conformance suites per port, fakes that are real classes, servers."""
