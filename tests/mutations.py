"""Break the code under each guarantee, once, and see whether its test notices.

``python -m tests.mutations [NAME ...]``: each mutation replaces one text of one file in a copy of the code and runs the
tests that should fail. What survives is a guarantee that nothing holds. docs/mutations.md has the last result.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("contract", "features", "models", "serving", "pipeline", "moerank", "tests", "benchmarks", "proto", "deploy")


class Mutation(NamedTuple):
    """What is broken, where, how, and the tests that must see it."""

    name: str
    file: str
    before: str
    after: str
    tests: str
    slow: bool = False
    """Whether only tests that are marked slow can see it."""


MUTATIONS = (
    Mutation(
        "two processes work in one directory",
        "contract/files.py",
        "lock.acquire()",
        "lock",
        "tests/pipeline/test_step_cache.py",
    ),
    Mutation(
        "a half-written directory takes the old one's place",
        "contract/files.py",
        "        yield fresh\n",
        "        try:\n            yield fresh\n        except BaseException:\n            pass\n",
        "tests/contract/test_files.py",
    ),
    Mutation(
        "a number of a removed version is given again",
        "serving/store/local_store.py",
        "return max([*versions(store, model), _highest_removed(store / model)]) + 1",
        "return max([0, *versions(store, model)]) + 1",
        "tests/serving/store/test_local_store.py",
    ),
    Mutation(
        "the current version can be removed",
        "serving/store/local_store.py",
        "            raise in_use(model, version)\n",
        "            pass\n",
        "tests/serving/store/test_local_store.py",
    ),
    Mutation(
        "a changed file of a bundle is loaded",
        "serving/store/bundle.py",
        "sha256_of(file) != entry.sha256",
        "sha256_of(file) == ''",
        "tests/serving/store/test_bundle.py tests/faults/test_damage.py",
    ),
    Mutation(
        "a hard-linked file of a bundle is loaded",
        "serving/store/bundle.py",
        "status.st_nlink != 1",
        "status.st_nlink < 1",
        "tests/serving/store/test_bundle.py",
    ),
    Mutation(
        "a bundle with a file that is not listed is loaded",
        "serving/store/bundle.py",
        "if present != listed:",
        "if listed - present:",
        "tests/serving/store/test_bundle.py",
    ),
    Mutation(
        "a changed manifest is believed",
        "serving/store/manifest.py",
        "if manifest.sealed().text().encode() != content:",
        "if not content:",
        "tests/serving/store/test_bundle.py tests/serving/store/test_store_properties.py",
    ),
    Mutation(
        "a failed publication leaves its files",
        "serving/store/bundle.py",
        "            shutil.rmtree(temporary, ignore_errors=True)\n            raise\n",
        "            raise\n",
        "tests/serving/store/test_bundle.py",
    ),
    Mutation(
        "a downloaded version is not verified",
        "serving/store/model_source.py",
        "            bundles.load(beside)\n",
        "",
        "tests/serving/store/test_model_source.py",
    ),
    Mutation(
        "an answer that is not finite is given",
        "serving/graph/engine.py",
        "or not _finite(values)",
        "or values is None",
        "tests/serving/graph",
    ),
    Mutation(
        "a damaged user of the user store is served",
        "serving/graph/user_blob.py",
        "or blob[len(body) :] != _CHECKSUM.pack(zlib.crc32(body))",
        "or not blob",
        "tests/serving/graph/test_users.py",
    ),
    Mutation(
        "any token is let in",
        "serving/grpc_server/security.py",
        "matches = [hmac.compare_digest(_bearer(token), given) for token in self._tokens.value]",
        "matches = [True for token in self._tokens.value]",
        "tests/serving/grpc_server/test_security.py",
    ),
    Mutation(
        "a full server takes every call",
        "serving/grpc_server/admission.py",
        "if self._pool.pending >= self._limit:",
        "if self._pool.pending < 0:",
        "tests/serving/grpc_server/test_limits.py tests/serving/grpc_server/test_native_front.py",
    ),
    Mutation(
        "a stopping server takes new calls",
        "serving/grpc_server/admission.py",
        "        if self.stopping:\n",
        "        if self.stopping is None:\n",
        "tests/serving/grpc_server",
    ),
    Mutation(
        "a canary answers the others' share",
        "serving/registry/traffic.py",
        "< share * 2**64",
        "< (1 - share) * 2**64",
        "tests/serving/registry tests/serving/api/test_wire_properties.py",
    ),
    Mutation(
        "a row sees events of its own moment",
        "features/point_in_time/aggregates.py",
        "preceding=(first, 1 + lag)",
        "preceding=(first, lag)",
        "tests/features/point_in_time tests/features/test_language.py",
    ),
    Mutation(
        "what a user took is drawn as a negative",
        "features/point_in_time/negatives.py",
        "fresh = ~_among(",
        "fresh = _among(",
        "tests/features/point_in_time tests/features/test_language.py",
    ),
    Mutation(
        "a version that fails its golden requests is served",
        "serving/graph/model_graphs.py",
        "            self.engine.check(name, case)\n",
        "            self.engine.tasks\n",
        "tests/serving/registry tests/serving/graph",
    ),
    Mutation(
        "an embargo leaves nothing out",
        "features/incremental/splits.py",
        "rows[TIME] > begin - gap",
        "rows[TIME] > begin",
        "tests/features/test_language.py",
    ),
    Mutation(
        "damaged pages are not looked for",
        "features/source/verify_parquet.py",
        "if _damage(file, group, part) is not None:",
        "if file is None:",
        "tests/features/source/test_verify_parquet.py",
    ),
    Mutation(
        "a leak is found and let pass",
        "features/quality/leakage.py",
        "if leaks and checks.leakage",
        "if not leaks and checks.leakage",
        "tests/features/quality",
    ),
    Mutation(
        "a step is not done again when its stamp changed",
        "pipeline/step_cache.py",
        "earlier is not None and earlier.stamp == stamp and",
        "earlier is not None and",
        "tests/pipeline/test_step_cache.py",
    ),
    Mutation(
        "a damaged checkpoint is read",
        "pipeline/training/checkpoint.py",
        "    if changed:\n",
        "    if changed is None:\n",
        "tests/pipeline/training",
    ),
    Mutation(
        "ctrl-c is not noticed in training",
        "pipeline/training/interruption.py",
        "        self.asked = True\n",
        "        self.asked = False\n",
        "tests/pipeline/training",
    ),
    Mutation(
        "a model that fails a rule is published",
        "pipeline/evaluation/quality_gate.py",
        "        raise QualityGateError(message)\n",
        "        del message\n",
        "tests/pipeline/evaluation/test_quality_gate.py",
    ),
    Mutation(
        "a rule on a metric that is not defined passes",
        "pipeline/evaluation/quality_gate.py",
        'False, text=f"{estimate}, but {sign} {right:g} is asked for")\n    worst',
        'True, text=f"{estimate}, but {sign} {right:g} is asked for")\n    worst',
        "tests/pipeline/evaluation/test_quality_gate.py",
    ),
    Mutation(
        "a graph that differs from the model passes",
        "models/export/parity.py",
        "if (difference > allowed).any():",
        "if (difference > 1e9).any():",
        "tests/models/export/test_parity.py tests/models/export/test_export.py",
    ),
    Mutation(
        "another schema's data is accepted",
        "contract/schema.py",
        "if fingerprint != self.fingerprint():",
        "if not fingerprint:",
        "tests/serving/store tests/serving/graph",
    ),
    Mutation(
        "idle connections are never closed",
        "serving/grpc_server/server_builder.py",
        "if settings.connection_idle_seconds:",
        "if settings.connection_idle_seconds < 0:",
        "tests/serving/grpc_server/test_limits.py",
    ),
    Mutation(
        "a call whose message never comes is never ended",
        "serving/grpc_server/grpcio_call.py",
        "                call.fail(self._status)\n",
        "                call.active\n",
        "tests/serving/grpc_server/test_message_first.py",
    ),
    Mutation(
        "raw bytes that are not a whole number of values are read",
        "serving/api/codec_oip.py",
        "if len(raw) % dtype.itemsize:",
        "if len(raw) < 0:",
        "tests/faults/test_malformed.py",
    ),
    Mutation(
        "a server takes more connections than it has files",
        "serving/grpc_server/server_builder.py",
        '        ("grpc.max_allowed_incoming_connections", settings.max_connections or connections_that_fit()),\n',
        "",
        "tests/faults/test_connections.py",
        slow=True,
    ),
    Mutation(
        "connections that say nothing keep newcomers out",
        "serving/grpc_server/server_builder.py",
        '        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),\n',
        "",
        "tests/faults/test_connections.py",
        slow=True,
    ),
    Mutation(
        "work that nobody waits for any more is done",
        "serving/graph/context.py",
        "        if self.expired:\n",
        "        if self.expires == 0.0:\n",
        "tests/faults/test_overload.py",
    ),
    Mutation(
        "a version that was replaced stays in memory",
        "serving/registry/registry.py",
        "        self._serve({**self._models, name: model})\n",
        "        self.__dict__.setdefault('old', []).append(model)\n"
        "        self._serve({**self._models, name: model})\n",
        "tests/faults/test_soak.py",
        slow=True,
    ),
    Mutation(
        "an answer names another version than gave it",
        "serving/graph/served_model.py",
        "            version=self.version,\n            **ranking(self.policy, scored.predictions,",
        "            version=1,\n            **ranking(self.policy, scored.predictions,",
        "tests/faults/test_swaps.py",
    ),
    Mutation(
        "a killed training goes on at the beginning of its epoch",
        "pipeline/training/epoch_loop.py",
        "rows.stretches(self.progress.epoch, self.progress.row, ",
        "rows.stretches(self.progress.epoch, 0, ",
        "tests/faults/test_killed_training.py",
    ),
)


def survives(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests pass on the broken code.

    Raises:
        LookupError: the text to replace is not in the file, once.
    """
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        message = f"{mutation.file} holds {mutation.before!r} {text.count(mutation.before)} times; mend the mutation"
        raise LookupError(message)
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    marks = f"{'' if mutation.slow else 'not slow and '}not long and not pairs"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", marks]
    command = [sys.executable, "-m", "pytest", *options, *mutation.tests.split()]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        ran = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    if ran.returncode not in (0, 1):
        raise LookupError(ran.stdout[-500:] + ran.stderr[-500:])
    return ran.returncode == 0


def main(names: list[str]) -> int:
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    alive = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for mutation in chosen:
            found = survives(mutation, folder)
            alive += found
            sys.stdout.write(f"{'SURVIVED' if found else 'noticed'}: {mutation.name} ({mutation.file})\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - alive} of {len(chosen)} noticed\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
