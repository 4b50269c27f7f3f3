"""The registry: cards by name, and for each card in use an instance of its model."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, Unpack

from embedsvc.bounds import MODEL_NAME
from embedsvc.catalog.cards import Card, Cards, Prompts, Task
from embedsvc.catalog.names import check_name
from embedsvc.errors import InstanceNotFound, Loading, SetupError, Unavailable
from embedsvc.inference.device import Device, open_device
from embedsvc.inference.gpu import unused_gpu
from embedsvc.serving.engine import Engine
from embedsvc.serving.failures import Failures
from embedsvc.serving.instance import Description, Instance, State, Wishes, describe
from embedsvc.serving.loader import Loader
from embedsvc.serving.model_memory import memory_for_models
from embedsvc.serving.outline import Outlines
from embedsvc.serving.room import Room
from embedsvc.settings import Settings
from embedsvc.texts.prompts import split_name

T = TypeVar("T")
log = logging.getLogger(__name__)
IDLE_SECONDS = 30.0
"""After so long without requests, the buffers that the device keeps for the next are given back."""


class Registry:
    """On the event loop. An instance is loaded once, however many ask for it."""

    def __init__(self, cards: Cards, device: Device, settings: Settings) -> None:
        self.cards = cards
        self.device = device
        self.settings = settings
        self.memory = memory_for_models(device.ops, settings.max_memory)
        self._loader = Loader(device, settings)
        self._instances: dict[str, Instance] = {}
        """By the ids of cards: the instances that take users."""
        self._unloading: set[Instance] = set()
        """Those that take no users any more and still have memory."""
        self._descriptions: dict[str, Description] = {}
        """By the ids of cards: what is known of models that are or were loaded."""
        self.outlines = Outlines(self._loader.outline)
        self._failures = Failures()
        self._room = Room(self.memory, self)
        self._appeared = asyncio.Event()
        """Set when an instance is made, and replaced by a new event then."""
        self._closed = False
        self._uses = 0
        """How often an engine was used, or an instance changed its state: loads leave buffers."""
        self._tidying = asyncio.create_task(self._release_when_idle())

    def card(self, name: str, *, field: str = "model") -> tuple[Card, str | None]:
        """The card that a name means, and the prompt that the name names, if any.

        Raises `ModelNotFound`, and `BadRequest` that names the field if it cannot be a name.
        """
        if len(name) > MODEL_NAME or name not in self.cards.by_name:
            name = check_name(name, field)
        found = split_name(name, self.cards, self._prompts)
        if found is None:
            raise self.cards.not_found(name)
        return found

    def names(self) -> list[str]:
        """Every name that clients may ask for: ids, aliases, and ids with one of their prompts."""
        cards = self.cards.by_id.values()
        prompted = [f"{card.id}:{prompt}" for card in cards for prompt in self._prompts(card)]
        return [*self.cards.by_name, *prompted]

    def state(self, card: Card) -> State:
        """The state of a card's model."""
        instance = self._instances.get(card.id)
        return instance.state if instance else "unloaded"

    def description(self, card: Card) -> Description | None:
        """What is known of a model that is or was loaded."""
        return self._descriptions.get(card.id)

    def tasks(self, card: Card) -> tuple[Task, ...]:
        """What a card's model gives: what its files say if it is or was loaded, else its card."""
        known = self._descriptions.get(card.id)
        return known.tasks if known else (card.task or "embed",)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[Engine]:
        """The engine of the card that a name means, loaded if need be. It stays while it is used.

        Raises `ModelNotFound`; `Unavailable` with the reason if it does not load, or just did not;
        `Loading` if that takes longer than requests wait.
        """
        card, _ = self.card(name)
        instance = self._instances.get(card.id)
        if instance is None or instance.closing or instance.over:
            instance = self._start_unless_it_just_failed(card)
        with instance.user():
            engine = instance.engine
            if engine is None:
                engine = await self._wait_for(instance)
            self._uses += 1
            yield engine

    def start(self, card: Card, **wishes: Unpack[Wishes]) -> Instance:
        """The card's instance. If there is none, it is made and begins to load.

        That is so even where the model just failed to load.
        """
        self._failures.forget(card.id)
        return self._start(card, **wishes)

    def forget(self, card: Card) -> None:
        """Forget a card that is not in the file, whose model is not loaded."""
        self.cards = self.cards.without(card.id)
        self._instances.pop(card.id, None)
        self._descriptions.pop(card.id, None)
        self._failures.forget(card.id)

    def retry_failed(self) -> None:
        """Let models that did not load be tried again by the next request."""
        self._failures.forget()

    async def look_up(self, on_disk: Callable[[], T]) -> T:
        """The result of a function that reads the disk, which may be slow, on a thread."""
        return await self._loader.look_up(on_disk)

    def replace(self, old: Card, new: Card | None) -> None:
        """Let a card's instance follow its new card, or unload it if there is none.

        If the model has to be loaded anew, requests that use it are answered first, and others wait
        for the new instance.
        """
        instance = self._instances.get(old.id)
        if new is None or not new.loads_like(old):
            self._descriptions.pop(old.id, None)
            self._failures.forget(old.id)
            if instance is not None:
                over = instance.over
                self.unload(instance)
                if new is not None and not over:
                    self.start(new)
        elif instance is not None:
            instance.card = new
            if new.pin != old.pin:
                instance.set_pinned(new.pin)
            if new.keep_alive != old.keep_alive:
                instance.set_keep_alive(self._keep_alive(new))

    def start_preloaded(self) -> list[Instance]:
        """The instances of the cards that ask to be loaded before they are used."""
        return [self.start(card) for card in self.cards.by_id.values() if card.preload]

    def instances(self) -> list[Instance]:
        """All instances, failed ones too until they are tried again."""
        return [*self._instances.values(), *self._unloading]

    def instance(self, name: str) -> Instance:
        """The instance with that id. Raises `InstanceNotFound`."""
        for instance in self.instances():
            if instance.id == name:
                return instance
        raise InstanceNotFound(name)

    async def appearance(self, card: Card) -> Instance:
        """The card's instance, once there is one."""
        while card.id not in self._instances:
            appeared = self._appeared
            await appeared.wait()
        return self._instances[card.id]

    def unload(self, instance: Instance) -> "asyncio.Task[None]":
        """Close an instance; the task ends when its memory is given back."""
        if self._instances.get(instance.card.id) is instance:
            del self._instances[instance.card.id]
            if not instance.over:
                self._unloading.add(instance)
        return instance.close()

    async def preload(self) -> list[Engine]:
        """Load the cards that ask for it. Raises `SetupError`."""
        return [await instance.loaded() for instance in self.start_preloaded()]

    def missing(self) -> list[str]:
        """The ids of preloaded models that are still loading, or failed to load."""
        missing = ("downloading", "loading", "failed")
        cards = [card for card in self.cards.by_id.values() if card.preload]
        return [card.id for card in cards if self.state(card) in missing]

    def engines(self) -> dict[str, Engine]:
        """The engines that are loaded, by the id of their card."""
        engines = {each.card.id: each.engine for each in self._instances.values()}
        return {name: engine for name, engine in engines.items() if engine is not None}

    async def close(self) -> None:
        """Unload all models: refuse requests that wait, and answer those that are computed."""
        self._closed = True
        self._tidying.cancel()
        await asyncio.gather(*(instance.abandon() for instance in self.instances()))
        self._loader.close()

    def _start_unless_it_just_failed(self, card: Card) -> Instance:
        """What a request starts: a model that failed to load is left alone for a while."""
        failed = self._instances.get(card.id)
        if failed is not None and failed.state == "failed" and self._failures.wait(card.id):
            raise self._unavailable(failed.card, str(failed.error))
        return self._start(card)

    def _start(self, card: Card, **wishes: Unpack[Wishes]) -> Instance:
        if self._closed:
            raise Unavailable("The server is shutting down.")
        keep_alive, pin = wishes.get("keep_alive"), wishes.get("pin")
        instance = self._instances.get(card.id)
        if instance is not None and instance.closing and not instance.over:
            self._unloading.add(instance)
        if instance is None or instance.closing or instance.over:
            instance = self._instances[card.id] = Instance(
                card,
                self._loader,
                keep_alive=self._keep_alive(card) if keep_alive is None else keep_alive,
                pinned=card.pin if pin is None else pin,
                find_room=self._room.find,
                state_changed=self._state_changed,
                identity=wishes.get("identity"),
            )
            self._appeared.set()
            self._appeared = asyncio.Event()
        else:
            if pin is not None:
                instance.set_pinned(pin)
            if keep_alive is not None:
                instance.set_keep_alive(keep_alive)
        return instance

    async def _wait_for(self, instance: Instance) -> Engine:
        try:
            return await asyncio.wait_for(instance.loaded(), self.settings.load_wait_seconds)
        except TimeoutError:
            raise Loading(instance.card.id, instance.state, instance.progress) from None
        except SetupError as error:
            raise self._unavailable(instance.card, str(error)) from None

    def _unavailable(self, card: Card, reason: str) -> Unavailable:
        headers = {"Retry-After": self._failures.retry_after(card.id)}
        return Unavailable(reason, headers=headers)

    def _state_changed(self, instance: Instance) -> None:
        self._uses += 1
        card, engine = instance.card, instance.engine
        if instance.outline is not None:
            self.outlines.keep(card, instance.outline)
        if instance.state == "ready" and engine is not None:
            self._descriptions[card.id] = describe(engine)
            self._failures.forget(card.id)
        elif instance.over:
            if instance.state == "failed" and self._instances.get(card.id) is instance:
                self._failures.add(card.id)
            self.memory.give_back(instance)
            instance.size = 0
            self._unloading.discard(instance)
            if instance.state == "unloaded" and self._instances.get(card.id) is instance:
                del self._instances[card.id]

    async def _release_when_idle(self) -> None:
        """Give back the device's spare buffers once nothing has been done for a while."""
        before = released = 0
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            if self._uses == before != released:
                released = before
                await self.device.run(self.device.ops.release)
            before = self._uses

    def _prompts(self, card: Card) -> Prompts:
        """The prompts known so far. A model that was never loaded may have more in its files."""
        known = self._descriptions.get(card.id)
        return known.prompts if known else card.prompts or {}

    def _keep_alive(self, card: Card) -> float:
        return self.settings.keep_alive if card.keep_alive is None else card.keep_alive


@asynccontextmanager
async def open_registry(cards: Cards, settings: Settings) -> AsyncGenerator[Registry]:
    """A registry with a device and its preloaded models. Both are closed at the end.

    Raises `SetupError`.
    """
    device = open_device(settings.backend, settings.cores, settings.dtype)
    unused = unused_gpu() if settings.backend == "auto" and device.ops.name != "mlx" else None
    if unused is not None and unused.mendable:
        log.warning("no GPU is used: %s; what helps: %s", unused.why, unused.hint)
    registry = Registry(cards, device, settings)
    try:
        await registry.preload()
        yield registry
    finally:
        await registry.close()
        device.close()
