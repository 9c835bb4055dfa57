"""Workers: a dispatcher, and processes that execute one run at a time; operations do the work."""
