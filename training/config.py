"""The recipe: every setting of a training run, frozen, with unknown keys refused."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import msgspec
from msgspec import Meta

from embeddings.catalogue.columns import ChannelRule
from embeddings.catalogue.context import Identifier
from embeddings.catalogue.tables import TargetType
from embeddings.errors import InvalidInput
from embeddings.explained import explained

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]

RECIPES = Path(__file__).parent / "recipes"

_LEAST_DAYS, _PARTS = 4, 3
"""Over how many days purchases must reach, and into how many parts they are cut, one of which is held out."""

_RENAMED = {"questions_a_window": "examples_a_window", "questions_a_batch": "examples_a_batch"}
"""Keys of earlier recipes, and what they are called now."""

CHANNELS = {
    **dict.fromkeys(("web", "app", "email", "push", "sms", "call-centre"), ChannelRule.EVERYTHING),
    "store": ChannelRule.ASSORTMENT,
    "mailer": ChannelRule.PROMOTED,
}
"""The channels of a recipe that declares none."""


AHEAD_CHANNELS = ("email", "push", "sms")
"""The channels whose messages go out ahead of a visit, in a recipe that names none."""

_NO_ZONES = ("localtime", "posixrules", "Factory")
"""Names of files beside the zones that are none, or another one on each machine."""


class TablesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the input tables are written; see the recipe for each key."""

    separator: Literal[",", ";", "\t", "|"] = ","
    decimal: Literal[".", ","] = "."
    time_zone: str = ""
    unlisted_products: Literal["keep", "refuse"] = "keep"
    negative_quantities: Literal["refuse", "return"] = "refuse"
    context_attributes: Annotated[tuple[Identifier, ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        """Refuse settings with which tables cannot be read."""
        if self.separator == self.decimal:
            raise ValueError("expected a separator other than the decimal comma")
        if self.time_zone and (self.time_zone in _NO_ZONES or self.time_zone not in available_timezones()):
            raise ValueError(f"expected a time_zone such as UTC or Europe/Berlin; got {self.time_zone!r}")


class AssortmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What locations carry and what is popular there; see the recipe for each key."""

    popularity_daily_decay: Share = 0.98
    comparable_size: Share = 0.1
    comparable_share: Share = 0.5


class WaysConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ways in which requests ask, as shares of what the model learns from; see the recipe for each key."""

    without_place: Share = 0.3
    within_radius: Share = 0.1
    ahead: Share = 0.15
    ahead_channels: Annotated[tuple[Identifier, ...], Meta(max_length=100)] = AHEAD_CHANNELS

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to be asked at a place."""
        together = self.without_place + self.within_radius + self.ahead
        if together > 1:
            raise ValueError(
                f"expected shares without_place, within_radius and ahead of at most 1 together; got {together:g}"
            )


MOST_EPOCHS = 20
"""So many rounds of few data are enough, however many steps a recipe wants at least."""


def epochs_of(epochs: int, least_steps: int, steps: int) -> int:
    """Return how many epochs to fit: those of the recipe, or as many more as make the least steps of few data.

    Args:
        epochs: of the recipe.
        least_steps: of the recipe.
        steps: that an epoch has.
    """
    return max(epochs, min(-(-least_steps // max(steps, 1)), MOST_EPOCHS))


class TowersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shape of the two towers."""

    dimensions: Count = 64
    history_length: Count = 64
    heads: Count = 4
    id_dropout: Share = 0.1

    def __post_init__(self) -> None:
        """Refuse heads of unequal width."""
        if self.dimensions % self.heads:
            raise ValueError(f"expected dimensions that are a multiple of heads, {self.heads}; got {self.dimensions}")


class AlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The warm start of the product ids."""

    iterations: Count = 10
    regularisation: Positive = 0.05


class FitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimisation of the towers."""

    epochs: Count = 1
    least_steps: Annotated[int, Meta(ge=0)] = 400
    most_steps: Count = 1_500
    baskets_a_batch: Count = 256
    targets_a_basket: Count = 8
    uniform_negatives: Count = 1024
    learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-4
    checkpoint_seconds: Annotated[float, Meta(ge=0)] = 30


class RankerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the ranker learns from, and how; see the recipe for each key."""

    windows: Count = 8
    window_days: Count = 28
    examples_a_window: Count = 4_000
    session_share: Share = 0.3
    type_attribute: str = "type"
    category_attribute: str = "category"
    maker_attribute: str = "manufacturer"
    novel_share: Share = 1.0
    new_share: Share = 1.0
    candidates_of_new: Count = 200
    newcomer_share: Share = 0.7
    widths: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=4)] = (96, 48)
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    epochs: Count = 6
    least_steps: Annotated[int, Meta(ge=0)] = 600
    examples_a_batch: Count = 64
    learning_rate: Positive = 4e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-4


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training run's settings, but for its data, its cut-off and its device."""

    channels: Annotated[dict[Identifier, ChannelRule], Meta(min_length=1, max_length=100)] = msgspec.field(
        default_factory=lambda: dict(CHANNELS)
    )
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 1
    validation_days: Annotated[int, Meta(ge=1, le=3_650)] = 28
    keep_versions: Count = 3
    stale_after_days: Positive = 30.0
    targets: Annotated[tuple[TargetType, ...], Meta(min_length=1)] | Literal["auto"] = "auto"
    department_attribute: str = "department"
    visit_pause_minutes: Annotated[float, Meta(ge=0, le=1_440)] | Literal["auto"] = "auto"
    tables: TablesConfig = TablesConfig()
    assortment: AssortmentConfig = AssortmentConfig()
    ways: WaysConfig = WaysConfig()
    towers: TowersConfig = TowersConfig()
    als: AlsConfig = AlsConfig()
    fit: FitConfig = FitConfig()
    ranker: RankerConfig = RankerConfig()

    def __post_init__(self) -> None:
        """Refuse channels ahead of a visit that are not declared; the default ones may be absent."""
        for name in self.ways.ahead_channels:
            if name not in self.channels and self.ways.ahead_channels != AHEAD_CHANNELS:
                raise ValueError(
                    f"expected ways.ahead_channels that [channels] declares: some of {', '.join(self.channels)}; "
                    f"got {name!r}"
                )


def read_recipe(path: Path) -> Recipe:
    """Read a TOML recipe; InvalidInput names the key that is unknown or wrong."""
    return decode_recipe(path, Recipe)


def decode_recipe(path: Path, kind: Any) -> Any:
    """Read a TOML recipe of some kind; InvalidInput names the key that is unknown or wrong, and what may be meant."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise InvalidInput("--recipe", f"expected a readable file; {error}") from error
    except msgspec.ValidationError as error:
        key, expected = explained(error, kind)
        for old, new in _RENAMED.items():
            if f"unknown field `{old}`" in expected:
                expected = f"{old} is called {new} now"
        raise InvalidInput(f"{path}, {key}" if key else str(path), expected) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(str(path), str(error)) from error


def check_attributes(recipe: Recipe, names: Collection[str]) -> None:
    """Refuse a recipe that names an attribute which no product has; the defaults may be absent.

    Args:
        recipe: the settings.
        names: the attributes that products have.

    Raises:
        InvalidInput: naming the key.
    """
    default = Recipe()
    for key, named, usual in (
        ("department_attribute", recipe.department_attribute, default.department_attribute),
        ("ranker.type_attribute", recipe.ranker.type_attribute, default.ranker.type_attribute),
        ("ranker.category_attribute", recipe.ranker.category_attribute, default.ranker.category_attribute),
        ("ranker.maker_attribute", recipe.ranker.maker_attribute, default.ranker.maker_attribute),
    ):
        if named and named != usual and named not in names:
            known = (
                f'one of {", ".join(names)}, or "" for none' if names else '"" for none: products have no attributes'
            )
            raise InvalidInput(f"--recipe, {key}", f"expected {known}; got {named!r}")


def fit_to_span(recipe: Recipe, days: int) -> Recipe:
    """Return a recipe whose windows suit data of so many days: none longer than a third of them.

    Raises:
        InvalidInput: too few days for any.
    """
    if days < _LEAST_DAYS:
        raise InvalidInput("--data", f"expected purchases over at least {_LEAST_DAYS} days; they span {days}")
    most = longest_window(days)
    return msgspec.structs.replace(
        recipe,
        validation_days=min(recipe.validation_days, most),
        ranker=msgspec.structs.replace(recipe.ranker, window_days=min(recipe.ranker.window_days, most)),
    )


def longest_window(days: int) -> int:
    """Return how many days a window of data over so many days may have."""
    return days // _PARTS or 1
