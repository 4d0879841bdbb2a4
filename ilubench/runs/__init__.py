"""Jobs planned and carried out; a run's folder."""
