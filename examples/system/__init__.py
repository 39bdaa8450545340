"""Files that survive being killed, locks on folders, and a description of the machine."""
