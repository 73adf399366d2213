"""Export plan: settings, model source, tasks, calibration texts."""
