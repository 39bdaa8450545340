"""The systems that the paper builds on, from the library's parts."""
