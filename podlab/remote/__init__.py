"""What runs on the pod: one standard-library file each, sent over the transport, never imported here."""
