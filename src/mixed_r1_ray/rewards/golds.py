"""Several gold answers to one question, any of which will do."""

from __future__ import annotations

import json
import re

from mixed_r1_ray.rewards.parse import GoldError

_ANY_OF = re.compile(r'\s*\{\s*"any_of"\s*:')


def several_golds(gold: str, list_is_several: bool = False) -> tuple[str, ...]:
    """The members of `{"any_of": [...]}`, or the text itself. Raises GoldError for an empty one.

    Members are texts, numbers, or lists of these (a list answer, for chart). list_is_several: a plain JSON
    list of texts says the same as any_of; then no member can be a list.
    """
    texts: object = [gold]
    try:
        if _ANY_OF.match(gold):
            found = json.loads(gold, parse_int=str, parse_float=str, parse_constant=str)
            texts = found["any_of"] if len(found) == 1 else None
            if isinstance(texts, list) and not list_is_several:
                texts = [
                    json.dumps(text, ensure_ascii=False) if isinstance(text, list) else text for text in texts
                ]
        elif list_is_several and gold.lstrip().startswith('["'):
            texts = json.loads(gold)
    except (ValueError, RecursionError) as error:
        if _ANY_OF.match(gold):
            raise GoldError(f"gold {gold[:80]!r} is not JSON: {error}") from None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise GoldError(
            f"gold {gold[:80]!r} is empty, or a list that holds something else than texts; several answers "
            'are written {"any_of": ["one", "other"]}'
        )
    return tuple(texts)
