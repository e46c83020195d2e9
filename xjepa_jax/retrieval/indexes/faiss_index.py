"""faiss in this process: a quarter of the memory and a hundredth of the time of the exact index.

Vectors are assigned to the list of their nearest centroid, and a query probes the lists of its
`nprobe` nearest centroids (an inverted file: Jegou et al., 2011). The number of lists that a given
recall needs depends on the archive, so it is measured on the archive, within and across sensors.
Small archives are searched exactly. faiss's fast scan of RaBitQ (`RaBitQfs7`) is not used: a single
query takes as long, every list is padded, and in faiss 1.13.2 it silently returned hits that the
filter excludes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors
from xjepa_jax.retrieval.indexes.base import Filter, Hits, check_query
from xjepa_jax.retrieval.indexes.filters import FilterColumns
from xjepa_jax.retrieval.indexes.probing import Effort, least_effort, lists_looked_at

_INDEX = "vectors.faiss"
_ROWS = "rows.parquet"
_TRAIN = 64  # training vectors per list for the centroids; faiss warns below 39
_TRAIN_ALL = 50_000  # minimum in total, because values outside the range seen are clipped
_ITERATIONS = 10  # of k-means; more iterations improve the recall by less than a hundredth
_ADD = 1 << 16  # rows read at a time
_REFINE = 160  # largest multiple of k that is re-ranked
# faiss factory strings. Kinds with few bits per number are preceded by a random rotation, because
# they assume that no axis is special.
_FACTORIES = {
  "rabitq7": "RR{size},IVF{lists},RaBitQ7",
  "sq8": "IVF{lists},SQ8",
  "rabitq": "RR{size},IVF{lists},RaBitQ,Refine(SQ8)",
}


@dataclasses.dataclass(frozen=True)
class FaissSettings:
  """Settings of a faiss index.

  Attributes:
    kind: "rabitq7": inverted lists with 7 bits per number after a random rotation (extended RaBitQ:
      Gao et al., 2025), most vectors being rejected by their first bits; "sq8": 8 bits per number,
      without a rotation; "rabitq": one bit per number (Gao and Long, 2024), with the best re-ranked
      in 8 bits, which takes more memory and less time; "flat": all vectors, exactly.
    recall: fraction of the true ten best to be found, with rows of the archive as queries.
    found: the recall measured when the index was built, in the worst direction; set by the index.
    recalls: recall measured in each direction: "all" without a filter, "a->b" for rows of sensor a
      with a filter to b; set by the index.
    lists: number of inverted lists; 0: the power of two nearest to four times the square root of
      the number of rows.
    nprobe: lists that a query probes without a filter; more are probed the fewer rows pass a
      filter. 0: as few as reach `recall` in all directions.
    refine: for "rabitq", multiple of k that is re-ranked; 0: as little as loses next to nothing, or
      160 if `nprobe` is given.
    flat_below: with fewer rows than this the kind is "flat".
    seed: random seed of the centroids and of the rows with which recall is measured.
  """

  kind: str = "rabitq7"
  recall: float = 0.98
  found: float = 0.0
  recalls: Mapping[str, float] = dataclasses.field(default_factory=dict)
  lists: int = 0
  nprobe: int = 0
  refine: int = 0
  flat_below: int = 20_000
  seed: int = 0


PRESETS = {
  "rabitq7": FaissSettings(),
  "sq8": FaissSettings(kind="sq8"),
  "rabitq": FaissSettings(kind="rabitq"),
  "flat": FaissSettings(kind="flat"),
}


class FaissIndex:
  """Vectors in a faiss index, with the filter columns beside them.

  Attributes:
    columns: the columns that filters use, for every row.

  Args:
    settings: settings of the index.

  Raises:
    SearchIndexError: faiss is not installed, or the settings are invalid.
  """

  backend = "faiss"

  def __init__(self, settings: FaissSettings = PRESETS["rabitq7"]):
    if settings.kind not in PRESETS or not 0 < settings.recall <= 1:
      raise SearchIndexError(
        f"faiss kind {settings.kind!r}, recall {settings.recall}: expected one of "
        f"{', '.join(PRESETS)}, and a recall above 0 and at most 1."
      )
    self._faiss = import_faiss()
    self._settings = settings
    self._clear()

  def _clear(self) -> None:
    self.dimensions = 0
    self.sensors: tuple[str, ...] = ()
    self._index: Any = None
    self.columns = FilterColumns()

  def __len__(self) -> int:
    return len(self.columns)

  def settings(self) -> Mapping[str, Any]:
    """Settings as JSON types; once built, they include those that were chosen by measurement."""
    return dataclasses.asdict(self._settings)

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Replaces the contents with the rows of `files`; see `Index.build`."""
    self._clear()
    self.add(files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`; the first ones determine the centroids and `nprobe`."""
    first = self._index is None
    if first:
      self.dimensions = files.description.dimensions
      self._prepare(files)
    for table in files.tables(_ADD, columns=["embedding"]):
      self._index.add(table_vectors(table))
    self.columns = self.columns.with_rows_of(files)
    self.sensors = tuple(sorted({*self.sensors, *files.description.sensors}))
    if first and self._settings.kind != "flat":
      self._measure(files)

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter; see `Index.search`."""
    vectors = check_query(self, vectors, k, filter)
    hits = Hits.none(len(vectors), k)
    mask = self.columns.mask(filter)
    passing = len(self) if mask is None else int(np.count_nonzero(mask))
    among = min(k, passing)
    if not among or not len(vectors):
      return hits
    lists, refine = self._settings.lists, self._settings.refine
    nprobe = lists_looked_at(self._settings.nprobe, lists, passing / len(self))
    scores, rows = self._probe(vectors, among, Effort(nprobe, refine), mask)
    # Where the probed lists had too few rows that pass the filter, probe all lists.
    short = np.flatnonzero(rows[:, -1] < 0)
    if len(short) and nprobe < lists:
      scores[short], rows[short] = self._probe(vectors[short], among, Effort(lists, refine), mask)
    hits.rows[:, :among] = rows
    hits.scores[:, :among] = np.where(rows < 0, -np.inf, scores)
    return hits

  def save(self, directory: str) -> None:
    """Writes faiss's file and the filter columns."""
    self._faiss.write_index(self._index, os.path.join(directory, _INDEX))
    self.columns.write(os.path.join(directory, _ROWS))

  def load(self, directory: str) -> None:
    """Reads what `save` wrote."""
    self._index = self._faiss.read_index(os.path.join(directory, _INDEX))
    self.columns = FilterColumns.read(os.path.join(directory, _ROWS))
    self.dimensions = self._index.d
    self.sensors = self.columns.sensors()

  def close(self) -> None:
    """Drops the vectors."""
    self._clear()

  def _prepare(self, files: EmbeddingFiles) -> None:
    """Makes an empty index of the kind that suits the number of rows, and trains it on a sample."""
    settings, count = self._settings, len(files)
    if settings.kind == "flat" or count < settings.flat_below:
      self._settings = dataclasses.replace(settings, kind="flat", lists=0, nprobe=0)
      self._index = self._faiss.IndexFlatIP(self.dimensions)
      return
    lists = min(settings.lists or 1 << round(np.log2(4 * count**0.5)), count)
    self._settings = dataclasses.replace(settings, lists=lists)
    factory = _FACTORIES[settings.kind].format(size=self.dimensions, lists=lists)
    self._index = self._faiss.index_factory(
      self.dimensions, factory, self._faiss.METRIC_INNER_PRODUCT
    )
    inverted = self._faiss.extract_index_ivf(self._index)
    inverted.cp.niter, inverted.cp.seed = _ITERATIONS, settings.seed
    inverted.cp.max_points_per_centroid = _TRAIN
    rng = np.random.default_rng(settings.seed)
    some = min(count, max(_TRAIN * lists, _TRAIN_ALL))
    chosen = np.sort(rng.choice(count, some, replace=False))
    self._index.train(files.vectors_of(chosen))

  def _measure(self, files: EmbeddingFiles) -> None:
    """Chooses the number of lists that a query probes, and the number of rows to re-rank."""
    settings = self._settings
    refine = (settings.refine or _REFINE) if settings.kind == "rabitq" else 1
    if settings.nprobe:
      self._settings = dataclasses.replace(settings, refine=refine)
      return
    most = Effort(settings.lists, refine)
    effort, found = least_effort(files, self.columns.by_sensor(), self._probe, most, settings)
    recalls = {name: round(recall, 4) for name, recall in found.items()}
    self._settings = dataclasses.replace(
      settings,
      nprobe=effort.nprobe,
      refine=effort.refine,
      found=min(recalls.values()),
      recalls=recalls,
    )

  def _probe(
    self, vectors: np.ndarray, k: int, effort: Effort, mask: np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) scores and rows, -1 where the lists held fewer; `mask` (N,) has the allowed rows."""
    faiss, kind = self._faiss, self._settings.kind
    # faiss's bitmap selector numbers the bits of a byte from the lowest.
    bits = None if mask is None else np.packbits(mask, bitorder="little")
    chosen = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
    if kind == "flat":
      params = faiss.SearchParameters(**chosen)
    else:
      params = faiss.SearchParametersIVF(nprobe=effort.nprobe, **chosen)
    # Search parameters are nested like the index: re-ranking, rotation, lists.
    if kind in ("rabitq7", "rabitq"):
      params = faiss.SearchParametersPreTransform(index_params=params)
    if kind == "rabitq":
      params = faiss.IndexRefineSearchParameters(k_factor=effort.refine, base_index_params=params)
    scores, rows = self._index.search(vectors, k, params=params)
    return scores, rows


@functools.cache
def import_faiss() -> Any:
  """The faiss module.

  Raises:
    SearchIndexError: it is not installed.
  """
  try:
    import faiss
  except ImportError as error:
    raise SearchIndexError(
      f"the back end faiss needs the package faiss-cpu ({error}): pip install 'xjepa-jax[search]'."
    ) from error
  return faiss
