"""The models behind servers that a run compares its own with."""

from collections.abc import Callable

from icdm.evaluation.unseen import UnseenTasks
from icdm.evaluation.value import Measured
from icdm.learning.train import Stopped
from icdm.readers.completions import Completions, parse_endpoint
from icdm.readers.endpoint import EndpointReader
from icdm.runs.run import Run
from icdm.trajectories.rollout import rollout_on_host

DIRECTORY = "endpoints"  # of a run, with the answers of each server; delete it to ask again


def endpoint_readers(run: Run, stop: Callable[[], bool]) -> dict[str, EndpointReader]:
    """A reader for each of config.policies, by these names."""

    def check() -> None:
        if stop():
            raise Stopped("stopped during the evaluation, answers are kept")

    s = run.settings
    return {
        text: EndpointReader(Completions(parse_endpoint(text), s.endpoint, run.directory / DIRECTORY), s.phrases, check)
        for text in s.policies
    }


def measured_of(unseen: UnseenTasks, readers: dict[str, EndpointReader]) -> dict[str, Measured]:
    """How the readers are measured in unseen tasks."""
    return {name: Measured(unseen, reader, rollout_on_host) for name, reader in readers.items()}
