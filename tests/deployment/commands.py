"""Follows the commands of a page, line by line, and says of each whether what it names exists.

A walker keeps the working folder (`cd kubernetes` counts for what follows). Each program has a function here that knows
what its arguments name: services, containers, objects, labels, files, ports, settings. What no function knows is an error.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable

from tests.deployment import names
from tests.deployment.deployed import (
    NAMESPACE,
    ROOT,
    containers,
    manifests,
    objects,
    pods,
    run,
    services,
    settings_of_cluster,
    tool,
    workloads,
)

POD = "a-pod"
PLAIN = frozenset(
    {"grep", "openssl", "export", "chmod", "git", "gzip", "sleep", "tee", "date", "ls", "sort", "tail", "head"}
)
"""Programs of the system whose arguments name nothing of ours."""


class UnknownError(AssertionError):
    """A command names something that does not exist, or that nobody here knows."""


def require(condition: object, what: str) -> None:
    """Raises UnknownError with what was expected."""
    if not condition:
        raise UnknownError(what)


def file_exists(path: str) -> None:
    require((ROOT / path).exists() or path == ".env", f"the file {path} exists")


def workload(reference: str) -> dict[str, object]:
    """``deployment/jivs-backend`` or ``statefulset/redis``."""
    kind, _, name = reference.partition("/")
    found = objects({"deployment": "Deployment", "statefulset": "StatefulSet"}.get(kind, "")).get(name)
    require(found, f"{reference} is in the manifests")
    return found or {}


def environment_of(item: dict[str, object]) -> dict[str, str]:
    """What the containers of a workload have in their environment under the images' own names."""
    return {
        variable["name"]: variable.get("value", "")
        for container in containers(item)
        for variable in container.get("env", [])
    }


def psql(arguments: list[str], database: dict[str, str]) -> None:
    """psql or pg_dump with -U USER and -d DATABASE, which are those that the server is made with."""
    rest = [word for word in arguments if not word.startswith("--")]
    options = dict(zip(rest[::2], rest[1::2], strict=False))
    require(options.get("-U") == database["POSTGRES_USER"], f"user {options.get('-U')} of PostgreSQL")
    require(options.get("-d") == database["POSTGRES_DB"], f"database {options.get('-d')} of PostgreSQL")
    require(set(options) <= {"-U", "-d", "-c", "-v"}, f"options of psql: {sorted(options)}")
    require(set(arguments) - set(rest) <= {"--clean", "--if-exists"}, f"options of pg_dump: {arguments}")


def redis_cli(arguments: list[str]) -> None:
    known = {"CONFIG": {"GET"}, "INFO": {"memory", "stats"}, "FLUSHALL": set(), "ping": set(), "TTL": set()}
    require(arguments[0] in known, f"redis-cli {arguments[0]}")
    if len(arguments) > 1:
        require(arguments[1] in known[arguments[0]], f"redis-cli {' '.join(arguments)}")


class Walker:
    """Follows commands, beginning in the repository's root."""

    def __init__(self) -> None:
        self.folder = ""
        self.forwarded: set[int] = set()
        self._programs: dict[str, Callable[[list[str]], None]] = {
            "docker-compose": self._compose, "docker": self._docker, "kubectl": self._kubectl, "curl": self._curl,
            "k6": self._k6, "ab": self._ab, "open": self._open, "cp": self._cp, "cd": self._cd, "jivs": self._jivs,
            "make": self._make, "promtool": self._promtool, "tools/rollback-verdict.py": self._verdict, "pg_dump": self._ours,
            "python3": self._python, "sha256sum": self._ours,
        }  # fmt: skip

    def follow(self, line: str) -> None:
        """One command line. Raises UnknownError."""
        for inner in re.findall(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)", line):
            self.follow(inner)
        line = re.sub(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)", POD, line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
        lexer.whitespace_split = True
        stage: list[str] = []
        for token in [*lexer, "|"]:
            if token in {"|", "&&", ";", "&", "||"}:
                if stage:
                    self._run(stage)
                stage = []
            else:
                stage.append(token)

    def path(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder, name))

    def _run(self, words: list[str]) -> None:
        while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]):
            words = words[1:]
        if "<" in words and words[0] in {"docker", "kubectl"}:
            require({"-i", "-it"} & set(words), f"{words[0]} exec without -i: nothing reaches the command")
        for mark in ("<", ">", ">>"):
            if mark in words:
                words = words[: words.index(mark)]
        if not words or words[0] in PLAIN:
            return
        program = self._programs.get(words[0])
        require(program, f"the program {words[0]}")
        if program:
            program(words[1:])

    def _cd(self, arguments: list[str]) -> None:
        self.folder = self.path(arguments[0])
        require((ROOT / self.folder).is_dir(), f"the folder {self.folder}")

    def _cp(self, arguments: list[str]) -> None:
        file_exists(self.path(arguments[0]))

    def _compose(self, arguments: list[str]) -> None:
        verb, rest = arguments[0], [word for word in arguments[1:] if not word.startswith("-")]
        require(
            verb in {"config", "pull", "down", "up", "ps", "logs", "restart", "exec", "build", "stop", "run"},
            f"docker-compose {verb}",
        )
        if verb in {"exec", "run"}:
            require(rest[0] in services(), f"the service {rest[0]}")
            self._inside(arguments[arguments.index(rest[0]) + 1 :], services()[rest[0]].get("environment", {}))
            return
        scaled = [word.partition("=")[0] for word in rest if "=" in word]
        for name in [*[word for word in rest if "=" not in word], *scaled]:
            require(name in services(), f"the service {name}")

    def _docker(self, arguments: list[str]) -> None:
        verb = arguments[0]
        if verb == "exec":
            rest = arguments[1:]
            while rest[0].startswith("-"):
                rest.pop(0)
            found = [item for item in services().values() if item.get("container_name") == rest[0]]
            require(found, f"the container {rest[0]}")
            self._inside(rest[1:], found[0]["environment"])
        elif verb == "build":
            require("-f" in arguments, "docker build without -f")
            file_exists(self.path(arguments[arguments.index("-f") + 1]))
            require(arguments[-1] == "." and self.folder in ("", "."), "docker build from the repository's root")
        else:
            require(verb in {"push", "tag", "image"}, f"docker {verb}")

    def _inside(self, words: list[str], environment: dict[str, str]) -> None:
        """A command in a container."""
        program, arguments = words[0], words[1:]
        if program in {"psql", "pg_dump"}:
            psql(arguments, environment)
        elif program == "redis-cli":
            require("REDISCLI_AUTH" in environment, "redis-cli has its password")
            redis_cli(arguments)
        elif program == "curl":
            self._curl(arguments, inside=True)
        elif program == "jivs":
            self._jivs(arguments)
        else:
            require(program in {"rabbitmqctl", "df", "du", "printenv"}, f"{program} in a container")

    def _kubectl(self, arguments: list[str]) -> None:
        if "--" in arguments:
            cut = arguments.index("--")
            arguments, command = arguments[:cut], arguments[cut + 1 :]
        else:
            command = []
        flags, words = self._flags(arguments)
        require(flags.get("-n", NAMESPACE) == NAMESPACE, f"namespace {flags.get('-n')}")
        require(flags.get("--namespace", NAMESPACE) == NAMESPACE, f"namespace {flags.get('--namespace')}")
        if label := flags.get("-l"):
            key, _, value = label.partition("=")
            labels = [item["spec"]["template"]["metadata"]["labels"] for item in workloads().values()]
            require(any(found.get(key) == value for found in labels), f"pods with the label {label}")
        verb = words[0]
        if verb == "apply":
            self._apply(flags)
        elif verb == "exec":
            self._inside(command, self._pod(words[1]))
        elif verb in {"rollout", "scale", "set"}:
            for reference in words[1 + (verb in {"rollout", "set"}) :]:
                if "=" not in reference:
                    workload(reference)
        elif verb == "logs":
            workload(words[1])
        elif verb == "port-forward":
            ports = {port["containerPort"] for item in containers(workload(words[1])) for port in item.get("ports", [])}
            local, _, remote = words[2].partition(":")
            require(int(remote) in ports, f"{words[1]} has the port {remote}")
            self.forwarded.add(int(local))
        elif verb in {"get", "top", "wait", "describe"}:
            require(words[1] in {"pods", "pod", "--for=condition=ready"} or "=" in words[1], f"kubectl {verb} {words[1]}")
        elif verb == "edit":
            require(words[1:] == ["configmap", "jivs-backend-config"] and settings_of_cluster(), "the config map is there")
        else:
            require(verb == "create", f"kubectl {verb}")
            self._secret(words, arguments)

    @staticmethod
    def _flags(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
        flags: dict[str, str] = {}
        words: list[str] = []
        rest = iter(arguments)
        for word in rest:
            if word in {"-n", "-l", "-f", "-k", "-o", "--namespace", "-c"}:
                value = next(rest, "")
                flags[word] = value
                if word == "-f" and value.startswith("deployment/"):  # kubectl logs -f: follow
                    words.append(value)
            elif word.startswith("--") and "=" in word:
                flags[word.partition("=")[0]] = word.partition("=")[2]
            elif not word.startswith("-"):
                words.append(word)
        return flags, words

    def _apply(self, flags: dict[str, str]) -> None:
        if "-k" in flags:
            folder = self.path(flags["-k"])
            require(run(tool("kubectl"), "kustomize", folder).returncode == 0, f"kubectl kustomize {folder}")
            return
        path = flags["-f"]
        if path != "-":
            file = ROOT / self.path(path)
            require(any(found == file for found, _ in manifests()), f"the manifest {self.path(path)}")

    @staticmethod
    def _pod(name: str) -> dict[str, str]:
        if name == POD:
            return {}
        if "/" in name:
            return environment_of(workload(name))
        owner, _, number = name.rpartition("-")
        item = objects("StatefulSet").get(owner)
        require(item and int(number) < item["spec"]["replicas"], f"the pod {name}")
        return environment_of(item or {})

    @staticmethod
    def _secret(words: list[str], arguments: list[str]) -> None:
        name = words[3]
        used = {
            reference["name"]: item
            for item in workloads().values()
            for container in containers(item)
            for reference in [
                *[entry["secretRef"] for entry in container.get("envFrom", []) if "secretRef" in entry],
                *[
                    v["valueFrom"]["secretKeyRef"]
                    for v in container.get("env", [])
                    if "secretKeyRef" in v.get("valueFrom", {})
                ],
            ]
        }
        require(words[1:3] == ["secret", "generic"] and name in used, f"the secret {name} is used by a workload")
        keys = [word.partition("=")[2].partition("=")[0] for word in arguments if word.startswith("--from-literal=")]
        if name == "jivs-backend-secrets":
            for key in keys:
                require(key in names.settings(), f"the setting {key}")

    def _curl(self, arguments: list[str], *, inside: bool = False) -> None:
        (url,) = [word for word in arguments if word.startswith("http")]
        self._address(url, inside=inside)

    def _open(self, arguments: list[str]) -> None:
        self._address(arguments[0])

    def _address(self, url: str, *, inside: bool = False) -> None:
        host, port, path = re.fullmatch(r"http://([\w.-]+):?(\d*)([^?]*).*", url).groups()  # type: ignore[union-attr]
        require(host in {"localhost", "127.0.0.1", "your-api-url"}, f"the address {url}")
        if host != "your-api-url":
            published = {int(entry.split(":")[1]) for item in services().values() for entry in item.get("ports", [])}
            backend = pods(workloads()["jivs-backend"])["containers"][0]["ports"]
            inner = {entry["containerPort"] for entry in backend}
            require(int(port) in (inner if inside else published | self.forwarded), f"the port {port}")
        if port in {"8080", "9010"} or host == "your-api-url":
            served = names.routes()
            require(any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path) for route in served), f"the path {path}")

    def _ab(self, arguments: list[str]) -> None:
        require("-H" in arguments, "ab without a token measures how fast requests are refused")
        self._address(arguments[-1])

    def _k6(self, arguments: list[str]) -> None:
        require(arguments[0] == "run", f"k6 {arguments[0]}")
        file_exists(self.path(arguments[-1]))

    def _verdict(self, arguments: list[str]) -> None:
        file_exists("tools/rollback-verdict.py")
        for url in arguments:
            if url.startswith("http"):
                self._address(url)

    def _promtool(self, arguments: list[str]) -> None:
        file_exists(self.path(arguments[-1]))

    def _python(self, arguments: list[str]) -> None:
        if arguments[0] != "-c":
            file_exists(self.path(arguments[0]))

    def _ours(self, arguments: list[str]) -> None:
        """Programs that are given files of the operator."""

    def _jivs(self, arguments: list[str]) -> None:
        words = [word for word in arguments if not word.startswith("-")]
        verb = words[0] if words else "--version"
        require(verb in names.verbs() | {"--version"}, f"jivs {verb}")

    def _make(self, arguments: list[str]) -> None:
        for target in arguments:
            require(target in names.targets(), f"make {target}")
