"""Files that survive being killed, and a description of the machine."""
