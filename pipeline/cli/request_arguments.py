"""What verbs that ask a server share: features of the moment."""

from contract.errors import ConfigError


def context_from(texts: list[str]) -> dict[str, object]:
    """Features of the moment from ``NAME=VALUE`` texts.

    Raises:
        ConfigError: a text of another form.
    """
    import yaml  # noqa: PLC0415 - keeps `moerank --help` fast

    context: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            message = f"--context {text!r}: write NAME=VALUE, such as --context tab=1"
            raise ConfigError(message)
        context[name] = yaml.safe_load(value)
    return context
