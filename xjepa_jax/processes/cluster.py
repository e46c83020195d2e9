"""Joining several processes into one run, as described by flags or by the launching environment.

Sources, in order of precedence: `--coordinator`, `--processes`, `--process`;
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (or a Kubernetes Job's
JOB_COMPLETION_INDEX); Slurm; Open MPI; Cloud TPU, of a VM or of GKE. Without any of them the
process runs alone, and no service is started.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from xjepa_jax.errors import ConfigError, LostError
from xjepa_jax.processes import lost_processes

# Newer Cloud TPU images block 8482, JAX's own default.
PORT = 8476
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_SHUTDOWN_SECONDS = 60  # how long processes wait for each other to disconnect


@dataclasses.dataclass(frozen=True)
class Asked:
  """The arguments of `jax.distributed.initialize`; JAX finds out what is None.

  Attributes:
    coordinator: host and port of process 0.
    processes: number of processes.
    process: number of this process, from 0.
    method: JAX's cluster detection method; "deactivate" turns detection off.
    by: the source of these values, for error messages.
  """

  coordinator: str | None
  processes: int | None
  process: int | None
  method: str | None
  by: str


def asked(
  coordinator: str = "",
  processes: int | None = None,
  process: int | None = None,
  environment: Mapping[str, str] = os.environ,
) -> Asked | None:
  """Read the processes of this run from flags and environment; None if this process is alone.

  Args:
    coordinator: HOST or HOST:PORT of process 0; the default port is 8476.
    processes, process: number of processes, and the number of this one.
    environment: environment variables.

  Raises:
    ConfigError: a required value is missing or is not a number.
  """
  flags = (coordinator, processes, process)
  if any(each not in ("", None) for each in flags):
    if processes == 1 and not process:
      return None
    if coordinator == "" or processes is None or process is None:
      raise ConfigError(
        "--coordinator=HOST:PORT, --processes=N and --process=I belong together; give all three, "
        "or none where the environment tells them."
      )
    return _told(coordinator, processes, process, "the flags")
  if address := environment.get("JAX_COORDINATOR_ADDRESS"):
    return _from_jax_variables(address, environment)
  if all(name in environment for name in _SLURM):
    number = _number(environment, "SLURM_NTASKS")
    return None if number == 1 else Asked(None, None, None, "slurm", "Slurm")
  if "OMPI_COMM_WORLD_SIZE" in environment:
    return _from_open_mpi(environment)
  return Asked(None, None, None, None, "Cloud TPU") if _on_cloud_tpu(environment) else None


def join(found: Asked, join_seconds: int, lost_seconds: int) -> None:
  """Connect this process with the others. Must be called before JAX is asked for a device.

  Args:
    found: the result of `asked`.
    join_seconds: time within which all processes must connect.
    lost_seconds: time without a heartbeat after which a process counts as lost.

  Raises:
    LostError: not all processes connected in time.
  """
  import jax

  if found.by == "Cloud TPU":
    # Here JAX finds the coordinator by itself, and would take its own default port.
    os.environ.setdefault("JAX_COORDINATOR_PORT", str(PORT))
  # `preemption` handles SIGTERM; JAX's preemption service would take the signal away from it.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    # While processes join, JAX may abort this one instead of raising.
    with lost_processes.not_aborted(_not_joined(found, join_seconds)):
      jax.distributed.initialize(
        found.coordinator,
        found.processes,
        found.process,
        cluster_detection_method=found.method,
        initialization_timeout=join_seconds,
        heartbeat_timeout_seconds=lost_seconds,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
      )
  except Exception as error:  # from gRPC, from a resolver, or from a metadata server
    if found.by == "Cloud TPU" and not jax.distributed.is_initialized() and _is_alone(error):
      return
    why = (str(error).splitlines() or [""])[0][:200]
    raise LostError(_not_joined(found, join_seconds, why)) from error


def _not_joined(found: Asked, join_seconds: int, why: str = "") -> str:
  which = "" if found.process is None else f" {found.process} of {found.processes}"
  return (
    f"process{which} could not join the others within {join_seconds} s (told by {found.by}; "
    f"coordinator {found.coordinator or 'found by JAX'}{'; ' if why else ''}{why}). Start all of "
    "them, with the same number of processes and a coordinator whose port they can all reach; "
    "processes.join_seconds is the time they have."
  )


def leave() -> None:
  """Disconnect from the other processes, if this one has joined any."""
  import jax

  jax.distributed.shutdown()


def _told(coordinator: str, processes: int, process: int, by: str) -> Asked | None:
  if processes < 1 or not 0 <= process < processes:
    raise ConfigError(
      f"{by} say process {process} of {processes}; expected a number from 0 to one less than the "
      "number of processes."
    )
  if processes == 1:
    return None
  host, colon, port = coordinator.rpartition(":")
  bracketed = coordinator.endswith("]")  # an IPv6 address without a port
  if not colon or bracketed:
    host, port = coordinator, str(PORT)
  if not port.isdecimal():
    raise ConfigError(f"{by} say the coordinator is {coordinator!r}; expected HOST or HOST:PORT.")
  return Asked(f"{host}:{port}", processes, process, "deactivate", by)


def _from_jax_variables(address: str, environment: Mapping[str, str]) -> Asked | None:
  index = "JAX_PROCESS_ID" if "JAX_PROCESS_ID" in environment else "JOB_COMPLETION_INDEX"
  missing = [name for name in ("JAX_NUM_PROCESSES", index) if name not in environment]
  if missing:
    if all(name in environment for name in _SLURM):
      return Asked(address, None, None, "slurm", "Slurm")
    if "OMPI_COMM_WORLD_SIZE" in environment:
      return _from_open_mpi(environment)
    missing_names = " and ".join(missing).replace("JOB_COMPLETION_INDEX", "JAX_PROCESS_ID")
    raise ConfigError(
      f"JAX_COORDINATOR_ADDRESS is {address!r} and {missing_names} is not set; set all three, or "
      "none for a process that is alone."
    )
  number = _number(environment, "JAX_NUM_PROCESSES")
  return _told(address, number, _number(environment, index), "the JAX_ variables")


def _from_open_mpi(environment: Mapping[str, str]) -> Asked | None:
  number = _number(environment, "OMPI_COMM_WORLD_SIZE")
  if number == 1:
    return None
  address = environment.get("JAX_COORDINATOR_ADDRESS", "")
  if not address and "OMPI_MCA_orte_hnp_uri" in environment:
    return Asked(None, None, None, "ompi", "Open MPI")
  # Open MPI 5 does not tell where process 0 is; if all run on one machine, it is this one.
  if not address and environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") != str(number):
    raise ConfigError(
      "Open MPI started several hosts and does not say which has process 0; set "
      "JAX_COORDINATOR_ADDRESS=HOST, for example with mpirun -x."
    )
  rank = _number(environment, "OMPI_COMM_WORLD_RANK")
  return _told(address or "127.0.0.1", number, rank, "the variables of Open MPI")


def _on_cloud_tpu(environment: Mapping[str, str]) -> bool:
  """Whether to let JAX detect a TPU cluster: there are TPU chips and libtpu is installed.

  On a single host JAX then finds no cluster, which `join` accepts.
  """
  if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("", "tpu"):
    return False
  chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
  return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _is_alone(error: Exception) -> bool:
  """Whether JAX found no cluster at all, which it reports as the arguments that are missing."""
  return isinstance(error, ValueError) and "should be defined" in str(error)


def _number(environment: Mapping[str, Any], name: str) -> int:
  text = environment.get(name, "")
  if not text.isdecimal():
    raise ConfigError(f"the variable {name} is {text!r}; expected a whole number.")
  return int(text)
