"""A user's reward function, inside its own process: found, called, and its results read."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.options import nearest
from mixed_r1_ray.rewards.process import Reply
from mixed_r1_ray.rewards.sample import RewardSample
from mixed_r1_ray.types import BoxFrame

ENTRY_POINTS = "mixed_r1_ray.rewards"
_LOOP = asyncio.Runner()  # one for all calls: clients that a function keeps are bound to theirs
_MAX_TRACEBACK = 4000  # characters, the last ones
_MAX_DETAIL = 1000


def load(spec: str, timeout_s: float):
    """(form, answer): how the function takes samples, and what calls it. Raises UserError."""
    function = find_function(spec)
    form = _form(spec, function)
    caller = {"one": _one_by_one, "batch": _all_at_once, "concurrent": _concurrently}[form]

    def answer(items: Sequence[dict], reply: Reply, one_by_one: bool) -> None:
        samples = [_sample(item) for item in items]
        if one_by_one:
            for place, sample in enumerate(samples):
                caller(function, [sample], lambda _, *rest, place=place: reply(place, *rest), timeout_s)
        else:
            caller(function, samples, reply, timeout_s)

    return form, answer


def find_function(spec: str) -> Callable:
    """The function of `path.py:function`, or of an installed entry point. Raises UserError."""
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py"):
        installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if spec not in installed:
            hint = nearest(spec, installed) if installed else "; none is installed"
            raise UserError(
                f"reward.custom={spec}: neither path.py:function nor an entry point of the group "
                f"{ENTRY_POINTS}{hint}"
            )
        return _guarded(spec, installed[spec].load)
    if not Path(path).is_file():
        raise UserError(f"reward.custom={spec}: there is no file {path}")
    module = _guarded(spec, lambda: _import_file(Path(path)))
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        hint = nearest(name, defined) if defined else ""
        raise UserError(f"reward.custom={spec}: {path} has no function {name!r}{hint}")
    return function


def read_result(result: object) -> tuple[float | None, str, str | None]:
    """(value, detail, failure) of what a function returned for a sample: a number, or (number, text)."""
    value, detail = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
    try:
        number = float(value) if hasattr(type(value), "__float__") else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = None
    if number is None or not isinstance(detail, str):
        shown = repr(result)[:100]
        return None, f"returned {shown} ({type(result).__name__}), no number nor (number, text)", "raised"
    if not math.isfinite(number):
        return None, f"returned {number}, no finite number", "raised"
    return number, detail[:_MAX_DETAIL], None


def _form(spec: str, function: Callable) -> str:
    """one, batch or concurrent, by the name of the first parameter and whether it is async."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.custom={spec}: its parameters cannot be read ({error})") from None
    needed = [
        p.name
        for p in parameters[1:]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not parameters or parameters[0].name not in ("sample", "samples") or needed:
        said = ", ".join(p.name for p in parameters)
        raise UserError(
            f"reward.custom={spec}: its parameters are ({said}); expected one, named `sample` (it is called "
            "with one) or `samples` (with a list of them)"
        )
    if parameters[0].name == "samples":
        return "batch"
    return "concurrent" if _is_async(function) else "one"


def _one_by_one(function: Callable, samples: list[RewardSample], reply: Reply, timeout_s: float) -> None:
    for place, sample in enumerate(samples):
        try:
            result = read_result(function(sample))
        except BaseException as error:  # sys.exit() in a reward function is an error of one sample
            result = None, _traceback(error), "raised"
        reply(place, *result)


def _all_at_once(function: Callable, samples: list[RewardSample], reply: Reply, timeout_s: float) -> None:
    try:
        returned = function(samples)
        returned = list(_LOOP.run(returned) if inspect.isawaitable(returned) else returned)
        results = [read_result(result) for result in returned]
        if len(results) != len(samples):
            wrong = f"returned {len(results)} values for {len(samples)} samples"
            results = [(None, wrong, "raised")] * len(samples)
    except BaseException as error:
        results = [(None, _traceback(error), "raised")] * len(samples)
    for place, result in enumerate(results):
        reply(place, *result)


def _concurrently(function: Callable, samples: list[RewardSample], reply: Reply, timeout_s: float) -> None:
    async def one(place: int, sample: RewardSample) -> None:
        try:
            async with asyncio.timeout(timeout_s) as limit:
                result = read_result(await function(sample))
        except BaseException as error:
            overran = limit.expired() and isinstance(error, TimeoutError)
            took = f"took longer than {timeout_s:g} s"
            result = (None, took, "overran") if overran else (None, _traceback(error), "raised")
        reply(place, *result)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(place, sample) for place, sample in enumerate(samples)))

    _LOOP.run(all_of_them())


def _import_file(path: Path):
    module_spec = importlib.util.spec_from_file_location(f"custom_reward_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module.__name__] = module  # dataclasses look there
    sys.path.insert(0, str(path.parent.resolve()))  # it may import its neighbours
    module_spec.loader.exec_module(module)
    return module


def _guarded(spec: str, imported: Callable):
    try:
        return imported()
    except BaseException as error:
        only = isinstance(error, SyntaxError)
        where = "".join(traceback.format_exception_only(error)).rstrip() if only else _traceback(error)
        raise UserError(f"reward.custom={spec} cannot be imported:\n{where}") from None


def _traceback(error: BaseException) -> str:
    """From the user's first frame on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        frame = frame.tb_next
    text = "".join(traceback.format_exception(type(error), error, frame or error.__traceback__))
    return text[-_MAX_TRACEBACK:].rstrip()


def _is_async(function: Callable) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _sample(item: dict) -> RewardSample:
    for name in ("choices", "image_size"):
        item[name] = None if item[name] is None else tuple(item[name])
    item["box_frame"] = None if item["box_frame"] is None else BoxFrame(**item["box_frame"])
    return RewardSample(**item)
