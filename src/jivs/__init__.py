"""JiVS: verified extraction of data from systems that are being retired or replaced."""

__version__ = "0.1.0"
