"""The Santander customer as pydantic sees it: what every peer validates before it predicts.

Fields, types, categories and ranges are those of the model's schema; the order of FEATURES is the
order of the model's columns. A categorical value becomes its index in the list of its values.
"""

from math import nan
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

EmployeeIndex = Literal["A", "B", "F", "N", "S"]
Country = Literal["AR", "BR", "CH", "DE", "ES", "FR", "GB", "IT", "MX", "PT", "US", "VE"]
Sex = Literal["H", "V"]
CustomerRelation = Literal["A", "I", "P", "R"]
YesNo = Literal["N", "S"]
Channel = Literal["KAT", "KFA", "KFC", "KHC", "KHE", "KHK", "KHM", "KHN", "KHQ", "RED"]
Province = Literal[
    "ALICANTE",
    "ASTURIAS",
    "BARCELONA",
    "CADIZ",
    "CORUÑA, A",
    "MADRID",
    "MALAGA",
    "MURCIA",
    "SEVILLA",
    "VALENCIA",
    "VALLADOLID",
    "ZARAGOZA",
]
Segment = Literal["01 - TOP", "02 - PARTICULARES", "03 - UNIVERSITARIO"]


class Customer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    ind_empleado: EmployeeIndex
    pais_residencia: Country
    sexo: Sex
    age: Annotated[int, Field(ge=0, le=130)]
    ind_nuevo: Annotated[int, Field(ge=0, le=1)]
    antiguedad: Annotated[int, Field(ge=0, le=1200)]
    indrel: Annotated[int, Field(ge=1, le=99)]
    indrel_1mes: Annotated[int, Field(ge=1, le=4)]
    tiprel_1mes: CustomerRelation
    indresi: YesNo
    indext: YesNo
    conyuemp: YesNo
    canal_entrada: Channel
    indfall: YesNo
    tipodom: Annotated[int, Field(ge=1, le=1)]
    cod_prov: Annotated[int, Field(ge=1, le=52)]
    nomprov: Province
    ind_actividad_cliente: Annotated[int, Field(ge=0, le=1)]
    renta: Annotated[float, Field(ge=0)] | None = None
    segmento: Segment

    # Accepted, not used by the model.
    fecha_dato: str | None = None
    ncodpers: int | None = None
    fecha_alta: str | None = None
    ult_fec_cli_1t: str | None = None


class Predictions(BaseModel):
    predictions: list[list[float]]


UNUSED = {"fecha_dato", "ncodpers", "fecha_alta", "ult_fec_cli_1t"}
FEATURES = [
    (name, {value: float(index) for index, value in enumerate(get_args(field.annotation))})
    if field.annotation not in (int, float) and isinstance(get_args(field.annotation)[0], str)
    else (name, None)
    for name, field in Customer.model_fields.items()
    if name not in UNUSED
]


def to_row(customer: Customer) -> list[float]:
    """The model's columns; a missing number is NaN."""
    values = customer.__dict__
    row = []
    for name, categories in FEATURES:
        value = values[name]
        if categories is not None:
            row.append(categories[value])
        else:
            row.append(nan if value is None else value)
    return row
