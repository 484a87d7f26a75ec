"""What says that a record holds no image that can be read, or none that is to be read now."""


class BadImage(Exception):
    """A record holds no image, one that is broken, or one that is not as it must be.

    Attributes:
        what: What is wrong.
        fix: What to do about it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class LargeImage(Exception):
    """A record holds an image for which more memory is needed than may be taken now."""
