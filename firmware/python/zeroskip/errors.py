"""What can go wrong. The message of each error is a sentence for the user."""


class ZeroskipError(Exception):
    """Base of all errors of this package."""


class BoardError(ZeroskipError):
    """A device is missing or does not answer, or the accelerator is not the one that is needed."""


class ImageError(ZeroskipError):
    """A network image is damaged, or of a version that this package cannot read."""


class MapError(ZeroskipError):
    """An array does not fit the input map, or a map in memory is not well-formed."""


class RunError(ZeroskipError):
    """The accelerator stopped with an error.

    ``name``: as in the table of errors in docs/registers.md; ``address``: the address that belongs to it; ``layer``:
    layers that were finished (the next may have begun to read).
    """

    def __init__(self, name, address, layer, text):
        super().__init__(f"the accelerator stopped with {name} at {address:#010x}: {text} ({layer} layers were "
                         "finished)")
        self.name, self.address, self.layer = name, address, layer


class RunTimeout(ZeroskipError):
    """A run took longer than allowed and was stopped."""
