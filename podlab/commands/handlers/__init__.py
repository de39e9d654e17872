"""What verbs do: each a generator of events that returns an Outcome. Loaded when a verb is carried out."""
