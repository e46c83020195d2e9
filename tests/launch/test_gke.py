"""The JobSets for GKE, by Kubernetes' schemas and JobSet's documented fields; the image."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.launch.stand_ins import LAUNCH, ROOT, StandIns

IMAGE = "us-docker.pkg.dev/my-project/images/xjepa_jax:1"
GIVEN = ("create", "--name", "my-run", "--image", IMAGE, "--claim", "my-share")
TPU = (*GIVEN, "--devices", "tpu", "--accelerator", "tpu-v6e-slice", "--topology", "4x4")
GPU = (*GIVEN, "--devices", "gpu", "--accelerator", "nvidia-h100-80gb", "--nodes", "3")
ARGUMENTS = ["--config=a.py:base", '--config.data.directories=("gs://b/c",)', "--x=a\\b @NAME@"]
# Fields of jobset.x-k8s.io/v1alpha2, from JobSet's API reference: name -> type.
JOBSET = {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict}
SPEC = {
  "replicatedJobs": list,
  "network": dict,
  "successPolicy": dict,
  "failurePolicy": dict,
  "startupPolicy": dict,
  "suspend": bool,
  "coordinator": dict,
  "managedBy": str,
  "ttlSecondsAfterFinished": int,
}
NETWORK = {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool}
FAILURE_POLICY = {"maxRestarts": int, "restartStrategy": str, "rules": list}
RULE = {
  "name": str,
  "action": str,
  "onJobFailureReasons": list,
  "onJobFailureMessagePatterns": list,
  "targetReplicatedJobs": list,
}
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
REPLICATED_JOB = {
  "name": str,
  "groupName": str,
  "template": dict,
  "replicas": int,
  "dependsOn": list,
}


def created(stand_ins: StandIns, *arguments: str) -> dict[str, Any]:
  """The manifest that kubectl was given."""
  made = stand_ins.run("gke/train.sh", *arguments, "--", *ARGUMENTS)
  assert made.status == 0, made.errors
  assert made.calls == [["kubectl", "create", "--filename=-"]]
  assert "This costs" in made.errors
  loaded: dict[str, Any] = yaml.safe_load(made.inputs[0])
  return loaded


def check_fields(value: dict[str, Any], fields: Mapping[str, type]) -> None:
  for name, inner in value.items():
    assert name in fields, f"{name} is no field; there are {', '.join(fields)}"
    assert type(inner) is fields[name], name


def pod_of(jobset: dict[str, Any]) -> dict[str, Any]:
  pod: dict[str, Any] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
  return pod


@pytest.mark.parametrize("arguments", [TPU, GPU], ids=["tpu", "gpu"])
def test_a_manifest_has_only_documented_fields_and_jobs_by_kubernetes_schema(
  stand_ins: StandIns, arguments: tuple[str, ...]
) -> None:
  validate = pytest.importorskip("kubernetes_validate").validate
  jobset = created(stand_ins, *arguments)
  check_fields(jobset, JOBSET)
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  spec = jobset["spec"]
  check_fields(spec, SPEC)
  check_fields(spec["network"], NETWORK)
  check_fields(spec["failurePolicy"], FAILURE_POLICY)
  for rule in spec["failurePolicy"]["rules"]:
    check_fields(rule, RULE)
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] in ACTIONS
  for replicated in spec["replicatedJobs"]:
    check_fields(replicated, REPLICATED_JOB)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
    for version in ("1.29", "1.33"):
      validate({**job, **replicated["template"]}, version, strict=True)


def test_the_schema_would_notice_a_wrong_field(stand_ins: StandIns) -> None:
  kubernetes = pytest.importorskip("kubernetes_validate")
  jobset = created(stand_ins, *TPU)
  pod_of(jobset)["containers"][0]["arguments"] = []
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
  template = jobset["spec"]["replicatedJobs"][0]["template"]
  with pytest.raises(kubernetes.ValidationError, match="arguments"):
    kubernetes.validate({**job, **template}, "1.33", strict=True)


def test_slices_of_tpus_have_a_job_each_and_a_pod_a_host(stand_ins: StandIns) -> None:
  jobset = created(stand_ins, *TPU, "--slices", "2")
  (slices,) = jobset["spec"]["replicatedJobs"]
  job, pod = slices["template"]["spec"], pod_of(jobset)
  assert slices["replicas"] == 2
  assert (job["parallelism"], job["completions"], job["completionMode"]) == (4, 4, "Indexed")
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
    "cloud.google.com/gke-tpu-topology": "4x4",
  }
  (container,) = pod["containers"]
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert {"name": "JAX_COORDINATOR_PORT", "value": "8476"} in container["env"]
  exclusive = jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
  assert exclusive == "cloud.google.com/gke-nodepool"


@pytest.mark.parametrize(
  ("accelerator", "topology", "chips", "hosts"),
  [
    ("tpu-v6e-slice", "1x1", 1, 1),
    ("tpu-v6e-slice", "2x2", 4, 1),
    ("tpu-v5-lite-podslice", "2x4", 4, 2),
    ("tpu-v5p-slice", "2x2x4", 4, 4),
    ("tpu-v4-podslice", "4x4x8", 4, 32),
  ],
)
def test_hosts_follow_from_the_topology(
  stand_ins: StandIns, accelerator: str, topology: str, chips: int, hosts: int
) -> None:
  jobset = created(stand_ins, *TPU, "--accelerator", accelerator, "--topology", topology)
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert job["parallelism"] == job["completions"] == hosts
  (container,) = pod_of(jobset)["containers"]
  assert container["resources"]["requests"] == {"google.com/tpu": chips}


def test_nodes_of_gpus_find_each_other_by_the_name_of_the_first(stand_ins: StandIns) -> None:
  jobset = created(stand_ins, *GPU)
  (nodes,) = jobset["spec"]["replicatedJobs"]
  (container,) = pod_of(jobset)["containers"]
  environment = {each["name"]: each["value"] for each in container["env"]}
  # JobSet's names of pods: <jobSet.name>-<replicatedJob.name>-<job-index>-<pod-index>.<subdomain>
  assert environment["JAX_COORDINATOR_ADDRESS"] == f"my-run-{nodes['name']}-0-0.my-run:8476"
  assert environment["JAX_NUM_PROCESSES"] == str(nodes["template"]["spec"]["parallelism"]) == "3"
  assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


@pytest.mark.parametrize("arguments", [TPU, GPU], ids=["tpu", "gpu"])
def test_the_training_gets_its_arguments_as_they_are(
  stand_ins: StandIns, arguments: tuple[str, ...]
) -> None:
  (container,) = pod_of(created(stand_ins, *arguments))["containers"]
  # What bash makes of them, in a container whose memory need not be locked here.
  command = [word.replace("ulimit -l 68719476736", "true") for word in container["command"]]
  if command[0] == "bash":
    command[2] = command[2].replace("launch/supervise.sh", "printf '%s\\0'")
    shown = subprocess.run([*command, *container["args"]], capture_output=True, check=True)
    assert shown.stdout.decode().split("\0")[:-1] == container["args"]
  else:
    assert command == ["launch/supervise.sh"]
  assert container["args"] == [
    *["--failures", "1", "--", "python", "-m", "xjepa_jax.main"],
    *["--workdir=/shared/my-run", *ARGUMENTS],
  ]


def test_tpus_may_lock_memory_and_gpus_need_no_root(stand_ins: StandIns) -> None:
  (container,) = pod_of(created(stand_ins, *TPU))["containers"]
  assert container["securityContext"] == {
    "runAsUser": 0,
    "capabilities": {"add": ["SYS_RESOURCE"]},
  }
  context = pod_of(created(stand_ins, *GPU))["securityContext"]
  assert f"--uid {context['runAsUser']} " in (LAUNCH / "gke" / "Dockerfile").read_text()


def test_an_error_in_words_ends_the_jobset_and_a_lost_process_starts_it_again(
  stand_ins: StandIns,
) -> None:
  jobset = created(stand_ins, *TPU)
  policy, job = (
    jobset["spec"]["failurePolicy"],
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"],
  )
  (pods,) = job["podFailurePolicy"]["rules"]
  assert pods["action"] == "FailJob" and pods["onExitCodes"]["values"] == [1, 2]
  assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
    ("FailJobSet", ["PodFailurePolicy"])
  ]
  assert policy["maxRestarts"] > 0 and job["backoffLimit"] == 0


def test_a_dry_run_prints_the_manifest_and_the_command(stand_ins: StandIns) -> None:
  printed = stand_ins.run("gke/train.sh", *TPU, "--dry-run", "--", *ARGUMENTS)
  manifest, _, command = printed.output.partition("---\n")
  assert yaml.safe_load(manifest) == created(stand_ins, *TPU)
  assert shlex.split(command) == ["kubectl", "create", "--filename=-"]
  assert not printed.calls


def test_other_commands(stand_ins: StandIns) -> None:
  named = ("--name", "my-run", "--namespace", "team")
  assert stand_ins.run("gke/train.sh", "--delete", *named).calls == [
    ["kubectl", "delete", "--namespace=team", "jobset", "my-run", "--ignore-not-found"]
  ]
  assert stand_ins.run("gke/train.sh", "state", *named).calls[0][-1].endswith("jobset-name=my-run")
  assert "--follow" in stand_ins.run("gke/train.sh", "tail", *named).calls[0]
  built = stand_ins.run("gke/train.sh", "image", "--devices", "gpu", "--image", IMAGE)
  file = f"--file={LAUNCH}/gke/Dockerfile"
  assert built.calls == [
    ["docker", "build", file, "--build-arg=DEVICES=gpu", f"--tag={IMAGE}", str(ROOT)],
    ["docker", "push", IMAGE],
  ]


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ((*TPU, "--name", "r" * 41), "at most 40"),
    ((*TPU, "--name", "My_run"), "for example 'my-run'"),
    ((*TPU, "--image", "images/x"), "has no version"),
    ((*TPU, "--image", "images/x:latest"), "has no version"),
    ((*TPU, "--topology", "4x4x4"), "takes 2 sides"),
    ((*TPU, "--accelerator", "tpu-v5p-slice"), "takes 3 sides"),
    ((*TPU, "--accelerator", "tpu-v6-slice"), "did you mean 'tpu-v6e-slice'"),
    ((*TPU, "--topology", "3x3"), "no multiple of --chips 4"),
    ((*GPU, "--accelerator", "nvidia-h100-80g"), "did you mean 'nvidia-h100-80gb'"),
    ((*GPU, "--devices", "cuda"), "unknown devices 'cuda'"),
    ((*GPU, "--claim", "My_share"), "for example 'my-share'"),
  ],
)
def test_what_cannot_work_is_refused_before_anything_is_called(
  stand_ins: StandIns, arguments: tuple[str, ...], said: str
) -> None:
  refused = stand_ins.run("gke/train.sh", *arguments, "--", *ARGUMENTS)
  assert refused.status == 2
  assert said in refused.errors
  assert not refused.calls


def test_the_image_pins_its_base_and_installs_with_the_constraints_of_its_python() -> None:
  text = (LAUNCH / "gke" / "Dockerfile").read_text()
  lines = [line for line in text.splitlines() if line and not line.startswith("#")]
  bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
  pinned = r"python:3\.(\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}"
  (python,) = (re.fullmatch(pinned, base) for base in bases)
  assert python is not None and int(python[1]) >= 12  # whose constraints are constraints.txt
  (install,) = (line for line in lines if "pip install" in line)
  assert shlex.split(install)[-3:] == ["--constraint", "constraints.txt", ".[${DEVICES},gcs]"]
  copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
  assert {"setup.cfg", "constraints.txt", "xjepa_jax", "configs", "launch"} <= set(copied)
  assert all((ROOT / each).exists() for each in copied)
  assert lines.index(install) < lines.index("USER trainer")  # a run needs no rights of root
