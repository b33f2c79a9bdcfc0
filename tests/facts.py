"""What a text must hold, whatever its words."""


def holds(text: str, *facts: object) -> None:
    """Each fact, a number, a setting, a name, stands in the text."""
    for fact in facts:
        assert str(fact) in text, f"{fact} is missing in: {text}"
