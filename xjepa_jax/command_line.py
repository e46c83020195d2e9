"""The main program's command line; every error in it becomes one paragraph.

Left alone, absl and ml_collections print usages and stack traces, and raise KeyError or
AttributeError for an unknown key.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from absl import flags
from ml_collections import ConfigDict, config_dict

from xjepa_jax.config import HeadConfig, default_config, describe_keys, to_dict
from xjepa_jax.errors import ConfigError, did_you_mean
from xjepa_jax.paths import user_path

_OWN = ("heads.", "objective.")  # groups whose entries a config file names itself
_STACK = "Traceback (most recent call last)"


def parse(argv: Sequence[str], name: str = "config") -> list[str]:
  """Parse all flags; return the remaining arguments, the program's name first.

  Args:
    argv: the program's name and the arguments.
    name: name of the flag with the config file, defined by `config_flags.DEFINE_config_file`.

  Raises:
    ConfigError: a flag or a key is unknown, a value has the wrong type, or the config file does not
      exist or cannot be run.
  """
  argv = [_expanded(argument, name) for argument in argv]
  _complete_when_read(name)
  path = config_file(argv, name)
  if path and not os.path.isfile(path):
    raise ConfigError(f"--{name}={path}: there is no such file. Name a file of configs/.")
  try:
    rest: list[str] = flags.FLAGS(argv)
    config = flags.FLAGS[name].value
  except Exception as error:  # includes anything that the config file itself raises
    raise ConfigError(_told(error, argv, path, name)) from error
  if path and not isinstance(config, ConfigDict):
    raise ConfigError(
      f"{path}: get_config() returned {type(config).__name__}; expected the ConfigDict that "
      "xjepa_jax.config.default_config() gives, with what the experiment changes."
    )
  return rest


def complete(config: ConfigDict) -> None:
  """Add every possible option to the config's entries of heads and objective.

  ml_collections lets the command line change only keys that exist, but a config lists only the
  options of a head or a term that it changes. Heads are filled with their defaults. Terms are
  filled with None, which `resolve` drops, for the options of all terms, because the command line
  may also change which term an entry names.
  """
  from xjepa_jax.objective.table import TERMS  # imports JAX, for which --help should not wait

  options = {
    name: typing.get_origin(hint) or hint
    for term in TERMS.values()
    for name, hint in typing.get_type_hints(term).items()
    if typing.get_origin(hint) is not ClassVar
  }
  with config.unlocked():
    for entry in _entries(config, "heads"):
      entry.update({k: v for k, v in to_dict(HeadConfig()).items() if k not in entry})
    for entry in _entries(config, "objective"):
      missing = {k: kind for k, kind in {"term": str, **options}.items() if k not in entry}
      entry.update({k: config_dict.placeholder(kind) for k, kind in missing.items()})


def _entries(config: ConfigDict, group: str) -> list[ConfigDict]:
  found = config.get(group)
  entries = found.values() if isinstance(found, ConfigDict) else ()
  return [entry for entry in entries if isinstance(entry, ConfigDict)]


def _complete_when_read(name: str) -> None:
  """Make the flag's parser complete the config file's result before single keys are set."""
  parser = flags.FLAGS[name].parser
  if not isinstance(parser, _CompletingParser):
    flags.FLAGS[name].parser = _CompletingParser(parser)


class _CompletingParser(flags.ArgumentParser):
  """The parser of ml_collections 1.1, followed by `complete`."""

  def __init__(self, parser: Any):
    self.parser = parser

  def parse(self, argument: str) -> Any:
    config = self.parser.parse(argument)
    if isinstance(config, ConfigDict):
      complete(config)
    return config

  def flag_type(self) -> str:
    return str(self.parser.flag_type())


def config_file(argv: Sequence[str], name: str = "config") -> str:
  """The path of the config file, without its preset; "" if the flag is absent."""
  return value_of(argv, name).partition(":")[0]


def value_of(argv: Sequence[str], name: str) -> str:
  """The value of a flag in arguments that are not parsed, or cannot be; "" if it has none."""
  found = ""
  for number, argument in enumerate(argv):
    flag, equals, value = argument.partition("=")
    if flag in (f"-{name}", f"--{name}"):
      found = value if equals else "".join(argv[number + 1 : number + 2])
  return found


def _expanded(argument: str, name: str) -> str:
  """Expand `~` in the argument with the config file, which absl's flag would not do."""
  flag, equals, path = argument.partition("=")
  if flag not in (f"-{name}", f"--{name}") or not equals:
    return argument
  return f"{flag}={user_path(path)}"


def _told(error: Exception, argv: Sequence[str], path: str, name: str) -> str:
  if not path and any(re.match(rf"--?(no)?{name}\.", argument) for argument in argv):
    return f"keys are given and no --{name}; for example --{name}=configs/optical_sar.py."
  # ml_collections raises these for an unknown key, without naming the nearest one.
  if isinstance(error, KeyError | AttributeError) and (unknown := _unknown_key(argv, name)):
    return unknown
  text = str(error)
  if isinstance(error, flags.Error) and _STACK not in text:
    match = re.match(rf"flag --{name}\.([^=]+)=(.*?): ", text, re.DOTALL)
    return _wrong_type(match[1], match[2]) if match else f"{' '.join(text.split())}; see --help."
  return _in_file(error, path)


def _unknown_key(argv: Sequence[str], name: str) -> str:
  """Name the unknown key on the command line, and the nearest known one; "" if all are known."""
  defaults = default_config()
  complete(defaults)
  known = list(_keys(defaults))
  given = [match[1] for each in argv if (match := re.match(rf"--?{name}\.([^=]+)", each))]
  # Names of heads and terms are defined by the config file, so they are reported last.
  unknown = sorted((key for key in given if key not in known), key=lambda key: key.startswith(_OWN))
  if not unknown:
    return ""
  hint = did_you_mean(unknown[0], known)
  return f"config key {unknown[0]!r} is unknown.{hint} `--plan` lists all keys."


def _wrong_type(key: str, value: str) -> str:
  described = {known: (default, meaning) for known, default, meaning in describe_keys()}
  if key not in described:
    return f"config key {key!r} is {value!r}; expected another type, such as the file gives it."
  default, meaning = described[key]
  return f"config key {key!r} is {value!r}; expected {type(default).__name__}: {meaning}."


def _keys(group: Mapping[str, Any], where: str = "") -> Iterator[str]:
  for key, value in group.items():
    yield f"{where}{key}"
    if isinstance(value, ConfigDict):
      yield from _keys(value, f"{where}{key}.")


def _in_file(error: Exception, path: str) -> str:
  """Describe an error in the config file: what was raised, and at which line."""
  kind, text = type(error).__name__, str(error)
  lines = [int(line) for line in re.findall(rf'File "[^"]*{re.escape(path)}", line (\d+)', text)]
  if _STACK in text:  # ml_collections includes the stack trace in the message
    raised = re.split(r"\n(?=\w)", text.rpartition(_STACK)[2], maxsplit=1)[-1]
    kind, _, text = raised.partition(": ")
  trace = error.__traceback__
  while trace is not None:
    if trace.tb_frame.f_code.co_filename.endswith(path):
      lines.append(trace.tb_lineno)
    trace = trace.tb_next
  if isinstance(error, SyntaxError):
    lines = [error.lineno or 0]
  where = f"{path}, line {lines[-1]}" if lines else path
  return f"{where}: {kind.rpartition('.')[2]}: {' '.join(text.split())}"
