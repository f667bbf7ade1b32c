"""YAML read as plain values, within limits: a few hundred bytes of aliases can stand for more than a memory holds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

# The longest config of this project has 5 kB.
MAX_YAML_BYTES = 2**18
_MAX_VALUES = 20_000
_MAX_DEPTH = 32
# Longer ones are no settings, and Python takes the square of their length to read them.
_MAX_DIGITS = 40
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: safe loader, no tags of its own. Aliases count as often as they are used.

    Raises:
        ValueError: it is no YAML, or beyond a limit; says which.
    """
    # Not at the top, as below: settings given in Python need no YAML.
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_YAML_BYTES}")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, TypeError, OverflowError) as error:
        raise ValueError(str(error)[:500]) from error
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels") from None
    finally:
        if loader is not None:
            loader.dispose()


def _check(root: "yaml.Node") -> None:
    """Refuse what would cost more than its text, before any value is made of it."""
    import yaml

    left, count = [(root, 0)], 0
    while left:
        node, depth = left.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(
                f"it holds more than {_MAX_VALUES} values, aliases written out, or more than {_MAX_DEPTH} levels"
            )
        if isinstance(node, yaml.MappingNode):
            left += [(inner, depth + 1) for pair in node.value for inner in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += [(inner, depth + 1) for inner in node.value]
        else:
            _check_scalar(node)


def _check_scalar(node: "yaml.Node") -> None:
    text: str = node.value
    if node.tag in _NUMBERS and len(text) > _MAX_DIGITS:
        raise ValueError(f"it holds the number {text[:20]}..., which has {len(text)} characters")
    if "\0" in text:
        raise ValueError("a text in it holds a NUL character")
    text.encode()  # raises a ValueError for half of a surrogate pair
