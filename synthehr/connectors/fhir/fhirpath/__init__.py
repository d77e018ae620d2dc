"""FHIRPath compiled to Python functions: no expression is interpreted while records are read.

What is supported is HL7's FHIRPath 2.0 with the functions of R4 and of SQL on FHIR, over R4's types; what is not is
refused when an expression is compiled, and never answered at random. Where the language leaves a choice, or JSON does:

* **Types** come from the table in r4.json. An element that R4 lacks (R5 has others) is looked up by its name and is not
  refused unless asked (``strict``); the JSON key of a choice (``valueQuantity``) always is.
* **Numbers** may be int, float or Decimal. A float counts as its shortest writing; what asks for a decimal's digits
  (toString(), precision(), boundaries) refuses it: read the records by :func:`parse_json` for that.
* **Shapes**: a missing element is empty; one that is not the JSON that R4 has there (a text where an object must be) is
  a DataError, as are several items where an expression needs one.
* **Elements without a value** (extensions alone) exist, are counted and keep their place; they give no value.
* **Comparisons that can never hold** (a text with a date, an object with a text) are refused; quantities are compared
  where their UCUM units are built of known parts, and a unit outside UCUM equals itself alone.
"""

from synthehr.connectors.fhir.fhirpath.compiled import CompiledPath, compile_path, parse_json
from synthehr.connectors.fhir.fhirpath.values import Element

__all__ = ["CompiledPath", "Element", "compile_path", "parse_json"]
