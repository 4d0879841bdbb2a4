"""What a run's words need besides the package: data and models, looked for before anything is run.

`examine` looks at every role and model and goes on where one cannot be had, so that all problems
are known at once. Rows that are at hand are read: their number, the columns that templates name,
and whether each scorer can ask them. Nothing but lists of files, cards and indices is downloaded.
`obtain` downloads the rest.
"""

from ilubench.forecast.inventory.supplies import Inventory, Supply
from ilubench.forecast.inventory.survey import examine_needs, fetch_needs

__all__ = ["Inventory", "Supply", "examine_needs", "fetch_needs"]
