"""faiss in the process: a quarter of the bytes and a hundredth of the time of the exact index.

Vectors are put into lists by their nearest centroid, and a query looks at the lists of its nearest
centroids (an inverted file: Jegou et al., 2011), `nprobe` of them. How many are needed for a recall
depends on the archive, so it is measured on it, within and across sensors. Small archives are
searched exactly.

faiss's fast scan of RaBitQ (`RaBitQfs7`) is not used: it answers a query alone no sooner, pads
every list, and faiss 1.13.2's gave hits that a filter does not let pass, without a word.
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
_TRAIN = 64  # vectors a list to place its centroid by; faiss warns below 39
_TRAIN_ALL = 50_000  # but at least so many: numbers outside the range seen are cut off
_ITERATIONS = 10  # of k-means; more gain less than a hundredth of recall
_ADD = 1 << 16  # rows read at a time
_REFINE = 160  # times k are ranked again at most
# What faiss makes of a kind. A random rotation first where a number gets few bits, for these assume
# that no axis is special.
_FACTORIES = {
  "rabitq7": "RR{size},IVF{lists},RaBitQ7",
  "sq8": "IVF{lists},SQ8",
  "rabitq": "RR{size},IVF{lists},RaBitQ,Refine(SQ8)",
}


@dataclasses.dataclass(frozen=True)
class FaissSettings:
  """Settings of a faiss index.

  Attributes:
    kind: "rabitq7": lists of vectors in 7 bits a number after a random rotation (extended RaBitQ:
      Gao et al., 2025), of which most are passed over by their first bits; "sq8": in 8 bits a
      number, as they are; "rabitq": one bit a number (Gao and Long, 2024), the best of them ranked
      again in 8 bits: more bytes, less time; "flat": all, exactly.
    recall: the share of the true ten best that is to be found, of rows of the archive as queries.
    found: what of it was found when the index was built, in the worst direction; set by the index.
    recalls: what was found in each direction: "all" without a filter, "a->b" of rows of sensor a
      with a filter to b; set by the index.
    lists: of the inverted file; 0: the power of two next to four times the square root of the rows.
    nprobe: lists that a query looks at without a filter, and the more the fewer rows pass one; 0:
      as few as reach `recall` in all directions.
    refine: of "rabitq": how many times k are ranked again; 0: as few as lose next to nothing, or
      160 where `nprobe` is given.
    flat_below: with fewer rows the kind is "flat".
    seed: of the centroids and of the rows that recall is measured with.
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
  """Vectors in a faiss index, and beside them the columns of filters.

  Attributes:
    columns: what filters look at, of every row.

  Args:
    settings: of the index.

  Raises:
    SearchIndexError: faiss is not installed, or the settings cannot work.
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
    """As JSON holds them; what was chosen by measuring is in them once built."""
    return dataclasses.asdict(self._settings)

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Makes it hold the rows of `files` and nothing else; see `Index.build`."""
    self._clear()
    self.add(files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`; the first ones decide on centroids and `nprobe`."""
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
    short = np.flatnonzero(rows[:, -1] < 0)
    if len(short) and nprobe < lists:
      scores[short], rows[short] = self._probe(vectors[short], among, Effort(lists, refine), mask)
    hits.rows[:, :among] = rows
    hits.scores[:, :among] = np.where(rows < 0, -np.inf, scores)
    return hits

  def save(self, directory: str) -> None:
    """Writes faiss's file and the columns of filters."""
    self._faiss.write_index(self._index, os.path.join(directory, _INDEX))
    self.columns.write(os.path.join(directory, _ROWS))

  def load(self, directory: str) -> None:
    """Reads what `save` wrote."""
    self._index = self._faiss.read_index(os.path.join(directory, _INDEX))
    self.columns = FilterColumns.read(os.path.join(directory, _ROWS))
    self.dimensions = self._index.d
    self.sensors = self.columns.sensors()

  def close(self) -> None:
    """Forgets its vectors."""
    self._clear()

  def _prepare(self, files: EmbeddingFiles) -> None:
    """An empty index of the kind that suits so many rows, trained on some of them."""
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
    """Decides how many lists a query looks at and how many of their rows are ranked again."""
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
    """(Q, k) scores and rows, -1 where so many lists held fewer; `mask` (N,) which may be hits."""
    faiss, kind = self._faiss, self._settings.kind
    bits = None if mask is None else np.packbits(mask, bitorder="little")
    chosen = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
    if kind == "flat":
      params = faiss.SearchParameters(**chosen)
    else:
      params = faiss.SearchParametersIVF(nprobe=effort.nprobe, **chosen)
    if kind in ("rabitq7", "rabitq"):
      params = faiss.SearchParametersPreTransform(index_params=params)
    if kind == "rabitq":
      params = faiss.IndexRefineSearchParameters(k_factor=effort.refine, base_index_params=params)
    scores, rows = self._index.search(vectors, k, params=params)
    return scores, rows


@functools.cache
def import_faiss() -> Any:
  """The package.

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
