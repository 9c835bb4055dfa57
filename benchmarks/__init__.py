"""Measuring JiVS side by side with others, in one run, on one machine: ``make bench``."""
