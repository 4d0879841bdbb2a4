"""The records of strangers: their models, and reading them safely."""
