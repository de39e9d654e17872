"""Chats with tool calls in the Hermes form, so that a server's tool parser has something to parse."""

from __future__ import annotations

import json
import random
from typing import Any

from talk import WORDS, asked

Json = dict[str, Any]
CITIES: list[str] = WORDS["cities"].split()


def _tool(tool: str, description: str, **parameters: str) -> Json:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": tool, "description": description, "parameters": schema}}


TOOLS = {
    "get_weather": _tool("get_weather", "Get the weather in a city.", city="string"),
    "get_time": _tool("get_time", "Get the local time in a city.", city="string"),
    "add": _tool("add", "Add two numbers.", a="integer", b="integer"),
    "list_pods": _tool("list_pods", "List the pods."),
    "stop_model": _tool("stop_model", "Stop a model.", name="string"),
    "start_model": _tool("start_model", "Start a model.", name="string"),
}


def _call(rng: random.Random) -> tuple[str, str, Json, str, str]:
    """A question, the tool it needs, its arguments, what the tool gives, and the answer."""
    name = rng.choice(list(TOOLS))
    city = rng.choice(CITIES)
    if name == "get_weather":
        sky, degrees = rng.choice(["sunny", "rainy", "cloudy", "windy", "foggy"]), rng.randint(-5, 35)
        result = json.dumps({"sky": sky, "degrees": degrees})
        answer = f"It is {sky} in {city}, at {degrees} degrees."
        return asked("tool_weather", rng, c=city), name, {"city": city}, result, answer
    if name == "get_time":
        time = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        return asked("tool_time", rng, c=city), name, {"city": city}, time, f"It is {time} in {city}."
    if name == "add":
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        ask = asked("tool_add", rng, a=str(a), b=str(b))
        return ask, name, {"a": a, "b": b}, str(a + b), f"{a} plus {b} is {a + b}."
    if name == "list_pods":
        pod = rng.choice(["local", "alpha", "beta", "lab", "gpu1"])
        return asked("tool_pods", rng), name, {}, json.dumps([pod]), f"You have one pod: {pod}."
    model = rng.choice(["tiny", "llama", "qwen", "phi", "gemma", "mistral"])
    word = "stop" if name == "stop_model" else "start"
    done = f"Done: {model} was {'stopped' if word == 'stop' else 'started'}."
    return asked("tool_model", rng, w=word, m=model), name, {"name": model}, "ok", done


def tool_chat(rng: random.Random) -> tuple[list[Json], list[Json]]:
    """The messages of one chat and the tools it offers."""
    ask, name, arguments, result, answer = _call(rng)
    offered = {name, *rng.sample(list(TOOLS), rng.randint(0, 2))}
    tools = [TOOLS[key] for key in sorted(offered)]
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    messages: list[Json] = [
        {"role": "user", "content": ask},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    if rng.random() < 0.5:
        messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    if rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
    return messages, tools
