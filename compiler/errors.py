"""What other libraries say, as a part of one sentence."""


def first_line(error: Exception) -> str:
    """The first paragraph of an error's message as one line, cut to 300 letters; its type where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).strip().split("\n\n")[0].split())[:300] or type(error).__name__
