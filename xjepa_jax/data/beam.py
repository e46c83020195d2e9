"""Independent pieces of work on many machines: an Apache Beam pipeline, for those who ask for it.

`pip install xjepa_jax[beam]`, in an environment of its own: Beam holds protobuf and pyarrow back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from xjepa_jax.errors import OptionError, WriteError


def run_pieces(work: Callable[[Any], None], pieces: Sequence[Any], options: str) -> None:
  """Does the work of every piece, in any order and at least once.

  Args:
    work: of one piece, which may be done again, and by two machines at once; can be pickled. What
      it writes goes to a directory that all machines see.
    pieces: can be pickled.
    options: Beam's, such as "--runner=DirectRunner --direct_num_workers=2".

  Raises:
    OptionError: Beam is not there, or does not know an option.
    WriteError: a piece failed.
  """
  try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise OptionError(
      f"--beam: Apache Beam cannot be imported ({error}). Install it with "
      "`pip install xjepa_jax[beam]` in an environment of its own, or leave --beam out."
    ) from error
  try:
    pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
  except (ValueError, SystemExit) as error:
    raise OptionError(f"--beam {options!r}: {error}") from error
  pipeline | beam.Create(list(pieces)) | beam.Reshuffle() | beam.Map(work)
  try:
    pipeline.run().wait_until_finish()
  except Exception as error:  # of the work, wrapped by whatever ran it
    raise WriteError(
      f"--beam: a piece of work failed ({type(error).__name__}: {str(error)[-600:]}). What was "
      "finished is kept; the same command continues (an import's with --resume)."
    ) from error
