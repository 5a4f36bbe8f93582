"""Where a Spark session starts: for a build of features, and for an evaluation."""

from collections.abc import Mapping
from typing import Any

from contract.errors import ConfigError


def start_spark(master: str, application: str, settings: Mapping[str, str], setting: str) -> Any:
    """Start a session on a master, or join the one that this process has.

    Args:
        master: Spark's name of the cluster, such as ``local[2]``.
        application: What Spark calls the session.
        settings: Spark's own settings, by name.
        setting: What asks for Spark, for the error message.

    Raises:
        ConfigError: PySpark is not installed.
    """
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an optional dependency of several hundred megabytes
    except ImportError as error:
        message = f"{setting}, but PySpark is not installed: pip install pyspark==4.3.0 (it needs Java 17)"
        raise ConfigError(message) from error
    builder = SparkSession.builder.master(master).appName(application)
    for name, value in ({"spark.ui.enabled": "false"} | dict(settings)).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
