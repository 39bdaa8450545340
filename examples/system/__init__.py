"""Files that survive being killed, and the machine."""
