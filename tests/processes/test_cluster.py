"""Which processes belong together is told by flags, else by the environment, else this is alone."""

from __future__ import annotations

import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.processes.cluster import Asked, asked

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_NTASKS": "16",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "3",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "host0:99", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}


def told(coordinator: str, processes: int, process: int, by: str) -> Asked:
  return Asked(coordinator, processes, process, "deactivate", by)


def test_with_nothing_told_a_process_is_alone() -> None:
  assert asked(environment={}) is None
  assert asked("", 1, 0, {}) is None
  assert asked(environment={**SLURM, "SLURM_NTASKS": "1"}) is None
  assert asked(environment={"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}) is None  # no srun


def test_flags_come_before_the_environment_and_need_no_port() -> None:
  assert asked("host1:5000", 2, 1, {**JAX, **SLURM}) == told("host1:5000", 2, 1, "the flags")
  assert asked("host1", 2, 0, {}) == told("host1:8476", 2, 0, "the flags")
  assert asked("[fe80::1]", 2, 0, {}) == told("[fe80::1]:8476", 2, 0, "the flags")


@pytest.mark.parametrize(
  ("environment", "found"),
  [
    (JAX, told("host0:99", 4, 2, "the JAX_ variables")),
    (
      {
        "JAX_COORDINATOR_ADDRESS": "job-0.job",
        "JAX_NUM_PROCESSES": "4",
        "JOB_COMPLETION_INDEX": "1",
      },
      told("job-0.job:8476", 4, 1, "the JAX_ variables"),
    ),
    (SLURM, Asked(None, None, None, "slurm", "Slurm")),
    (
      {**SLURM, "JAX_COORDINATOR_ADDRESS": "node1:99"},
      Asked("node1:99", None, None, "slurm", "Slurm"),
    ),
    (MPI, told("127.0.0.1:8476", 4, 1, "the variables of Open MPI")),
    (
      {**MPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"},
      Asked(None, None, None, "ompi", "Open MPI"),
    ),
  ],
)
def test_the_environment_of_a_launcher_is_understood(
  environment: dict[str, str], found: Asked
) -> None:
  assert asked(environment=environment) == found


def test_half_of_what_is_needed_is_refused_by_name() -> None:
  with pytest.raises(ConfigError, match="--coordinator=.* belong together"):
    asked("host1", 2, None, {})
  with pytest.raises(ConfigError, match="the flags say process 2 of 2; expected a number from 0"):
    asked("host1", 2, 2, {})
  with pytest.raises(ConfigError, match="coordinator is 'host1:http'; expected HOST or HOST:PORT"):
    asked("host1:http", 2, 1, {})
  with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID is not set"):
    asked(environment={"JAX_COORDINATOR_ADDRESS": "host0"})
  with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES is 'many'; expected a whole number"):
    asked(environment={**JAX, "JAX_NUM_PROCESSES": "many"})
  with pytest.raises(ConfigError, match="does not say which has process 0"):
    asked(environment={**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
