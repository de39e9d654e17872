"""The background process that keeps connections, tunnels and streams while kernels come and go."""
