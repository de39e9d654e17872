"""What a log's words mean, as tables: one file for each engine, and one for what all of them stand on."""
