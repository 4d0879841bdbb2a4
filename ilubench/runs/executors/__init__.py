"""How planned jobs are carried out."""
