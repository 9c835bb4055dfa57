"""Build hook: compiles the native part where there is a C compiler. Without one the package installs and works, slower."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeHook(BuildHookInterface):
    """Adds ``jivs/wire/_native.so`` to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        sources = sorted(Path(self.root, "src/jivs/wire/c").glob("*.c"))
        target = Path(self.root, "src/jivs/wire/_native.so")
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if os.environ.get("JIVS_NO_NATIVE") or not compiler:
            target.unlink(missing_ok=True)
            self.app.display_warning("no C compiler: jivs is built without its native part")
            return
        flags = ["-O3", "-std=c11", "-fPIC", "-shared", "-fvisibility=default"]
        command = [compiler, *flags, *map(str, sources), "-o", str(target)]
        done = subprocess.run(command, check=False)  # noqa: S603 - the compiler that the builder chose
        if done.returncode:
            self.app.display_warning("the native part did not compile: jivs is built without it")
            return
        build_data["artifacts"].append("src/jivs/wire/_native.so")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
