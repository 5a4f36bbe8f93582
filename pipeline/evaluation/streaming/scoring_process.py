"""One of several processes that score rows: ``python -m pipeline.evaluation.streaming.scoring_process DESCRIPTOR``.

`scoring` starts it. It is told once what to score, then stretches of rows, and writes the predictions of each into a
file of Arrow record batches, which cost the other side nothing to read.
"""

import os
import signal
import socket
import sys
import threading
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import pyarrow as pa

from contract.errors import MoerankError
from pipeline.evaluation.predictions import predict_stretches
from serving.graph.engine import Engine
from serving.grpc_server.process_channel import Message, ProcessChannel


def main(channel: ProcessChannel) -> None:
    """Score until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent's to handle.
    # Decoding takes a twentieth of the time, and the other cores have work.
    pa.set_cpu_count(1)
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, messages), daemon=True).start()
    job = messages.get()
    try:
        engine = Engine(Path(job["bundle"]), threads=job["threads"])
        while True:
            begin, end = messages.get()["rows"]
            channel.send(_scored(engine, job, (begin, end)))
    except MoerankError as error:
        channel.send({"failed": str(error), "reason": error.reason})


def _listen(channel: ProcessChannel, messages: "SimpleQueue[Message]") -> None:
    for message in channel.messages():
        messages.put(message)
    os._exit(0)  # Nobody waits for what is being scored.


def _scored(engine: Engine, job: Message, rows: tuple[int, int]) -> Message:
    """Write the predictions of a stretch, a record batch at a time."""
    stretches = predict_stretches(engine, Path(job["data"]), engine.schema, rows=rows)
    first, file = next(stretches), Path(job["folder"]) / f"{rows[0]}.arrow"
    with pa.ipc.new_file(str(file), first.table().schema) as sink:
        for stretch in chain([first], stretches):
            sink.write_table(stretch.table())
    return {"file": str(file), "about": first.about()}


if __name__ == "__main__":
    main(ProcessChannel(socket.socket(fileno=int(sys.argv[1]))))
