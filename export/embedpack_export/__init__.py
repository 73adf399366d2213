"""embedpack_export: checkpoints and adapters to packs. The steps of an export are in `pipeline.export`."""
