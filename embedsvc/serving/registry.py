"""The keeper of instances: cards by name, and for each card in use the model that is loaded."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from embedsvc.bounds import AD_HOC_MODELS, MODEL_NAME
from embedsvc.catalog.ad_hoc import ad_hoc_card
from embedsvc.catalog.cards import Card, Cards, Prompts
from embedsvc.catalog.names import check_name
from embedsvc.errors import (
    InstanceNotFound,
    Loading,
    ModelNotFound,
    SetupError,
    Stopped,
    Unavailable,
)
from embedsvc.inference.device import Device, open_device
from embedsvc.inference.plan import Plan
from embedsvc.serving.engine import Engine
from embedsvc.serving.failures import Failures
from embedsvc.serving.instance import Description, Instance, State, describe
from embedsvc.serving.loader import Loader
from embedsvc.serving.model_memory import SHARE, Memory
from embedsvc.settings import Settings
from embedsvc.texts.prompts import split_name

IDLE_SECONDS = 30.0
"""After so long without requests, buffers kept for the next are given back."""
UNUSED = ("unloaded", "failed")
"""States in which a model without a card may be forgotten."""


class Registry:
    """Cards by name, instances by card; an instance is loaded once, however many ask for it."""

    def __init__(self, cards: Cards, device: Device, settings: Settings) -> None:
        self.cards = cards
        self.device = device
        self.memory = Memory(settings.max_memory or int(device.ops.memory * SHARE))
        self._settings = settings
        self._loader = Loader(device, settings)
        self._instances: dict[str, Instance] = {}  # by card id: the one that takes users
        self._unloading: set[Instance] = set()
        self._known: dict[str, Description] = {}
        self._failures = Failures()
        self._room = asyncio.Lock()
        self._appeared = asyncio.Event()  # another one for each new instance
        self._closed = False
        self._uses = 0
        self._tidying = asyncio.create_task(self._tidy())

    def card(self, name: str, *, field: str = "model") -> tuple[Card, str | None]:
        """The card that a name means, and the prompt that the name names, if any.

        Raises `BadRequest` that names the field if it is no name at all, `ModelNotFound`.
        """
        if len(name) > MODEL_NAME or name not in self.cards.by_name:
            name = check_name(name, field)
        found = split_name(name, self.cards, self._prompts)
        if found is None:
            raise self.cards.not_found(name)
        return found

    def names(self) -> list[str]:
        """Every name that clients may ask for: ids, aliases, ids with a prompt of the model's."""
        cards = self.cards.by_id.values()
        prompted = [f"{card.id}:{prompt}" for card in cards for prompt in self._prompts(card)]
        return [*self.cards.by_name, *prompted]

    def state(self, card: Card) -> State:
        """What state a card's model is in."""
        instance = self._instances.get(card.id)
        return instance.state if instance else "unloaded"

    def description(self, card: Card) -> Description | None:
        """What is known of a model, loaded now or before."""
        return self._known.get(card.id)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[Engine]:
        """The engine of the card that a name means, loaded if need be; it stays meanwhile.

        Raises `ModelNotFound`; `Unavailable` with the reason if it does not load, or just did not;
        `Loading` if that takes longer than requests wait.
        """
        card, _ = self.card(name)
        instance = self._instances.get(card.id)
        if instance is None or instance.closing or instance.over:
            instance = self._try(card)
        with instance.user():
            engine = instance.engine
            if engine is None:
                engine = await self._wait(instance)
            self._uses += 1
            yield engine

    def start(
        self, card: Card, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> Instance:
        """The card's instance, which begins to load if there is none, also where it just failed;
        with these settings if given, else with the card's or the server's."""
        self._failures.forget(card.id)
        return self._start(card, keep_alive=keep_alive, pin=pin)

    def retry_failed(self) -> None:
        """Let models that did not load be tried again by the next request."""
        self._failures.forget()

    def _try(self, card: Card) -> Instance:
        """The same for a request: what failed is left alone for a while."""
        failed = self._instances.get(card.id)
        if failed is not None and failed.state == "failed" and self._failures.wait(card.id):
            raise self._unavailable(failed.card, str(failed.error))
        return self._start(card)

    def _unavailable(self, card: Card, reason: str) -> Unavailable:
        error = Unavailable(reason)
        error.headers["Retry-After"] = self._failures.retry_after(card.id)
        return error

    def _start(
        self, card: Card, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> Instance:
        if self._closed:
            raise Unavailable("The server is shutting down.")
        instance = self._instances.get(card.id)
        if instance is not None and instance.closing and not instance.over:
            self._unloading.add(instance)
        if instance is None or instance.closing or instance.over:
            instance = self._instances[card.id] = Instance(
                card,
                self._loader,
                keep_alive=self._keep_alive(card) if keep_alive is None else keep_alive,
                pinned=card.pin if pin is None else pin,
                find_room=self._find_room,
                changed=self._changed,
            )
            self._appeared.set()
            self._appeared = asyncio.Event()
        else:
            if pin is not None:
                instance.set_pinned(pin)
            if keep_alive is not None:
                instance.set_keep_alive(keep_alive)
        return instance

    async def find_card(self, name: str, *, field: str = "model") -> Card:
        """The card that a name means, or where the server allows it a new one: of a repository, or
        of a folder (it begins with "./" or "/") in the cards file's own.

        Raises what `card` raises, and `Unavailable` if too many models without a card are in use.
        """
        try:
            return self.card(name, field=field)[0]
        except ModelNotFound as error:
            if not self._settings.allow_ad_hoc:
                raise
            unknown = error
        name = check_name(name, field)
        root = self.cards.file.parent
        card = await self._loader.look(lambda: ad_hoc_card(name, root))
        if card is None:
            raise unknown
        return self._adopt(card, name)

    def _adopt(self, card: Card, name: str) -> Card:
        """Remember a card that clients asked for by that name, and forget another if need be."""
        ad_hoc = self.cards.ad_hoc
        if card.id not in ad_hoc and len(ad_hoc) >= AD_HOC_MODELS:
            unused = [each for each in ad_hoc.values() if self.state(each) in UNUSED]
            if not unused:
                raise Unavailable(
                    f"{AD_HOC_MODELS} models without a card are loaded, and no more may be: unload "
                    "one, or give this one a card."
                )
            self._forget(min(unused, key=lambda each: self.state(each) != "failed"))
        self.cards = self.cards.with_ad_hoc(card, name)
        return self.cards.ad_hoc[card.id]

    def _forget(self, card: Card) -> None:
        self.cards = self.cards.without(card.id)
        self._instances.pop(card.id, None)
        self._known.pop(card.id, None)
        self._failures.forget(card.id)

    def replace(self, old: Card, new: Card | None) -> None:
        """Have a card's instance be as its new card says, or go if there is none.

        If it has to be loaded anew, those that use it are answered first; others wait for the new.
        """
        instance = self._instances.get(old.id)
        if new is None or not new.loads_like(old):
            self._known.pop(old.id, None)
            self._failures.forget(old.id)
            if instance is not None:
                again = new is not None and not instance.over
                self.unload(instance)
                if new is not None and again:
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
        """Those that are there, failed ones too until they are tried again."""
        return [*self._instances.values(), *self._unloading]

    def instance(self, name: str) -> Instance:
        """The instance with that id. Raises `InstanceNotFound`."""
        for instance in self.instances():
            if instance.id == name:
                return instance
        raise InstanceNotFound(name)

    async def appearance(self, card: Card) -> Instance:
        """The card's instance, when there is one."""
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
        """Preloaded models that are on their way, or did not load."""
        waited_for = ("downloading", "loading", "failed")
        cards = [card for card in self.cards.by_id.values() if card.preload]
        return [card.id for card in cards if self.state(card) in waited_for]

    def engines(self) -> dict[str, Engine]:
        """The engines that are loaded, by the id of their card."""
        found = {each.card.id: each.engine for each in self._instances.values()}
        return {name: engine for name, engine in found.items() if engine is not None}

    async def close(self) -> None:
        """Refuse what waits, finish what runs."""
        self._closed = True
        self._tidying.cancel()
        await asyncio.gather(*(instance.abandon() for instance in self.instances()))
        self._loader.close()

    async def _wait(self, instance: Instance) -> Engine:
        try:
            return await asyncio.wait_for(instance.loaded(), self._settings.load_wait_seconds)
        except TimeoutError:
            raise Loading(instance.card.id, instance.state, instance.progress) from None
        except SetupError as error:
            raise self._unavailable(instance.card, str(error)) from None

    async def _find_room(self, instance: Instance, plan: Plan) -> None:
        """Take memory for an instance, and unload others for it; those who wait take turns."""
        size = plan.size
        async with self._room:
            while True:
                if self._closed or (instance.closing and not instance.users):
                    raise Stopped(f"model `{instance.card.id}` was unloaded before it was ready")
                if self.memory.fits(size):
                    break
                others = [each for each in self.instances() if each is not instance and each.size]
                kept = sum(each.size for each in others if each.pinned and not each.closing)
                self.memory.check(instance.card.id, size, kept)
                await asyncio.wait([self.unload(_next_to_go(others))])
            instance.size = size
            self.memory.take(instance, size)

    def _changed(self, instance: Instance) -> None:
        card, engine = instance.card, instance.engine
        if instance.state == "ready" and engine is not None:
            self._known[card.id] = describe(engine)
            self._failures.forget(card.id)
        elif instance.over:
            if instance.state == "failed" and self._instances.get(card.id) is instance:
                self._failures.add(card.id)
            self.memory.give_back(instance)
            instance.size = 0
            self._unloading.discard(instance)
            if instance.state == "unloaded" and self._instances.get(card.id) is instance:
                del self._instances[card.id]

    async def _tidy(self) -> None:
        """Give back what is kept for the next request, when none has come for a while."""
        before = tidied = 0
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            if self._uses == before != tidied:
                tidied = before
                await self.device.run(self.device.ops.release)
            before = self._uses

    def _prompts(self, card: Card) -> Prompts:
        """The prompts known so far: a model that was never loaded may have more in its files."""
        known = self._known.get(card.id)
        return known.prompts if known else card.prompts or {}

    def _keep_alive(self, card: Card) -> float:
        return self._settings.keep_alive if card.keep_alive is None else card.keep_alive


@asynccontextmanager
async def open_registry(cards: Cards, settings: Settings) -> AsyncGenerator[Registry]:
    """A registry on a device of its own, its models preloaded; at the end both are closed.

    Raises `SetupError`.
    """
    device = open_device(settings.backend, settings.cores)
    registry = Registry(cards, device, settings)
    try:
        await registry.preload()
        yield registry
    finally:
        await registry.close()
        device.close()


def _next_to_go(instances: Iterable[Instance]) -> Instance:
    """One that is going already, else the idle one that was used least lately, else a busy one: it
    goes when its requests are answered, or a model in constant use would keep others out for ever.
    """
    return min(
        (each for each in instances if each.closing or not each.pinned),
        key=lambda each: (not each.closing, each.users > 0, each.state != "ready", each.last_used),
    )
