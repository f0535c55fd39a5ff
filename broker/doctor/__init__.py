"""`lethe doctor`: says in words what is wrong with a machine, a configuration or a deployment, and how to mend it."""
