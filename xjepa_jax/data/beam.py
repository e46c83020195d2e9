"""Runs independent pieces of work on many machines in an Apache Beam pipeline; optional.

Install with `pip install xjepa_jax[beam]` in an environment of its own, because Beam restricts
protobuf and pyarrow to older versions.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from xjepa_jax.errors import OptionError, WriteError


def run_pieces(work: Callable[[Any], None], pieces: Sequence[Any], options: str) -> None:
  """Process every piece, in any order and at least once.

  Args:
    work: function of one piece; can be pickled. It may run twice on a piece, even on two machines
      at once, and writes to a directory that all machines see.
    pieces: pieces of work; can be pickled.
    options: Beam's options, such as "--runner=DirectRunner --direct_num_workers=2".

  Raises:
    OptionError: Beam is not installed, or does not know an option.
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
  except Exception as error:  # an error of `work`, in a wrapper that depends on the runner
    raise WriteError(
      f"--beam: a piece of work failed ({type(error).__name__}: {str(error)[-600:]}). What was "
      "finished is kept; the same command continues (an import's with --resume)."
    ) from error
