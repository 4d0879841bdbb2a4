"""Words resolved: a suite, a method and a run become one experiment."""
