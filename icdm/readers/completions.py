"""A client of servers with OpenAI's interface of completions: one token after each of many texts.

Answers are kept in a file, so that none is asked for twice. Nothing but the named host is contacted: redirects are
refused and proxies are not used.
"""

import concurrent.futures
import dataclasses
import hashlib
import http.client
import ipaddress
import json
import os
import pathlib
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

from icdm.errors import UserError

PREFIX = "endpoint:"
KEY = "OPENAI_API_KEY"  # the environment variable; its value goes over https or to this machine alone
LOGPROBS = (20, 5, 0)  # how many are asked for; the next where a server refuses
WAIT = 0.5  # seconds before the second try, twice as many before each further one
MOST_BYTES = 2**20  # of an answer


class Endpoint(NamedTuple):
    """A model behind a server: url ends before /v1."""

    url: str
    model: str

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def may_have_key(self) -> bool:
        return self.url.startswith("https:") or is_loopback(self.host)


def parse_endpoint(text: str) -> Endpoint:
    """endpoint:URL#model; URL may end in /v1.

    Raises:
      UserError: the text has another form, or the URL holds more than scheme, host, port and path.
    """
    url, _, model = text.removeprefix(PREFIX).partition("#")
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # raises what is wrong with it
    except ValueError as error:
        raise UserError(f"policies: {text!r}: {error}") from None
    if "@" in parts.netloc or parts.query:
        raise UserError(f"policies: {PREFIX}URL holds more than host and path: give the key in {KEY}")
    if not text.startswith(PREFIX) or parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise UserError(f"policies: {text!r} is not understood: give endpoint:URL#MODEL, with http:// or https://")
    return Endpoint(url.rstrip("/").removesuffix("/v1"), model)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """How a server is asked.

    Attributes:
      timeout: seconds for one answer.
      tries: how often a text is sent before the evaluation gives up.
      at_once: texts that are sent side by side.
    """

    timeout: float = 60.0
    tries: int = 3
    at_once: int = 4

    def check(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise UserError(f"endpoint.{name} {value}: give a number above 0")


class Answer(NamedTuple):
    """What follows a text: the likeliest token, and log-probabilities of some tokens, where the server gives them."""

    text: str
    logprobs: dict[str, float]


class Completions:
    """Asks one endpoint.

    Args:
      directory: holds the file of answers, whose name is a checksum of URL and model.
    """

    def __init__(self, endpoint: Endpoint, config: EndpointConfig, directory: pathlib.Path):
        self.endpoint, self.config = endpoint, config
        name = hashlib.sha256(f"{endpoint.url}#{endpoint.model}".encode()).hexdigest()[:16]
        self.path = directory / f"{name}.jsonl"
        self.known = _read(self.path)
        self.lock, self.logprobs = threading.Lock(), 0
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def answers(self, texts: list[str], check: Callable[[], None]) -> list[Answer]:
        """The answers to some texts; those that are not known yet are asked for.

        Args:
          check: called after each answer; what it raises ends the asking.

        Raises:
          UserError: the server is down, too slow or refuses, or talks nonsense; answers so far are kept.
        """
        missing = [text for text in dict.fromkeys(texts) if _name(text) not in self.known]
        if missing:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            giving_up = threading.Event()
            with concurrent.futures.ThreadPoolExecutor(self.config.at_once) as pool:
                asked = [pool.submit(self._ask, text, giving_up) for text in missing]
                try:
                    for future in concurrent.futures.as_completed(asked):
                        future.result()
                        check()
                except BaseException:
                    giving_up.set()
                    pool.shutdown(cancel_futures=True)
                    raise
        return [self.known[_name(text)] for text in texts]

    def _ask(self, text: str, giving_up: threading.Event) -> None:
        """Asks for an answer, again where that may help, and keeps it."""
        for i in range(self.config.tries):
            if i:
                giving_up.wait(WAIT * 2 ** (i - 1))
            if giving_up.is_set():
                return
            try:
                answer = self._once(text)
            except _Fault as fault:
                last = fault
                continue
            self._keep(text, answer)
            return
        raise UserError(f"{self._where}: {last}, {self.config.tries} times: {last.remedy}; {self._kept}")

    def _once(self, text: str) -> Answer:
        """One answer.

        Raises:
          _Fault: where another try may help.
          UserError: where it cannot.
        """
        while True:
            place = self.logprobs
            try:
                return _answer(self._post(text, LOGPROBS[place]))
            except urllib.error.HTTPError as error:
                message = f"answers {error.code} ({self._message(error)})"
                if error.code in (400, 422) and LOGPROBS[place]:
                    self.logprobs = max(self.logprobs, place + 1)
                    continue
                if error.code in (408, 409, 425, 429) or error.code >= 500:
                    raise _Fault(message, "look at the server's own messages, or wait") from None
                if 300 <= error.code < 400:
                    raise UserError(
                        f"{self._where}: redirects to {error.headers.get('Location')}, which is not followed: "
                        f"name the host itself"
                    ) from None
                if error.code in (401, 403):
                    raise UserError(f"{self._where}: {message}: set {KEY}") from None
                raise UserError(f"{self._where}: {message}: does it serve /v1/completions and this model?") from None
            except TimeoutError:
                raise self._slow() from None
            except urllib.error.URLError as error:
                if isinstance(error.reason, TimeoutError):
                    raise self._slow() from None
                raise _Fault(f"cannot be reached ({error.reason})", "start the server") from None
            except (OSError, http.client.HTTPException) as error:
                raise _Fault(f"broke the connection off ({error or type(error).__name__})", "start it again") from None
            except (ValueError, LookupError, TypeError, AttributeError):
                raise _Fault("talks nonsense: no completion in its answer", "is it an OpenAI-compatible one?") from None

    def _post(self, text: str, logprobs: int) -> Any:
        body = {"model": self.endpoint.model, "prompt": text, "max_tokens": 1, "temperature": 0}
        body |= {"logprobs": logprobs} if logprobs else {}
        headers = {"Content-Type": "application/json"}
        if self.endpoint.may_have_key and os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        request = urllib.request.Request(f"{self.endpoint.url}/v1/completions", json.dumps(body).encode(), headers)
        end, content = time.monotonic() + self.config.timeout, b""
        with self.opener.open(request, timeout=self.config.timeout) as response:
            while chunk := response.read1(2**16):
                content += chunk
                if len(content) > MOST_BYTES:
                    raise ValueError("too long")
                if time.monotonic() > end:
                    raise TimeoutError
        return json.loads(content)

    def _keep(self, text: str, answer: Answer) -> None:
        line = {"prompt": _name(text), "text": answer.text, "logprobs": answer.logprobs}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            self.known[line["prompt"]] = answer

    def _slow(self) -> "_Fault":
        return _Fault(
            f"gave no answer in {self.config.timeout:g} s", "raise endpoint.timeout or lower endpoint.at_once"
        )

    def _message(self, error: urllib.error.HTTPError) -> str:
        """The beginning of what a server says, without the key."""
        try:
            said = " ".join(error.read(2000).decode(errors="replace").split())
        except OSError:
            said = ""
        key = os.environ.get(KEY)
        return (said.replace(key, "***") if key else said)[:200] or error.reason

    @property
    def _where(self) -> str:
        return f"{PREFIX}{self.endpoint.url}#{self.endpoint.model}"

    @property
    def _kept(self) -> str:
        return f"{len(self.known)} answers are kept, the same command goes on"


class _Fault(Exception):
    """What may be over when the same text is sent again."""

    def __init__(self, message: str, remedy: str):
        super().__init__(message)
        self.remedy = remedy


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _answer(content: Any) -> Answer:
    """The completion in what a server sent; raises one of several errors if there is none."""
    choice = content["choices"][0]
    top = ((choice.get("logprobs") or {}).get("top_logprobs") or [{}])[0] or {}
    text = choice["text"]
    if not isinstance(text, str):
        raise TypeError
    return Answer(text, {str(token): float(value) for token, value in top.items()})


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: pathlib.Path) -> dict[str, Answer]:
    """The answers of a file; a line that was cut short by a kill is removed."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    lines = map(json.loads, whole.splitlines())
    return {line["prompt"]: Answer(line["text"], line["logprobs"]) for line in lines}
