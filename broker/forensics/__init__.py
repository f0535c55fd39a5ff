"""`lethe forensics`: plants markers through the public API, causes faults, and looks for what is left anywhere."""
