"""What says that a record holds no image that can be read."""


class BadImage(Exception):
    """A record holds no image, one that is broken, or one that is not as it must be.

    Attributes:
        what: What is wrong.
        fix: What to do about it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix
