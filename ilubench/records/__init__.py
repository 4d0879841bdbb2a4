"""What remains of a run: keys, artifacts, records, samples; read and written without torch."""
