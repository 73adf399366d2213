"""embedpack_export: checkpoints and adapters to packs. The story of an export is `pipeline.export`."""
