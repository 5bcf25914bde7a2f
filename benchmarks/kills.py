"""A search that is killed again and again: does it end as if nothing had happened, and what did the kills cost?

    .venv/bin/python benchmarks/kills.py --kills 100

Starts a Prefect server, a worker and a search over real trainings, two at a time on the work pool. Then kills, with
SIGKILL and at random moments, one of: the search, a trainer, a trial's flow run, the worker, the server; whatever was
killed is started again by the same command. When the search has ended, its history is compared with that of the plain
driver, which ran through. A search that ends before it was killed often enough gets a larger budget.

    .venv/bin/python benchmarks/kills.py --kills 1 --victims server --away 60
    .venv/bin/python benchmarks/kills.py --kills 1 --victims mlflow --away 60

Outages: a server that is away for a minute. With the victim `mlflow` the search publishes to an MLflow server, which is
looked at in the end: it must have every trial and predictor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.spaces.architecture import Architecture
from bonas_core.storage.tensors import SUFFIX

ROOT = Path(__file__).parents[1]
LOG = "BONAS_KILLS_LOG"
_PATIENCE_S = 120.0
"""Between kills something is trained, so that each hits a search at work; but so long at most."""
VICTIMS = ("search", "trainer", "flow run", "worker", "server")
SERVICES = ("server", "worker", "mlflow")
"""What a service manager would start again."""


class LoggedTraining(TrainingEvaluator):
    """Real training that writes a line whenever it begins, ends an epoch, or ends."""

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        assert context.checkpoints is not None
        trial = int(context.checkpoints.name)

        def log(event: str, epoch: int = 0) -> None:
            name = os.environ.get(LOG)
            if name:
                line = {"trial": trial, "pid": os.getpid(), "event": event, "epoch": epoch, "at": time.time()}
                with open(name, "a") as file:
                    file.write(json.dumps(line) + "\n")

        def progress(epoch: int, figures: Mapping[str, float]) -> None:
            log("epoch", epoch)
            context.progress(epoch, figures)

        log("begin")
        outcome = super().evaluate(
            architecture, EvaluationContext(context.seed, context.device, context.checkpoints, progress)
        )
        log("end")
        return outcome


class Stage:
    """All processes of one search, each of which may be killed at any time."""

    def __init__(self, folder: Path, epochs: int, trials: int, away_s: float, with_mlflow: bool) -> None:
        self.folder = folder
        self.away_s = away_s
        self.back = dict.fromkeys(SERVICES, 0.0)
        self.trials = trials
        self.tracking = f"http://127.0.0.1:{free_port()}" if with_mlflow else None
        self.log = folder / "trainings.jsonl"
        self.api = f"http://127.0.0.1:{free_port()}/api"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
            "OMP_NUM_THREADS": "1",
            "BONAS_HOME": str(folder),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            LOG: str(self.log),
        }
        tree = {
            "space": "nasbench201",
            "evaluator": {
                "kind": "kills:LoggedTraining",
                "data": "digits",
                "epochs": epochs,
                "network": {"channels": 2, "cells": 1},
            },
            "method": {"initial": 4, "retrain_every": 4, "batch": 2, "sampler": "random", "pool": 100},
            "predictor": {"epochs": 20, "width": 8, "layers": 2},
            "dispatch": {"backend": "work-pool", "slots": 2},
            "budget": {"trials": trials},
            "tracking": {"uri": self.tracking},
        }
        self.tree = tree
        (folder / "kills.yaml").write_text(json.dumps(tree))  # JSON is YAML
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, name: str, *command: str) -> None:
        """Starts a process of our own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def start(self, name: str) -> None:
        """Starts a server, the worker or the search by name."""
        if name == "server":
            port = self.api.split(":")[2].split("/")[0]
            self.run("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
        elif name == "worker":
            self.run(
                "worker", "prefect", "worker", "start", "--pool", "bonas-trials", "--type", "process", "--limit", "2"
            )
        elif name == "mlflow":
            assert self.tracking is not None
            stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow-server.db"]
            stores += ["--artifacts-destination", str(self.folder / "mlflow-artifacts"), "--workers", "1"]
            self.run(
                "mlflow", "mlflow", "server", "--host", "127.0.0.1", "--port", self.tracking.split(":")[2], *stores
            )
        else:
            command = ["search", str(self.folder / "kills.yaml"), "--store", str(self.folder / "store"), "--id", "k"]
            self.run("search", "flows.command", *command, "--trials", str(self.trials))

    def open(self) -> None:
        """Starts everything for the first time."""
        self.start("server")
        if self.tracking:
            self.start("mlflow")
            wait_until(lambda: answers(f"{self.tracking}/health"), 180)
        wait_until(lambda: answers(f"{self.api}/health"), 180)
        deploy = [sys.executable, "-m", "flows.command", "deploy", "--slots", "2"]
        subprocess.run(deploy, env=self.environment, cwd=ROOT, check=True, capture_output=True)
        self.start("worker")
        self.start("search")

    def children(self, word: str) -> list[int]:
        """Processes of this stage whose command has a word in it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                home = f"BONAS_HOME={self.folder}".encode()
                if home in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if word in command:
                        found.append(int(entry.name))
        return found

    def kill(self, victim: str) -> bool:
        """Kills a victim, if there is one now, and starts again what a supervisor would."""
        if victim in self.processes:
            process = self.processes[victim]
            if process.poll() is not None:
                return False
            if victim == "mlflow":  # its children answer for it
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            if victim in ("server", "mlflow"):
                self.back[victim] = time.time() + self.away_s
            else:
                self.start(victim)
            return True
        word = {"trainer": "tasks.dispatch.trainer", "flow run": "flow-run execute"}[victim]
        pids = self.children(word) or (self.children("prefect.engine") if victim == "flow run" else [])
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(random.choice(pids), signal.SIGKILL)
            return True
        return False

    def close(self) -> None:
        """Ends every process of this stage."""
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in self.children(""):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=float, default=15.0, help="mean seconds between kills")
    parser.add_argument("--victims", default=",".join(VICTIMS), help="in turn rather than at random where not all")
    parser.add_argument("--away", type=float, default=0.0, help="seconds until a killed server is started again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, too")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="bonas-kills-", ignore_cleanup_errors=True) as name:
        victims = arguments.victims.split(",")
        stage = Stage(Path(name), arguments.epochs, arguments.trials, arguments.away, "mlflow" in victims)
        try:
            report = killed_search(stage, arguments.kills, arguments.every, victims)
            if stage.tracking:
                report["mlflow"] = published(stage)
        finally:
            stage.close()
        report |= compared(stage)
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report))
    unpublished = sum(count for name, count in report.get("mlflow", {}).items() if name.endswith("missing"))
    wrong = report["lost"] or report["evaluated_twice"] or unpublished
    sys.exit(0 if report["equal"] and not wrong else 1)


def killed_search(stage: Stage, kills: int, every_s: float, victims: list[str]) -> dict[str, Any]:
    """Runs the search to its end, killing as often as asked."""
    begin = time.time()
    killed: list[tuple[float, str]] = []
    counts: Counter[str] = Counter()
    stage.open()
    due = time.time() + every_s * 2
    warnings = stage.folder / "search.log"
    epochs_seen = 0
    turns = list(victims)
    while True:
        time.sleep(0.1)
        for name in stage.processes.keys() & set(SERVICES):
            if stage.processes[name].poll() is not None and time.time() >= stage.back[name]:
                stage.start(name)
        code = stage.processes["search"].poll()
        if code is not None:
            if code not in (0, -signal.SIGKILL):
                print(f"search ended with code {code}", (stage.folder / "search.log").read_text()[-2000:])
                raise SystemExit(1)
            if len(killed) >= kills:
                break
            stage.trials += 6  # it was too quick for us
            stage.start("search")
        grown = stage.log.exists() and stage.log.stat().st_size > epochs_seen
        patient = time.time() - (killed[-1][0] if killed else begin) > _PATIENCE_S
        if len(killed) < kills and time.time() >= due and (grown or patient):
            choice = random.choice(victims) if set(victims) == set(VICTIMS) else turns[0]
            if stage.kill(choice):
                killed.append((time.time(), choice))
                counts[choice] += 1
                turns = turns[1:] + turns[:1]
                epochs_seen = stage.log.stat().st_size if stage.log.exists() else 0
                print(f"{time.time() - begin:7.1f} s  kill {len(killed):3}: {choice}", file=sys.stderr, flush=True)
                due = time.time() + random.expovariate(1 / every_s)
            else:
                due = time.time() + 0.5
    return {
        "kills": dict(counts),
        "warnings": sorted({line[:100] for line in warnings.read_text().splitlines() if line.startswith("warning")}),
        "seconds": round(time.time() - begin, 1),
        **training_time(stage.log, [at for at, _ in killed]),
    }


def training_time(log: Path, kills: list[float]) -> dict[str, Any]:
    """Seconds of training in all, and of those what had to be done again."""
    events: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    ends: Counter[int] = Counter()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        events[event["pid"], event["trial"]].append(event)
        ends[event["trial"]] += event["event"] == "end"
    total = wasted = 0.0
    seen: set[tuple[int, int]] = set()
    for (_, trial), session in events.items():
        last = session[0]["at"]
        for event in session[1:]:
            took = event["at"] - last
            total += took
            if event["event"] == "epoch":
                wasted += took if (trial, event["epoch"]) in seen else 0
                seen.add((trial, event["epoch"]))
            last = event["at"]
        if session[-1]["event"] != "end":  # it was killed in the middle of an epoch
            lost = max(min((at for at in kills if at >= last), default=last) - last, 0)
            total += lost
            wasted += lost
    return {
        "training_s": round(total, 1),
        "wasted_s": round(wasted, 1),
        "evaluated_twice": sum(count > 1 for count in ends.values()),
    }


def compared(stage: Stage) -> dict[str, Any]:
    """The history of the killed search against the plain driver's."""
    from bonas_core.problem import build
    from bonas_core.search import run
    from bonas_core.settings import parse_settings
    from bonas_core.testing import timeless
    from bonas_core.trials.history import TrialHistory

    os.environ.pop(LOG, None)
    sys.modules["kills"] = sys.modules["__main__"]
    settings = parse_settings({**stage.tree, "budget": {"trials": stage.trials}}, "kills")
    through = run(build(settings), TrialHistory(stage.folder / "through"), stage.folder / "checkpoints")
    found = TrialHistory(stage.folder / "store" / "k" / "trials").trials()
    return {
        "trials": len(found),
        "lost": stage.trials - sum(trial.state.is_finished for trial in found),
        "equal": timeless(found) == timeless(TrialHistory(stage.folder / "through").trials()),
        "first_difference": next(
            (
                [mine, theirs]
                for mine, theirs in zip(timeless(found), timeless(through.rows), strict=False)
                if mine != theirs
            ),
            None,
        ),
    }


def published(stage: Stage) -> dict[str, int]:
    """What the MLflow server has of the search, and what it lacks."""
    from mlflow import MlflowClient

    wait_until(lambda: answers(f"{stage.tracking}/health"), 180)
    client = MlflowClient(tracking_uri=stage.tracking, registry_uri=stage.tracking)
    experiment = client.get_experiment_by_name("bonas-nasbench201")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    steps = {metric.step for metric in client.get_metric_history(parent.info.run_id, "objective")}
    versions = client.search_model_versions("name='bonas-nasbench201'", max_results=1000)
    predictors = len(list((stage.folder / "store" / "k" / "predictors").glob(f"*/*{SUFFIX}")))
    return {
        "trials": len(steps),
        "trials_missing": len(set(range(stage.trials)) - steps),
        "predictors": len(versions),
        "predictors_missing": predictors - len(versions),
    }


def answers(url: str) -> bool:
    """Whether a server does."""
    import httpx

    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    return False


def wait_until(true: Callable[[], bool], patience_s: float) -> None:
    """Waits, and fails when it takes too long."""
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("a server did not start in time")
        time.sleep(0.5)


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
