"""A number with its unit and its source, and the units a profile knows."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


class Strict(BaseModel):
    """A part of a file: frozen, no unknown field, no type converted in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Quantity(Strict):
    """A number with its unit and where it comes from: a data sheet, a measurement, or a decision of this project."""

    value: int | float
    unit: str
    source: str = Field(min_length=1)

    @field_validator("value", mode="before")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"got {value!r}, expected a number")
        if isinstance(value, int) and value.bit_length() > 64:
            raise ValueError(f"got a number of {value.bit_length()} bits, expected at most 64")
        return value


def _quantity_in(unit: str, *, whole: bool = False) -> AfterValidator:
    def check(quantity: Quantity) -> Quantity:
        if quantity.unit != unit:
            raise ValueError(f"got unit {quantity.unit!r}, expected {unit!r}")
        if not math.isfinite(quantity.value) or quantity.value < 0:
            raise ValueError(f"got {quantity.value} {unit}, expected a finite number of at least 0 {unit}")
        if whole and not isinstance(quantity.value, int):
            raise ValueError(f"got {quantity.value} {unit}, expected a whole number")
        return quantity

    return AfterValidator(check)


def _above_zero(quantity: Quantity) -> Quantity:
    if quantity.value <= 0:
        raise ValueError(f"got {quantity.value} {quantity.unit}, expected more than 0 {quantity.unit}")
    return quantity


_POSITIVE = AfterValidator(_above_zero)
Milliseconds = Annotated[Quantity, _quantity_in("ms"), _POSITIVE]
Pixels = Annotated[Quantity, _quantity_in("px", whole=True), _POSITIVE]
Hertz = Annotated[Quantity, _quantity_in("Hz"), _POSITIVE]
Megahertz = Annotated[Quantity, _quantity_in("MHz"), _POSITIVE]
Cameras = Annotated[Quantity, _quantity_in("cameras", whole=True), _POSITIVE]
Lanes = Annotated[Quantity, _quantity_in("lanes", whole=True), _POSITIVE]
Priority = Annotated[Quantity, _quantity_in("priority", whole=True), _POSITIVE]
Threads = Annotated[Quantity, _quantity_in("threads", whole=True), _POSITIVE]
Cores = Annotated[Quantity, _quantity_in("cores", whole=True)]
Gibibytes = Annotated[Quantity, _quantity_in("GiB"), _POSITIVE]
GigabytesPerSecond = Annotated[Quantity, _quantity_in("GB/s"), _POSITIVE]
