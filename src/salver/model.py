"""The contract a user's own model fulfils."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal


class Model:
    """Subclass this to release any Python as a model.

    `load` is called once in each worker with the folder of the release's model files. `predict` gets `rows`: a mapping
    from column name to a numpy array with one entry per row (or a pandas DataFrame with `rows_as = "dataframe"`), and
    returns one entry per row: an array, a mapping of columns, or a DataFrame. `preprocess` and `postprocess` may be
    defined too; they wrap `predict` and travel in the same release. A `predict` that yields such answers streams them;
    who asks for a whole answer gets the texts put together, and of everything else the last.
    """

    rows_as: ClassVar[Literal["columns", "dataframe"]] = "columns"

    def load(self, files: Path) -> None:
        """Load the model's files; called once, before the first `predict`."""

    def predict(self, rows: Any) -> Any:
        """Return one output per row of `rows`."""
        raise NotImplementedError
