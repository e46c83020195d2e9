"""The view of an Example against protobuf's own parser, and against hostile bytes."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.pairs import Observation, Pair, PairFormat
from xjepa_jax.errors import ExampleError
from xjepa_jax.sensor_presets import PRESETS

FIXED = settings(max_examples=250, deadline=None, derandomize=True)
BYTES, FLOATS, INTEGERS = 1, 2, 3
GREY = PairFormat({"grey": PRESETS["grey"]}, {"grey": (2, 2)})
ZLIB = PairFormat({"grey": PRESETS["grey"]}, {"grey": (2, 2)}, "zlib")
SMALL_PAIR = Pair("p", {"grey": Observation(np.arange(1, 5, dtype=np.uint8).reshape(2, 2, 1))})

# --- an encoder of its own, which writes what protobuf's never would ------------------------------


def varint(value: int) -> bytes:
  out = bytearray()
  while True:
    value, low = value >> 7, value & 127
    out.append(low | (128 if value else 0))
    if not value:
      return bytes(out)


def field(number: int, content: bytes) -> bytes:
  return varint(number << 3 | 2) + varint(len(content)) + content


def unknown_field(lowest: int) -> st.SearchStrategy[bytes]:
  """A field that the message does not know, of any wire type."""
  number = st.integers(lowest, 2**29 - 1)
  return st.one_of(
    st.builds(lambda n, v: varint(n << 3) + varint(v), number, st.integers(0, 2**64 - 1)),
    st.builds(lambda n, v: varint(n << 3 | 1) + v, number, st.binary(min_size=8, max_size=8)),
    st.builds(field, number, st.binary(max_size=9)),
    st.builds(lambda n, v: varint(n << 3 | 5) + v, number, st.binary(min_size=4, max_size=4)),
  )


def with_unknown(
  fields: st.SearchStrategy[list[bytes]], lowest: int
) -> st.SearchStrategy[list[bytes]]:
  """The fields, in order, with unknown ones put between them."""

  def mix(known: list[bytes], unknown: list[tuple[int, bytes]]) -> list[bytes]:
    mixed = list(known)
    for place, extra in unknown:
      mixed.insert(place % (len(mixed) + 1), extra)
    return mixed

  extras = st.lists(st.tuples(st.integers(0, 9), unknown_field(lowest)), max_size=2)
  return st.builds(mix, fields, extras)


def message(fields: st.SearchStrategy[list[bytes]], lowest: int) -> st.SearchStrategy[bytes]:
  return st.builds(b"".join, with_unknown(fields, lowest))


byte_value = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))
float_value = st.binary(min_size=4, max_size=4)  # any bits: NaN and infinities among them
byte_list = message(st.lists(byte_value.map(lambda value: field(1, value)), max_size=3), 2)
float_list = message(
  st.lists(
    st.one_of(
      float_value.map(lambda value: varint(1 << 3 | 5) + value),  # unpacked
      st.lists(float_value, max_size=3).map(lambda values: field(1, b"".join(values))),  # packed
    ),
    max_size=2,
  ),
  2,
)
integer_list = message(
  st.lists(st.integers(0, 2**64 - 1).map(lambda value: varint(8) + varint(value)), max_size=3), 2
)


def feature_of(kind: int, content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
  """A feature in up to two pieces, which a parser has to join."""
  return message(st.lists(content.map(lambda c: field(kind, c)), max_size=2), 4)


feature = st.one_of(
  feature_of(BYTES, byte_list), feature_of(FLOATS, float_list), feature_of(INTEGERS, integer_list)
)
name = st.one_of(
  st.sampled_from(["a", "b", "sensors/s1/values"]),  # likely to occur twice
  st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
  st.integers(0, 300).map(lambda length: "k" * length),
)


@st.composite
def entry(draw: st.DrawFn) -> bytes:
  parts = [field(1, draw(name).encode()), field(2, draw(feature))]
  parts = draw(st.permutations(parts))
  if draw(st.integers(0, 9)) == 0:
    parts = parts[:1]  # the key or the value is left at its default
  return b"".join(parts)


features_message = message(st.lists(entry().map(lambda content: field(1, content)), max_size=5), 2)
serialised = message(
  st.lists(features_message.map(lambda content: field(1, content)), min_size=1, max_size=2), 2
)

# --- the oracle -----------------------------------------------------------------------------------


def outcome(call: Any, *args: Any) -> Any:
  """What a call returns, or the class of ours that it raises; any other class passes through."""
  try:
    found = call(*args)
  except ExampleError:
    return ExampleError
  return bytes(found) if isinstance(found, memoryview) else found


def text_of(value: bytes) -> Any:
  try:
    return value.decode()
  except UnicodeDecodeError:
    return ExampleError


def assert_agrees(view: ExampleView, raw: bytes, parsed: Any) -> None:
  """The view says of every feature what protobuf says, and refuses what it is not."""
  assert sorted(view.names()) == sorted(parsed.features.feature)
  for key, value in parsed.features.feature.items():
    kind = value.WhichOneof("kind")
    strings = list(value.bytes_list.value)
    floats = list(value.float_list.value)
    texts = [text_of(string) for string in strings]
    if kind in ("float_list", "int64_list"):
      assert outcome(view.bytes, key) is outcome(view.texts, key) is ExampleError
    else:
      one = len(strings) == 1
      assert outcome(view.bytes, key) == (strings[0] if one else ExampleError)
      assert outcome(view.text, key) == (texts[0] if one else ExampleError)
      assert outcome(view.texts, key) == (ExampleError if ExampleError in texts else tuple(texts))
      if one:
        start, stop = view.span(key)
        assert raw[start:stop] == strings[0]
    number = outcome(view.number, key)
    if kind == "float_list" and len(floats) == 1:
      assert struct.pack("<d", number) == struct.pack("<d", floats[0])
    else:
      assert number is ExampleError


@FIXED
@given(raw=serialised)
def test_the_view_agrees_with_protobuf_however_an_example_is_laid_out(raw: bytes) -> None:
  assert_agrees(ExampleView(raw), raw, tf_example_pb2.Example.FromString(raw))


@FIXED
@given(
  values=st.dictionaries(
    name, st.one_of(st.lists(byte_value, max_size=3), st.lists(st.floats(width=32), max_size=3))
  )
)
@example(values={"": [b""], "k" * 127: [b"x"], "l" * 128: [b"y" * 200], "m" * 300: [1.5]})
def test_the_view_agrees_with_protobuf_on_what_protobuf_writes(values: dict[str, Any]) -> None:
  parsed = tf_example_pb2.Example()
  for key, items in values.items():
    kind = "float_list" if items and isinstance(items[0], float) else "bytes_list"
    getattr(parsed.features.feature[key], kind).value.extend(items)
  raw = parsed.SerializeToString()
  assert_agrees(ExampleView(raw), raw, parsed)
  assert_agrees(ExampleView(np.frombuffer(raw, np.uint8)), raw, parsed)


def test_features_are_named_in_the_order_in_which_they_lie() -> None:
  order = ["sensors/s2/values", "crs", "a" * 200, "", "pair_id"]
  entries = [field(1, field(1, key.encode()) + field(2, field(1, field(1, b"v")))) for key in order]
  assert ExampleView(field(1, b"".join(entries))).names() == order


def test_of_a_key_that_occurs_twice_the_last_value_counts() -> None:
  def one(value: bytes) -> bytes:
    return field(1, field(1, b"k") + field(2, field(1, field(1, value))))

  raw = field(1, one(b"first") + one(b"last"))
  assert tf_example_pb2.Example.FromString(raw).features.feature["k"].bytes_list.value == [b"last"]
  assert ExampleView(raw).bytes("k") == b"last"
  twice = field(1, one(b"first")) + field(1, one(b"last"))  # `features` in two pieces
  assert ExampleView(twice).bytes("k") == b"last"


def test_an_unknown_field_within_an_entry_of_the_map_is_passed_over() -> None:
  # Not left to the oracle: protobuf's libraries differ here, one of them drops the whole entry.
  value = field(2, field(1, field(1, b"v")))
  for unknown in (varint(3 << 3) + b"\x07", field(9, b"abc"), varint(4 << 3 | 5) + bytes(4)):
    for content in (unknown + field(1, b"k") + value, field(1, b"k") + value + unknown):
      assert ExampleView(field(1, field(1, content))).bytes("k") == b"v"


def test_a_missing_feature_is_named_with_those_that_are_there() -> None:
  with pytest.raises(ExampleError, match=r"feature 'nothing' is missing; the record has \['grey"):
    ExampleView(field(1, field(1, field(1, b"grey") + field(2, b"")))).text("nothing")


@pytest.mark.parametrize(
  ("raw", "why"),
  [
    (varint(1 << 3) + b"\x05", "`features` that is a number"),
    (varint(1 << 3 | 1) + field(1, b"")[:2] + bytes(6), "`features` that is eight bytes"),
    (field(1, varint(1 << 3 | 5) + bytes(4)), "an entry of the map that is four bytes"),
    (field(1, field(1, b"\x08\x41")), "a key that is a number"),
    (field(1, field(1, field(1, b"k") + b"\x10\x05")), "a value that is a number"),
  ],
)
def test_a_known_field_of_another_wire_type_is_not_read_as_a_message(raw: bytes, why: str) -> None:
  with pytest.raises(ExampleError, match="unexpected field"):
    ExampleView(raw)


def test_a_list_that_is_a_number_is_not_read_as_a_message() -> None:
  # Read as a message, the number's own bytes say "field 1: one byte string, empty".
  feature_bytes = varint(BYTES << 3) + b"\x8a\x00"
  raw = field(1, field(1, field(1, b"k") + field(2, feature_bytes)))
  with pytest.raises(ExampleError, match="unexpected field 1 of wire type 0"):
    ExampleView(raw).texts("k")


def test_a_float_that_is_cut_into_two_packed_pieces_is_refused_as_protobuf_does() -> None:
  pieces = field(1, b"\x00") + field(1, b"\x00\x80\x3f")
  raw = field(1, field(1, field(1, b"k") + field(2, field(FLOATS, pieces))))
  with pytest.raises(DecodeError):
    tf_example_pb2.Example.FromString(raw)
  with pytest.raises(ExampleError, match=r"\[1, 3\] bytes, expected one of 4"):
    ExampleView(raw).number("k")


# --- hostile bytes --------------------------------------------------------------------------------


def read_everything(raw: bytes) -> None:
  """Asks for all that can be asked of a record; raises whatever is not an ExampleError."""
  for form in (GREY, ZLIB):
    outcome(form.decode, raw)
  view = outcome(ExampleView, raw)
  if isinstance(view, ExampleView):
    for key in view.names():
      for call in (view.span, view.bytes, view.text, view.texts, view.number):
        outcome(call, key)
    for form in (GREY, ZLIB):
      outcome(form.values, view, "grey")


@FIXED
@given(raw=st.binary(max_size=200))
@example(raw=b"")
@example(raw=b"\x0a" + b"\xff" * 9 + b"\x01")  # a length of 2**64 - 1
@example(raw=b"\x0a" + b"\x80" * 30)  # a length that does not end
@example(raw=b"\x80" * 30)
@example(raw=b"\x0b\x0c" * 20)  # groups, which protobuf 3 has no more
def test_random_bytes_raise_nothing_but_an_example_error(raw: bytes) -> None:
  read_everything(raw)


@pytest.mark.parametrize("form", [GREY, ZLIB], ids=["bytes", "zlib"])
def test_a_truncated_example_is_refused_at_every_length(form: PairFormat) -> None:
  raw = form.encode(SMALL_PAIR)
  for length in range(len(raw)):
    with pytest.raises(ExampleError):
      form.decode(raw[:length])
    read_everything(raw[:length])


@pytest.mark.parametrize("form", [GREY, ZLIB], ids=["bytes", "zlib"])
def test_any_flipped_bit_is_read_as_protobuf_reads_it_or_refused(form: PairFormat) -> None:
  raw = bytearray(form.encode(SMALL_PAIR))
  agreed = 0
  for bit in range(8 * len(raw)):
    raw[bit // 8] ^= 1 << bit % 8
    flipped = bytes(raw)
    read_everything(flipped)
    view = outcome(ExampleView, flipped)
    try:
      parsed = tf_example_pb2.Example.FromString(flipped)
    except DecodeError:
      parsed = None
    if isinstance(view, ExampleView) and parsed is not None:
      agreed += 1
      for key in set(parsed.features.feature) & set(view.names()):
        found = outcome(view.texts, key)
        if found is not ExampleError:
          strings = parsed.features.feature[key].bytes_list.value
          assert list(found) == [string.decode() for string in strings]
    raw[bit // 8] ^= 1 << bit % 8
  assert agreed > len(raw)  # most flips leave an Example, with another content


@pytest.mark.parametrize("size", [5, 1 << 20, 64 << 20])
def test_a_zlib_bomb_is_refused_without_the_memory_that_it_asks_for(size: int) -> None:
  deflater = zlib.compressobj(9)
  chunk = bytes(min(size, 1 << 20))
  bomb = b"".join(deflater.compress(chunk) for _ in range(size // len(chunk))) + deflater.flush()
  parsed = tf_example_pb2.Example.FromString(ZLIB.encode(SMALL_PAIR))
  parsed.features.feature["sensors/grey/values"].bytes_list.value[0] = bomb
  raw = parsed.SerializeToString()
  tracemalloc.start()
  try:
    with pytest.raises(ExampleError, match="'sensors/grey/values'"):
      ZLIB.decode(raw)
    assert tracemalloc.get_traced_memory()[1] < len(raw) + (1 << 20)
  finally:
    tracemalloc.stop()


def test_zlib_values_that_end_early_or_never_are_refused() -> None:
  parsed = tf_example_pb2.Example.FromString(ZLIB.encode(SMALL_PAIR))
  values = parsed.features.feature["sensors/grey/values"].bytes_list.value
  for content in (zlib.compress(bytes(3)), zlib.compress(bytes(4))[:-1], b"", b"\x78"):
    values[0] = content
    with pytest.raises(ExampleError, match="'sensors/grey/values'"):
      ZLIB.decode(parsed.SerializeToString())
