"""The catalog: authoring model, validation, and the compiled, immutable, indexed form."""
