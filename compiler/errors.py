"""What other libraries and files say, as a part of one sentence."""


def quoted(name: str | bytes) -> str:
    """A name from a file, printable and in quotes; beyond 200 letters without its middle. Bytes are names that are not
    UTF-8."""
    text = repr(name)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-95:]}"


def first_line(error: Exception) -> str:
    """The first paragraph of an error's message as one line, cut to 300 letters; its type where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).strip().split("\n\n")[0].split())[:300] or type(error).__name__
