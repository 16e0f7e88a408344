"""The models behind servers that a run compares its own with."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from icdm.errors import Stopped
from icdm.evaluation.exploration import explore_all
from icdm.evaluation.summary import results_of
from icdm.evaluation.unseen import UnseenTasks
from icdm.evaluation.value import Measured, Measurement, measure_all
from icdm.readers.completions import Completions, parse_endpoint
from icdm.readers.endpoint import EndpointReader
from icdm.readers.reader import Reader
from icdm.runs.run import Run
from icdm.trajectories.rollout import rollout_on_host

MEASURED, ASKED = "evaluation", "endpoints"  # directories of a run: values so far, and the answers of each server


def measured_results(
    run: Run,
    unseen: UnseenTasks,
    readers: dict[str, Measurement],
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool],
    explorers: dict[str, Reader],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(what results.json says of the readers and of the run's endpoints, what values.npz holds).

    Args:
      explorers: who explores from nothing.

    A stopped evaluation goes on: values lie in MEASURED, and every answer of a server in ASKED; delete them to measure
    and to ask again.
    """
    s = run.settings
    found = measure_all(readers, s.evaluation, mesh, stop, run.directory / MEASURED)
    asked = _endpoint_readers(run, stop)
    served = {name: Measurement(unseen, reader, rollout_on_host) for name, reader in asked.items()}
    more = measure_all(served, s.evaluation, mesh, stop, kept=None)
    found = Measured(*(own | others for own, others in zip(found, more)))
    arrays = {f"answers/{name}": reader.answers for name, reader in asked.items()}
    arrays |= explore_all(unseen, explorers, s.evaluation, mesh, stop, run.directory / MEASURED)
    return results_of(unseen, found, arrays)


def _endpoint_readers(run: Run, stop: Callable[[], bool]) -> dict[str, EndpointReader]:
    """A reader for each of config.policies, by these names."""

    def check() -> None:
        if stop():
            raise Stopped("stopped during the evaluation, answers are kept")

    s = run.settings
    return {
        text: EndpointReader(Completions(parse_endpoint(text), s.endpoint, run.directory / ASKED), s.phrases, check)
        for text in s.policies
    }
