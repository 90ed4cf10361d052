"""What all sections of the configuration have in common: their base, and the ranges of numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth(value: Any) -> Any:
    """The value, unless it is true or false: pydantic would take these, and a flag without a value, as 1 and 0."""
    if value is True or value is False:
        raise ValueError("must be a number (a flag without a value means true)")
    return value


Float = Annotated[float, BeforeValidator(_no_truth)]
Int = Annotated[int, BeforeValidator(_no_truth)]
Fraction = Annotated[Float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Float, Field(gt=0.0)]
Weight = Annotated[Float, Field(ge=0.0)]


class Section(BaseModel):
    """Base of every section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
