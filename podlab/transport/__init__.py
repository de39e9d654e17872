"""How a command, a file and a port reach a pod."""
