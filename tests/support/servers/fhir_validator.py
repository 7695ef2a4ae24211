"""The FHIR R4 validator of `web/validate_fhir.mjs` in one Node.js process."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WEB = Path(__file__).parents[3] / "web"
PACKAGE = WEB / "node_modules" / "@medplum" / "core"


class FhirValidator:
    """Validates resources. `close` ends the process."""

    def __init__(self, node: str) -> None:
        self._process = subprocess.Popen(
            [node, "validate_fhir.mjs"],
            cwd=WEB,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._process.communicate()

    def assert_valid(
        self, resource: Any, expressions: Sequence[str] = (), sent: Any = None
    ) -> None:
        """Asserts that a resource is valid and that the expressions select elements of `sent`."""
        request = {"resource": resource, "expressions": [*expressions], "input": sent}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer == {"issues": [], "missing": []}
