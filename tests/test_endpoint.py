"""Models behind servers: a server in the test answers as OpenAI's does, by a rule, or in other ways."""

import http.server
import json
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import experiment
from experiments.configs import base
from icdm.errors import UserError
from icdm.evaluation.unseen import EvaluationConfig, draw_unseen
from icdm.evaluation.value import measure
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import make_family
from icdm.problems.policy import MarkovPolicy
from icdm.readers import completions
from icdm.readers.completions import KEY, Answer, Completions, EndpointConfig, parse_endpoint
from icdm.readers.endpoint import EndpointReader, chosen
from icdm.readers.reader import Fixed
from icdm.runs.settings import Settings
from icdm.sharding import make_mesh
from icdm.trajectories.collect import ContextConfig
from icdm.trajectories.layouts.text import phrases_of
from icdm.trajectories.rollout import rollout, rollout_on_host

ACTIONS = ("A", "B", "C")
FAMILY = make_family("energy", horizon=3)
PHRASES = phrases_of(
    "terse", n_observations=10, n_actions=3, reward_range=FAMILY.reward_range, shows_reward=True, words=""
)


def by_rule(prompt):
    """Work (B) from level 4 on, charge (A) below: what the last observation of a prompt asks for."""
    return "B" if int(prompt[-1]) >= 4 else "A"


def completion(text, **logprobs):
    return {"choices": [{"text": text, "logprobs": {"top_logprobs": [logprobs]} if logprobs else None}]}


class Server:
    """A server of this machine; `answer(request)` returns what is sent: JSON, bytes, or (status, headers, JSON)."""

    def __init__(self, answer=lambda request: completion(by_rule(request["prompt"]))):
        self.answer, self.requests, self.headers = answer, [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.headers.append(dict(self.headers))
                found = outer.answer(request)
                status, headers, content = found if isinstance(found, tuple) else (200, {}, found)
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(content)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # nobody waits any more

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.text = f"endpoint:{self.url}/v1#m"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(completions, "WAIT", 0.01)
    monkeypatch.delenv(KEY, raising=False)


def client(server, directory, **limits):
    return Completions(parse_endpoint(server.text), EndpointConfig(**limits), directory)


def ask(server, directory, texts=("x 4",), **limits):
    return client(server, directory, **limits).answers(list(texts), lambda: None)


@pytest.fixture(scope="module")
def unseen():
    context, amounts = ContextConfig(1, "uniform"), EvaluationConfig(tasks=5, episodes=2)
    return draw_unseen(FAMILY, context, amounts, OracleConfig(), jax.random.key(0))


def rule_policy():
    table = jnp.where((jnp.arange(10) >= 4)[:, None], jnp.array([0.0, 1, 0]), jnp.array([1.0, 0, 0]))
    return MarkovPolicy(table[None, None])


def value_of(unseen, server, directory, **limits):
    reader = EndpointReader(client(server, directory, **limits), PHRASES)
    return measure(unseen, reader, EvaluationConfig(), make_mesh(), play=rollout_on_host)[0], reader


def test_a_policy_on_the_host_meets_the_same_random_numbers(unseen):
    problem, key = unseen.world.problem, jax.random.key(3)
    compiled = rollout(problem, unseen.task_B, rule_policy(), key)
    jax.tree.map(np.testing.assert_array_equal, rollout_on_host(problem, unseen.task_B, rule_policy(), key), compiled)


def test_a_server_that_follows_a_rule_is_worth_what_the_rule_is_worth(unseen, tmp_path):
    with Server() as server:
        found, reader = value_of(unseen, server, tmp_path)
    expected = measure(unseen, Fixed(rule_policy()), EvaluationConfig(), make_mesh())[0]
    np.testing.assert_array_equal(found, expected)
    assert reader.answers.tolist() == [[3, 0, 0]] * 10
    request = server.requests[0]
    assert request["model"] == "m" and request["max_tokens"] == 1 and request["temperature"] == 0
    assert max(len(request["prompt"].split(";")) for request in server.requests) == 3  # context, then its own episode


def test_an_invalid_answer_is_counted_and_a_random_action_is_taken(unseen, tmp_path):
    with Server(lambda request: completion("Apple")) as server:
        found, reader = value_of(unseen, server, tmp_path)
    assert reader.answers.tolist() == [[3, 0, 3]] * 10
    assert found.std() > 0  # not always the same action


def test_an_answer_is_the_likeliest_action_or_the_first_word():
    assert chosen(Answer("x", {"A": -3.0, "C": -2.0, "x": -0.1}), ACTIONS) == (2, True)
    assert chosen(Answer("B", {"x": -0.1}), ACTIONS) == (1, False)
    assert [chosen(Answer(text, {}), ACTIONS)[0] for text in (" C", "B4 3A", "Apple", "", "b")] == [
        2,
        1,
        None,
        None,
        None,
    ]
    digits = tuple(str(i) for i in range(12))
    assert [chosen(Answer(text, {}), digits)[0] for text in ("1", "11", "1, <R_t>", "12", "-1")] == [
        1,
        11,
        1,
        None,
        None,
    ]


def test_a_stopped_evaluation_asks_for_nothing_twice(unseen, tmp_path):
    with Server() as server:
        expected, _ = value_of(unseen, server, tmp_path / "whole")
        everything = len(server.requests)
        server.requests.clear()
        reader = EndpointReader(client(server, tmp_path / "cut", at_once=1), PHRASES, check=stopping_after(7))
        with pytest.raises(KeyboardInterrupt):
            measure(unseen, reader, EvaluationConfig(), make_mesh(), play=rollout_on_host)
        [file] = (tmp_path / "cut").iterdir()
        file.write_bytes(file.read_bytes()[:-5])  # a kill in the middle of a line
        known = len(file.read_bytes().splitlines()) - 1
        assert known >= 6
        server.requests.clear()
        found, _ = value_of(unseen, server, tmp_path / "cut")
        assert len(server.requests) == everything - known
        server.requests.clear()
        again, _ = value_of(unseen, server, tmp_path / "cut")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again, expected)
    assert not server.requests


def stopping_after(n):
    left = [n]

    def check():
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return check


def test_log_probabilities_are_asked_for_as_far_as_the_server_allows(tmp_path):
    def answer(request):
        if request.get("logprobs", 0) > 5:
            return 400, {}, {"error": {"message": "logprobs must be at most 5"}}
        return completion("x", A=-1.0, B=-0.5)

    with Server(answer) as server:
        assert ask(server, tmp_path, ["1", "2"], at_once=1) == [Answer("x", {"A": -1.0, "B": -0.5})] * 2
    assert [request["logprobs"] for request in server.requests] == [20, 5, 5]


def test_a_fault_that_is_soon_over_is_overcome(tmp_path):
    faults = [(503, {}, {}), b"not JSON", {"choices": []}]
    with Server(lambda request: faults.pop() if faults else completion("A")) as server:
        assert ask(server, tmp_path, tries=4) == [Answer("A", {})]


@pytest.mark.parametrize(
    "answer, message, requests",
    [
        (lambda request: (503, {}, {"error": "loading"}), r'answers 503 \(\{"error": "loading"\}\), 2 times', 2),
        (lambda request: b"<html>", "talks nonsense: no completion in its answer, 2 times", 2),
        (lambda request: {"choices": [{"text": None}]}, "talks nonsense", 2),
        (lambda request: [1, 2], "talks nonsense", 2),
        (
            lambda request: time.sleep(0.5) or completion("A"),
            r"gave no answer in 0.2 s, 2 times: raise endpoint.time",
            2,
        ),
        (lambda request: (404, {}, {"error": "no model m"}), "answers 404 .*does it serve /v1/completions", 1),
        (lambda request: (401, {}, {}), f"set {KEY}", 1),
        (lambda request: (307, {"Location": "http://example.org/"}, {}), "redirects to http://example.org/", 1),
        (lambda request: (302, {"Location": "http://example.org/"}, {}), "name the host itself", 1),
    ],
)
def test_a_server_that_fails_is_told_in_one_line_and_asked_so_often(answer, message, requests, tmp_path):
    with Server(answer) as server, pytest.raises(UserError, match=message) as raised:
        ask(server, tmp_path, timeout=0.2, tries=2)
    assert "\n" not in str(raised.value) and len(server.requests) == requests


def test_answers_before_a_failure_are_kept(tmp_path):
    with Server() as server:
        assert ask(server, tmp_path, ["1", "5"], at_once=1)
    with pytest.raises(UserError, match=r"cannot be reached .*start the server; 2 answers are kept"):
        ask(server, tmp_path, ["1", "7"])
    assert ask(server, tmp_path, ["1", "5"]) == [Answer("A", {}), Answer("B", {})]  # although the server is down


def test_no_more_texts_are_sent_at_once_than_asked_for(tmp_path):
    lock, running, most = threading.Lock(), [0], [0]

    def answer(request):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return completion("A")

    with Server(answer) as server:
        ask(server, tmp_path, map(str, range(12)), at_once=3)
    assert 1 < most[0] <= 3


def test_the_key_comes_from_the_environment_and_stays_out_of_files_and_messages(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "sk-secret")
    with Server() as server:
        ask(server, tmp_path)
        server.answer = lambda request: (403, {}, {"error": "key sk-secret is not known"})
        with pytest.raises(UserError, match=r"key \*\*\* is not known"):
            ask(server, tmp_path, ["other"])
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert all("sk-secret" not in path.read_text() for path in tmp_path.iterdir())
    assert not parse_endpoint("endpoint:http://example.org/v1#m").may_have_key
    assert parse_endpoint("endpoint:https://example.org/v1#m").may_have_key


@pytest.mark.parametrize(
    "text, message",
    [
        ("gpt", "give endpoint:URL#MODEL"),
        ("endpoint:http://127.0.0.1:8000/v1", "give endpoint:URL#MODEL"),
        ("endpoint:ftp://127.0.0.1#m", "with http:// or https://"),
        ("endpoint:http://127.0.0.1:port#m", "port"),
        ("endpoint:http://me:sk-1@127.0.0.1#m", f"give the key in {KEY}"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(text, message):
    c = base.get_config()
    c.policies = (text,)
    with pytest.raises(UserError, match=message) as raised:
        Settings.from_config(c)
    assert "sk-1" not in str(raised.value)


@pytest.fixture
def signals():
    """A run that is started in this process takes the signals that stop it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tiny_config(server):
    c = base.get_config()
    c.horizon, c.context.episodes = 2, 1
    c.pretrain.steps, c.fine_tune.steps = 0, 0
    c.model.update(width=8, layers=1, heads=1, kv_heads=1, hidden=8)
    c.evaluation.update(tasks=3, episodes=1)
    c.endpoint.tries = 1
    c.policies = (server.text,)
    return c


@pytest.mark.slow
def test_a_run_reports_the_policy_and_its_invalid_answers_and_goes_on_after_a_failure(tmp_path, capsys, signals):
    with Server(lambda request: completion("A" if request["prompt"].endswith("3") else "?")) as server:
        answer = server.answer
        left = [3]

        def goes_down(request):
            left[0] -= 1
            return answer(request) if left[0] >= 0 else (500, {}, {})

        server.answer = goes_down
        with pytest.raises(UserError, match="answers 500"):
            experiment.run(tiny_config(server), tmp_path)
        assert not (tmp_path / "results.json").exists()
        server.answer, asked = answer, len(server.requests)
        results = experiment.run(tiny_config(server), tmp_path)
        assert len(server.requests) <= asked + 3
    counts = results["invalid_answers"][server.text]
    assert counts["decisions"] == 6 and 0 < counts["invalid"] <= 6
    assert "gap" in results["policies"][server.text]
    assert f"{counts['invalid']} of 6 answers were no action, a random one was taken" in capsys.readouterr().out
    assert "no action" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["invalid_answers"] == results["invalid_answers"]


SERVER = "ICDM_ENDPOINT"  # endpoint:URL#MODEL of a server that serves what ICDM_ENDPOINT_WEIGHTS holds


@pytest.mark.slow
@pytest.mark.skipif(SERVER not in os.environ, reason=f"{SERVER} names no server that serves SmolLM2-135M-Instruct")
def test_a_real_server_decides_as_the_same_model_in_this_process(tmp_path, signals):
    """`transformers serve DIR` of a directory that icdm export --merged wrote of the untuned model."""
    from experiments.configs import language_energy

    c = language_energy.get_config()
    c.fine_tune.steps = 0
    c.evaluation.tasks = 10
    c.endpoint.update(timeout=300, at_once=1)
    c.policies = (os.environ[SERVER],)
    results = experiment.run(c, tmp_path)
    values = np.load(tmp_path / "values.npz")
    ours, theirs = values["policy/in_context"], values[f"policy/{os.environ[SERVER]}"]
    invalid = results["invalid_answers"][os.environ[SERVER]]
    print(results["policies"][os.environ[SERVER]]["gap"], results["policies"]["in_context"]["gap"], invalid)
    if not invalid["invalid"]:  # greedy answers are then the same decisions
        assert np.mean(np.abs(ours - theirs) < 1e-6) >= 0.9
    difference = ours - theirs
    assert abs(difference.mean()) <= 3 * difference.std() / np.sqrt(len(difference)) + 1e-6
